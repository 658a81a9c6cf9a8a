"""Pruning while people change their minds."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.making import job_id
from dropoff.answers import Removed
from dropoff.questions import Prune
from dropoff.records import AliasRecord, Manifest, encode
from dropoffd.catalogue import keys
from dropoffd.clock import SystemClock
from dropoffd.curator import Curator
from dropoffd.index.index import Indexes
from dropoffd.stores.base import Bytes, Overwrite, Stat, Store, ignore_progress
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio


class Opened(DirectoryStore):
    """A store in which a version is given an alias while it is found out what its removal would orphan."""

    async def open(self, _: str) -> Store:
        """Return this one, whatever is asked for."""
        return self

    async def store(self, key: str, data: bytes) -> None:
        """Store an object."""
        await self.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)

    async def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix."""
        if prefix == keys.version_links_prefix("cv", "cats", 1):
            await self.store(keys.alias_key("cv", "cats", "best"), encode(AliasRecord(version=0, changed="", job="")))
        async for stat in super().list(prefix):
            yield stat


async def test_a_version_that_is_just_given_an_alias_stays(tmp_path: Path) -> None:
    """What was to go when the rules were first asked, and is kept by then, is not removed."""
    store = Opened(str(tmp_path / "store"))
    for number in range(3):
        made = Manifest(
            project="cv", artifact="cats", type="dataset", version=number, digest="", size=0, created="",
            job=job_id(number), run="run", entries=(),
        )  # fmt: skip
        await store.store(keys.version_key("cv", "cats", number), encode(made))
    indexes = Indexes(str(tmp_path / "cache"))
    curator = Curator(store, indexes, SystemClock())
    done = await curator.answer(Prune(store=store.url, project="cv", rules="*/*: newest 1", apply=True))
    indexes.close()
    assert isinstance(done, Removed)
    assert ([one.id.number for one in done.doomed], done.versions) == ([1], 1)
