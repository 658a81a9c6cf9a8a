"""Arrivals: what a save commits, until it is filed among the jobs."""

import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from daemon import making
from daemon.making import Spools, inline, save, soon
from dropoff.content import Capture, Content
from dropoff.errors import SpoolFullError
from dropoff.messages import JobState
from dropoff.saves import Save
from dropoffd.errors import SpoolBrokenError, StartError
from dropoffd.spool import arrivals, jobs
from dropoffd.spool.arrivals import PENDING_MOST
from dropoffd.spool.database import Database
from dropoffd.spool.journal import BLOCK_BYTES, Journal
from dropoffd.spool.spool import Spool

pytestmark = pytest.mark.anyio


def linked(one: Save, size: int = 10) -> Content:
    """Return a content that is a link."""
    return Content(
        ordinal=1, path=one.name, size_bytes=size, mode=0o644, mtime_ns=1, capture=Capture.LINK,
        place=b"payloads/" + one.job.encode(), synced=False,
    )  # fmt: skip


async def opened(spools: Spools, first: Save | None = None) -> Spool:
    """Return an open spool that has had a first save, so that others can arrive at once."""
    spool = await spools.open()
    await spool.accept(first or save(), [making.inline(b"first")], ())
    return spool


async def arrive(spool: Spool, one: Save, content: Content | None = None) -> int:
    """Accept a save at once."""
    return await soon(lambda: spool.accept_at_once(one, content or linked(one)))


def rows(connection: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    """Return what is in the tables that a new job has rows in."""
    tables = ("jobs", "contents", "inlines", "totals")
    return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]


async def test_what_is_filed_is_what_would_have_been_accepted(tmp_path: Path) -> None:
    """Arrivals, once filed, left the rows that accepting the same saves leaves."""
    first, *saves = [save(name=b"\xff %d" % n, priority=n) for n in range(6)]
    contents = [linked(one) if one.priority % 2 else inline(one.name) for one in saves]
    found = []
    for name in ("accepted", "arrived"):
        spools = Spools(tmp_path / name)
        spool = await opened(spools, first)
        for one, content in zip(saves, contents, strict=True):
            if name == "accepted":
                assert await spool.accept(one, [content], ()) is not None
            else:
                await arrive(spool, one, content)
        found.append(await spool._database.run(rows))
        await spools.aclose()
    accepted, arrived = found
    assert [len(table) for table in accepted[:2]] == [6, 6]
    assert arrived == accepted


async def test_no_number_is_given_twice(spools: Spools) -> None:
    """However a job is accepted, and however the daemons before ended, it has a number larger than those before."""
    numbers: list[int | None] = []
    for _ in range(3):
        spool = await opened(spools)
        for _ in range(3):
            numbers.append(await arrive(spool, save()))
            numbers.append(await spool.accept(save(), [inline(b"x")], ()))
        await spools.aclose()
    assert [numbers.index(number) for number in numbers] == list(range(len(numbers)))


async def test_an_arrival_is_seen_by_whoever_asks_for_jobs(spools: Spools) -> None:
    """Right after a save that was accepted at once it is listed, counted, waited for and next to be delivered."""
    spool = await opened(spools)
    one = save()
    seq = await arrive(spool, one, linked(one, 7))
    assert [report.job for report in await spool.found(one.job)] == [one.job]
    assert (await spool.totals())[JobState.QUEUED].size_bytes == len(b"first") + 7
    assert (await spool.settled([one.job], None))[0] == 1
    (store,) = await spool.busy_stores()
    assert seq in {candidate.seq for candidate in await spool.window(store)}
    await spool.finish(seq, JobState.CANCELLED)
    assert (await spool.settled([one.job], None))[0] == 0


async def killed(spools: Spools, home: Path) -> Spools:
    """Return the spool as a kill right now would leave it."""
    shutil.copytree(spools.state, home)
    return Spools(home)


async def test_an_arrival_survives_an_abrupt_end(spools: Spools, tmp_path: Path) -> None:
    """A copy of the files taken right after an answer, as a kill leaves them, has the arrivals; opened, as jobs."""
    spool = await opened(spools)
    saves = [save() for _ in range(20)]
    for one in saves:
        await arrive(spool, one)
    after = await killed(spools, tmp_path / "after")
    again = await after.open()
    assert again.quota.used_bytes == len(b"first") + sum(linked(one).size_bytes for one in saves)
    assert {job for job, _, _ in await again.unsettled()} == {one.job for one in saves}
    await after.aclose()


