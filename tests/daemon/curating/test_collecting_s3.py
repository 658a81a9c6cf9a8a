"""Garbage on servers that others wrote: what their clocks and listings tell is enough to tell it."""

import hashlib
import time

import pytest

from daemon.making import job_id
from dropoff.records import Entry, Record, encode
from dropoff.saves import Category, Kind
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import claimed
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.stores.base import Bytes, Overwrite, Store, ignore_progress
from support.servers.address import Address
from support.stores import s3_store

pytestmark = pytest.mark.anyio

# What was stored just now is older than this.
GRACE_SECONDS = -5.0


async def put(store: Store, key: str, data: bytes) -> str:
    """Store an object."""
    await store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)
    return key


async def test_garbage_goes_and_what_is_named_stays(s3_bucket: Address) -> None:
    """On every server: garbage is removed, what a record names is not, and nothing is left of the collection."""
    async with s3_store(s3_bucket, "team") as store:
        await store.prepare()
        named, garbage = [await put(store, f"cv/files/{name}", name.encode()) for name in ("named", "garbage")]
        async with claimed(store, "cv", job_id(1), {named}, time.time()):
            record = Record(
                job=job_id(1), project="cv", run="run", kind=Kind.FILE, name="a", category=Category.OUTPUT,
                created="", entries=(Entry(path="a", key=named, size=5, sha256="3" * 64, mode="0644", mtime=""),),
            )  # fmt: skip
            naming = await put(store, f"{keys.records_prefix('cv', 'run')}{job_id(1)}.json", encode(record))
        done = await Collector(store, "cv", GRACE_SECONDS, SystemClock()).run(apply=True)
        assert (done.kept, done.garbage, done.removed) == (1, 1, 1), garbage
        assert {stat.key async for stat in store.list("cv/")} == {named, naming}
