"""What it takes to find something among a hundred thousand records, and to index them first."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rig import Result, Rig, Times
from dropoff.conditions import conditions
from dropoff.ids import JobId
from dropoff.questions import Find, Subject
from dropoff.records import Entry, Record, encode
from dropoff.saves import Category, Kind
from dropoffd.catalogue import keys
from dropoffd.index.index import Indexes
from dropoffd.stores.directory.store import DirectoryStore

RUNS, RECORDS_OF_RUN = 100, 1000
ROUNDS = 10


def run(rig: Rig) -> Iterator[Result]:
    """Make a store of records, index it, and look for some of them again and again."""
    root = rig.place("store")
    for run_number in range(RUNS):
        (root / keys.records_prefix("cv", f"run-{run_number}")).mkdir(parents=True)
        for number in range(RECORDS_OF_RUN):
            _record(root, run_number, number)
    first, again, grown, found = asyncio.run(_times(root, str(rig.place("cache"))))
    records = RUNS * RECORDS_OF_RUN
    yield Result(f"{records} records found for the first time: all are read", first, "s")
    yield Result(
        f"{records} records listed and filtered, p50", again.p50, "s", len(again), most=1.0, note=f"{found} found"
    )
    yield Result("with one record more in every tenth run, p50", grown.p50, "s", len(grown), most=1.0)


def _record(root: Path, run_number: int, number: int) -> None:
    job = f"{run_number * 2 * RECORDS_OF_RUN + number:032x}"
    entry = Entry(path="best.pt", key="cv/files/3/best.pt", size=7, sha256="3" * 64, mode="0644", mtime="")
    record = Record(
        job=JobId(job), project="cv", run=f"run-{run_number}", kind=Kind.FILE, name="best.pt",
        category=Category.OUTPUT, created=f"2026-11-26T08:00:00.{number:06}Z", entries=(entry,),
        tags=(f"tag-{number % 7}",), metadata={"epoch": number},
    )  # fmt: skip
    (root / keys.records_prefix("cv", f"run-{run_number}") / f"{job}.json").write_bytes(encode(record))


async def _times(root: Path, cache: str) -> tuple[float, Times, Times, int]:
    indexes, store = Indexes(cache), DirectoryStore(str(root))
    asked = Find(store=store.url, subject=Subject.FILE, tags=("tag-3",), where=conditions("epoch>900"), limit=1000)

    async def find(times: Times) -> int:
        began = time.perf_counter()
        found = len((await indexes.find(store, asked)).files)
        times.note(time.perf_counter() - began)
        return found

    first, again, grown = Times(), Times(), Times()
    found = await find(first)
    for _ in range(ROUNDS):
        await find(again)
    for number in range(ROUNDS):
        for run_number in range(0, RUNS, 10):
            _record(root, run_number, RECORDS_OF_RUN + number)
        await find(grown)
    indexes.close()
    return first.all[0], again, grown, found