async def test_an_arrival_is_filed_once(spools: Spools, tmp_path: Path) -> None:
    """A job that ended, and was forgotten, does not come back from the journal after a kill."""
    spool = await opened(spools)
    first, second = save(), save()
    await spool.finish(await arrive(spool, first), JobState.CANCELLED)
    await spool._database.run(lambda c: c.execute("DELETE FROM jobs WHERE job = ?", (first.job,)))
    await arrive(spool, second)
    after = await killed(spools, tmp_path / "after")
    again = await after.open()
    assert [len(await again.found(one.job)) for one in (first, second)] == [0, 1]
    await after.aclose()


async def test_the_journal_of_another_database_is_left_alone(spools: Spools, tmp_path: Path) -> None:
    """Who begins anew with the database alone does not find the old one's jobs in the new one."""
    spool = await opened(spools)
    one = save()
    await arrive(spool, one)
    after = await killed(spools, tmp_path / "after")
    for path in after.state.glob("spool.db*"):
        if not path.name.endswith("-arrivals"):
            path.unlink()
    again = await opened(after)
    assert await again.found(one.job) == []
    two = save()
    await arrive(again, two)
    last = await killed(after, tmp_path / "last")
    assert len(await (await last.open()).found(two.job)) == 1
    await last.aclose()
    await after.aclose()


