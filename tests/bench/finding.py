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
    _fill(root)
    first, again, found = asyncio.run(_times(DirectoryStore(str(root)), str(rig.place("cache"))))
    records = RUNS * RECORDS_OF_RUN
    yield Result(f"{records} records found for the first time: all are read", first, "s")
    yield Result(
        f"{records} records listed and filtered, p50", again.p50, "s", len(again), most=1.0, note=f"{found} found"
    )


def _fill(root: Path) -> None:
    for run_number in range(RUNS):
        folder = root / keys.records_prefix("cv", f"run-{run_number}")
        folder.mkdir(parents=True)
        for number in range(RECORDS_OF_RUN):
            job = f"{run_number * RECORDS_OF_RUN + number:032x}"
            entry = Entry(path="best.pt", key="cv/files/3/best.pt", size=7, sha256="3" * 64, mode="0644", mtime="")
            record = Record(
                job=JobId(job), project="cv", run=f"run-{run_number}", kind=Kind.FILE, name="best.pt",
                category=Category.OUTPUT, created=f"2026-11-26T08:00:00.{number:06}Z", entries=(entry,),
                tags=(f"tag-{number % 7}",), metadata={"epoch": number},
            )  # fmt: skip
            (folder / f"{job}.json").write_bytes(encode(record))


async def _times(store: DirectoryStore, cache: str) -> tuple[float, Times, int]:
    indexes = Indexes(cache)
    asked = Find(store=store.url, subject=Subject.FILE, tags=("tag-3",), where=conditions("epoch>900"), limit=1000)
    times, found = Times(), 0
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        found = len((await indexes.find(store, asked)).files)
        times.note(time.perf_counter() - began)
    first = times.all.pop(0)
    indexes.close()
    return first, times, found
