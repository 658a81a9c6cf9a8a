"""Arrivals: what a save commits, until it is filed among the jobs."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from daemon import making
from daemon.making import Spools, inline, save, soon
from dropoff.content import Capture, Content
from dropoff.errors import SpoolFullError
from dropoff.messages import JobState
from dropoff.saves import Save
from dropoffd.spool import arrivals, jobs
from dropoffd.spool.schema import migrate
from dropoffd.spool.spool import Spool

pytestmark = pytest.mark.anyio

SAVES = 50
WAL_FRAME_HEADER_BYTES = 24  # https://www.sqlite.org/fileformat2.html#walformat


def linked(one: Save, size: int = 10) -> Content:
    """Return a content that is a link."""
    return Content(
        ordinal=1, path=one.name, size_bytes=size, mode=0o644, mtime_ns=1, capture=Capture.LINK,
        place=b"payloads/" + one.job.encode(), synced=False,
    )  # fmt: skip


async def opened(spools: Spools) -> Spool:
    """Return an open spool that has had a first save, so that others can arrive at once."""
    spool = await spools.open()
    await spool.accept(save(), [making.inline(b"first")], ())
    return spool


async def arrive(spool: Spool, one: Save, size: int = 10) -> int:
    """Accept a save at once."""
    return await soon(lambda: spool.accept_at_once(one, linked(one, size)))


async def arrivals_that_fit(spool: Spool) -> int:
    """Accept saves at once until the disk is full; return how many there was space for."""
    count = 0
    while True:
        try:
            await arrive(spool, save())
        except SpoolFullError:
            return count
        count += 1


def rows(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    """Return what is in the tables that a new job has rows in."""
    tables = ("jobs", "contents", "inlines", "totals")
    return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


def test_what_is_filed_is_what_would_have_been_accepted() -> None:
    """Arrivals, once filed, left the rows that accepting the same saves leaves, and no arrival."""
    left, right = [sqlite3.connect(":memory:", isolation_level=None) for _ in range(2)]
    saves = [save(name=b"\xff %d" % n, priority=n) for n in range(5)]
    for connection in (left, right):
        migrate(connection)
        run = jobs.run_of(connection, ("project", "run", "file:///store"))
        for one in saves:
            content = linked(one) if one.priority % 2 else inline(one.name)
            if connection is left:
                assert jobs.accept(connection, run, one, [content], ()) is not None
            else:
                assert arrivals.add(connection, run, one, content) is not None
    arrivals.file(right)
    assert rows(left) == rows(right)
    assert arrivals.count(right) == 0


def test_an_arrival_commits_few_pages(tmp_path: Path) -> None:
    """A caller waits for one page, with content for what it fills and a few: not for all rows of the job."""
    connection = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection)
    run = jobs.run_of(connection, ("project", "run", "file:///store"))
    page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
    log = tmp_path / "spool.db-wal"

    def pages(content: Content | None) -> float:
        """Return how many pages an arrival commits, on average: now and then a page is split."""
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(SAVES):
            one = save()
            assert arrivals.add(connection, run, one, content or linked(one)) is not None
        return log.stat().st_size / (page_bytes + WAL_FRAME_HEADER_BYTES) / SAVES

    assert pages(None) < 2
    assert pages(inline(bytes(4 * page_bytes))) < 4 + 5
    connection.close()


def test_an_arrival_is_a_known_job_with_a_number_of_its_own() -> None:
    """Neither its id nor its number is given to another job, filed or not."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    run = jobs.run_of(connection, ("project", "run", "file:///store"))
    one, two, three = save(), save(), save()
    numbers = [arrivals.add(connection, run, one, linked(one)), jobs.accept(connection, run, two, [linked(two)], ())]
    for again in (one, two):
        assert arrivals.add(connection, run, again, linked(again)) is None
        assert jobs.accept(connection, run, again, [linked(again)], ()) is None
    arrivals.file(connection)
    assert arrivals.add(connection, run, one, linked(one)) is None
    numbers.append(arrivals.add(connection, run, three, linked(three)))
    assert numbers == [1, 2, 3]


async def test_an_arrival_is_seen_by_whoever_asks_for_jobs(spools: Spools) -> None:
    """Right after a save that was accepted at once it is listed, counted, waited for and next to be delivered."""
    spool = await opened(spools)
    one = save()
    seq = await arrive(spool, one, size=7)
    assert [report.job for report in await spool.found(one.job)] == [one.job]
    assert (await spool.totals())[JobState.QUEUED].size_bytes == len(b"first") + 7
    assert (await spool.settled([one.job], None))[0] == 1
    (store,) = await spool.busy_stores()
    assert seq in {candidate.seq for candidate in await spool.window(store)}
    await spool.finish(seq, JobState.CANCELLED)
    assert (await spool.settled([one.job], None))[0] == 0


async def test_an_arrival_survives_an_abrupt_end(spools: Spools, tmp_path: Path) -> None:
    """A copy of the files taken right after an answer, as a kill leaves them, has the arrivals; opened, as jobs."""
    spool = await opened(spools)
    saves = [save() for _ in range(20)]
    for one in saves:
        await arrive(spool, one)
    shutil.copytree(spools.state, tmp_path / "after")
    after = Spools(tmp_path / "after")
    again = await after.open()
    assert again.quota.used_bytes == len(b"first") + sum(linked(one).size_bytes for one in saves)
    assert {job for job, _, _ in await again.unsettled()} == {one.job for one in saves}
    await after.aclose()


async def test_what_cannot_be_filed_is_waited_for(spools: Spools) -> None:
    """With the disk full no arrival is lost: questions are answered, and it counts as pending until it is filed."""

    def pages(most: int, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}")  # SQLite takes the present size if that is more

    spool = await opened(spools)
    await spool._database.run(lambda c: pages(1, c))
    arrived = await arrivals_that_fit(spool)
    assert arrived
    pending, _, _ = await spool.settled((), None)
    assert pending == 1 + arrived
    await spool._database.run(lambda c: pages(1 << 30, c))
    assert (await spool.totals())[JobState.QUEUED].jobs == 1 + arrived
    assert (await spool.settled((), None))[0] == 1 + arrived