async def test_a_record_that_was_cut_off_is_none(spools: Spools, tmp_path: Path) -> None:
    """Of a record whose write a power cut interrupted, whose caller had no answer, nothing is found."""
    spool = await opened(spools)
    saves = [save(), save()]
    content = inline(b"x" * (3 * BLOCK_BYTES))
    for one in saves:
        await arrive(spool, one, content)
    after = await killed(spools, tmp_path / "after")
    path = after.state / "spool.db-arrivals"
    data = bytearray(path.read_bytes())
    data[6 * BLOCK_BYTES : 7 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    path.write_bytes(data)
    again = await after.open()
    assert [len(await again.found(one.job)) for one in saves] == [1, 0]
    await after.aclose()


async def test_garbage_of_this_owner_is_not_passed_over(spools: Spools) -> None:
    """A record that is whole and makes no sense may be somebody's save: no daemon starts without it."""
    spool = await opened(spools)
    await arrive(spool, save())
    state = await spool._database.run(arrivals.state)
    await spools.aclose()
    journal = Journal(str(spools.state / "spool.db-arrivals"), state.owner)
    journal.append(1000, b"\xc1")
    journal.close()
    with pytest.raises(StartError, match="unable to read the journal of arrivals"):
        await spools.open()


async def test_an_arrival_of_an_older_daemon_is_filed(spools: Spools) -> None:
    """What was in the table for arrivals, before there was a journal, is a job after the first start."""
    spool = await opened(spools)
    one = save()
    run = await spool._database.run(lambda c: jobs.run_of(c, (one.run.project, one.run.name, one.run.store)))
    row = (7, one.job, run, msgspec.msgpack.encode(one), msgspec.msgpack.encode(linked(one)))
    await spool._database.run(lambda c: c.execute("INSERT INTO arrivals VALUES (?, ?, ?, ?, ?)", row))
    await spools.aclose()
    again = await opened(spools)
    assert [report.seq for report in await again.found(one.job)] == [7]
    assert await arrive(again, save()) > 7


async def test_a_call_that_is_made_again_makes_no_second_job(spools: Spools) -> None:
    """Made again the way calls are, an arrival is known; and one that arrives twice all the same is filed once."""
    spool = await opened(spools)
    one = save()
    await arrive(spool, one)
    assert await spool.accept(one, [linked(one)], ()) is None
    await arrive(spool, one)
    await arrive(spool, other := save())
    assert [len(await spool.found(job)) for job in (one.job, other.job)] == [1, 1]
    assert (await spool.totals())[JobState.QUEUED].jobs == 3


async def test_many_arrivals_are_filed_by_the_way(spools: Spools) -> None:
    """However many come without a question between, they never wait in such a number that the next is refused."""
    spool = await opened(spools)
    saves = [save() for _ in range(2 * PENDING_MOST)]
    for one in saves:
        await arrive(spool, one)
    assert [report.job for report in reversed(await spool.listed([], 2 * PENDING_MOST, None))] == [
        one.job for one in saves
    ]


def pages(most: int, connection: sqlite3.Connection) -> None:
    """Let a database have no more pages; SQLite takes the present number if that is more."""
    connection.execute(f"PRAGMA max_page_count = {most}")


@asynccontextmanager
async def full_disk(spool: Spool) -> AsyncIterator[None]:
    """Have no space for rows."""
    await spool._database.run(partial(pages, 1))
    yield
    await spool._database.run(partial(pages, 1 << 30))


async def test_what_cannot_be_filed_is_waited_for(spools: Spools) -> None:
    """With the disk full no arrival is lost: questions are answered, and it counts as pending until it is filed."""
    spool = await opened(spools)
    async with full_disk(spool):
        arrived = 0
        while spool.accept_at_once(one := save(), linked(one)) is not None or spool._arrivals.prompt:
            arrived += 1
        with pytest.raises(SpoolFullError):
            await spool.accept(save(), [inline(bytes(60_000))], ())
        assert (await spool.settled((), None))[0] == 1 + arrived
        assert spool.waits_for_space
    assert (await spool.totals())[JobState.QUEUED].jobs == 1 + arrived
    assert (await spool.settled((), None))[0] == 1 + arrived
    assert not spool.waits_for_space


async def test_what_cannot_be_filed_is_a_job_all_the_same(spools: Spools) -> None:
    """Its id is known, its content needed, cared for and not said to have ended, though no row tells of it."""
    spool = await opened(spools)
    one, large = save(), save()
    async with full_disk(spool):
        seq = await arrive(spool, one)
        await arrive(spool, large, inline(bytes(60_000)))
        assert await spool.known(one.job)
        assert await spool.accept(one, [linked(one)], ()) is None
        assert one.job in {job for job, _, _ in await spool.unsettled()}
        with pytest.raises(SpoolFullError):
            await spool.replace_content(seq, linked(one))
    assert await spool.replace_content(seq, linked(one))
    assert [len(await spool.found(job)) for job in (one.job, large.job)] == [1, 1]


async def test_a_start_on_a_full_disk_takes_no_arrival_for_none(
    spools: Spools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not filed before a kill, and cannot be after it, keeps its content and its bytes in the quota."""
    spool = await opened(spools)
    one, large = save(), save()
    await arrive(spool, one)
    await arrive(spool, large, inline(bytes(60_000)))
    after = await killed(spools, tmp_path / "after")
    payload = after.state / os.fsdecode(linked(one).place)
    payload.write_bytes(b"content")
    connect = Database._connect

    def on_a_full_disk(database: Database) -> sqlite3.Connection:
        connection = connect(database)
        pages(1, connection)
        return connection

    monkeypatch.setattr(Database, "_connect", on_a_full_disk)
    again = await after.open()
    assert again.waits_for_space
    assert again.quota.used_bytes == len(b"first") + 10 + 60_000
    assert [job for job, _, _ in await again.unsettled()] == [one.job]
    await again.sweep([linked(one).place])
    assert payload.exists()
    await again._database.run(partial(pages, 1 << 30))
    assert [len(await again.found(job)) for job in (one.job, large.job)] == [1, 1]
    await after.aclose()


async def test_a_record_that_was_given_up_is_not_found_again(
    spools: Spools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the journal finds no space the save is not taken, though its record may be there; later ones are."""
    spool = await opened(spools)
    append, refused, later = Journal.append, save(), save()

    def written_but_refused(journal: Journal, number: int, said: bytes) -> None:
        append(journal, number, said)
        journal._offset -= BLOCK_BYTES
        raise OSError(errno.ENOSPC, "No space left on device")

    await arrive(spool, save())
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", written_but_refused)
        assert spool.accept_at_once(refused, linked(refused)) is None
    assert spool.prompt
    await spool.meta("anything")
    await spool.meta("anything")
    first = await killed(spools, tmp_path / "first")
    assert await (await first.open()).found(refused.job) == []
    await arrive(spool, later)
    second = await killed(spools, tmp_path / "second")
    opened_again = await second.open()
    assert [len(await opened_again.found(job)) for job in (refused.job, later.job)] == [0, 1]
    await first.aclose()
    await second.aclose()


async def test_what_cannot_be_filed_for_another_reason_breaks_the_spool(spools: Spools) -> None:
    """Whoever asks is told, and nothing more is taken: what arrived stays in the journal."""
    spool = await opened(spools)
    await arrive(spool, msgspec.structs.replace(save(), priority=2**63))
    with pytest.raises(SpoolBrokenError, match="unable to file what arrived"):
        await spool.totals()
    assert not spool.prompt
