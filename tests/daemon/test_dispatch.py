"""How deliveries end: a real spool, worker and directory, and a store whose faults are scripted."""

import os
import sqlite3
from pathlib import Path

import anyio
import pytest

from daemon import making
from daemon.making import Deliveries, FakeClock, Fault, FaultyStore, Spools, inline, run_info, save
from dropoff.messages import JobReport, JobState
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    CorruptError,
    DeniedError,
    Mode,
    Progress,
    RefusedError,
    Stat,
    StoreError,
    ThrottledError,
    UnavailableError,
    UnreachableError,
)
from dropoffd.stores.directory.store import DirectoryStore
from support import oracle

pytestmark = pytest.mark.anyio


class Rig(Deliveries):
    """The parts of a daemon that deliver, two at once."""

    def __init__(self, spool: Spool, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.store = FaultyStore(DirectoryStore(str(root / "store")))
        super().__init__(spool, root / "state", self.store, self.clock, places=2)

    async def accept(self, data: bytes = b"content", **arguments: object) -> int:
        """Take a job into custody."""
        seq = await self.spool.accept(save(**arguments), [inline(data)], ())  # type: ignore[arg-type]
        assert seq is not None
        self.spool.quota.reserve(len(data))
        return seq

    async def report(self, seq: int) -> JobReport:
        """Return how a job stands."""
        (report,) = await self.spool.numbered([seq])
        return report


@pytest.fixture
async def rig(spools: Spools, tmp_path: Path) -> Rig:
    """Return a rig with an empty spool and store."""
    return Rig(await spools.open(), tmp_path)


async def test_a_delivery_is_delivered(rig: Rig) -> None:
    """A job ends delivered, with a receipt, its content and record in the store, its bytes out of custody."""
    seq = await rig.accept()
    await rig.round()
    report = await rig.report(seq)
    assert report.receipt is not None
    assert (report.state, report.receipt.sha256) == (JobState.DELIVERED, making.sha256(b"content"))
    assert oracle.contents(rig.root / "store") == {report.job: {b"file": b"content"}}
    assert rig.spool.quota.used_bytes == 0


async def test_a_store_that_is_away_lets_jobs_wait(rig: Rig) -> None:
    """An unavailable store makes a job wait, longer each time, until it is delivered by itself."""
    seq = await rig.accept()
    tries = 4
    rig.store.script.extend(Fault("put", UnavailableError("unable: away")) for _ in range(tries))
    pauses = []
    for _ in range(tries):
        await rig.round()
        report = await rig.report(seq)
        assert (report.state, report.reason) == (JobState.WAITING, "unable: away")
        assert report.retry_at is not None
        pauses.append(report.retry_at - rig.clock.now())
        rig.clock.advance(pauses[-1] - 1)
        await rig.round()
        assert (await rig.report(seq)).state is JobState.WAITING
        rig.clock.advance(1)
    assert [low <= pause <= 2 * low for low, pause in zip((5, 10, 20, 40), pauses, strict=True)] == [True] * tries
    await rig.round()
    assert (await rig.report(seq)).state is JobState.DELIVERED
    assert not rig.store.script


async def test_what_needs_a_person_is_held_with_a_hint(rig: Rig) -> None:
    """A store that refuses the object holds the job with its reason and hint, for ever, until a retry releases it."""
    seq = await rig.accept()
    rig.store.script.append(Fault("put", RefusedError("unable: no", hint="give access")))
    await rig.round()
    rig.clock.advance(1e6)
    await rig.round()
    report = await rig.report(seq)
    assert (report.state, report.reason, report.hint) == (JobState.HELD, "unable: no", "give access")
    assert rig.spool.quota.used_bytes == 7
    assert await rig.spool.requeue(None) == 1
    await rig.round()
    assert (await rig.report(seq)).state is JobState.DELIVERED


@pytest.mark.parametrize("kind", [DeniedError, UnreachableError, ThrottledError])
async def test_a_store_that_fails_for_all_is_left_alone(rig: Rig, kind: type[StoreError]) -> None:
    """Its jobs stay queued, none of their tries is used up, the reason is told, and all go on when it works again."""
    seqs = [await rig.accept(b"%d" % n) for n in range(5)]
    rig.store.script.extend(Fault("put", kind("unable: no", hint="give access")) for _ in range(4))
    for _ in range(3):
        await rig.round()
        (told,) = rig.dispatch.stores()
        assert (told.reason, told.hint, told.needs_person) == ("unable: no", "give access", kind is DeniedError)
        calls = len(rig.store.calls)
        await rig.round()  # before its time: nobody asks
        assert len(rig.store.calls) == calls
        rig.clock.advance(told.retry_at - rig.clock.now())
    reports = [await rig.report(seq) for seq in seqs]
    assert {(report.state, report.attempts) for report in reports} == {(JobState.QUEUED, 0)}
    assert not rig.store.script
    for _ in range(4):
        await rig.round()
    assert rig.dispatch.stores() == []
    assert {(await rig.report(seq)).state for seq in seqs} == {JobState.DELIVERED}


async def test_a_job_that_is_denied_where_others_are_not_is_held(rig: Rig) -> None:
    """Of two jobs the one that the store denies again, after the other was delivered, is held with the hint."""
    rig.dispatch._places = 1
    denied = DeniedError("unable: no", hint="give access")
    first, second = await rig.accept(b"one"), await rig.accept(b"two")
    rig.store.script.append(Fault("put", denied))
    await rig.round()
    rig.clock.advance(100)
    await rig.round()
    rig.store.script.append(Fault("put", denied))
    await rig.round()
    reports = [await rig.report(first), await rig.report(second)]
    assert sorted(report.state for report in reports) == [JobState.DELIVERED, JobState.HELD]
    assert rig.dispatch.stores() == []


async def test_a_store_that_lies_is_tried_a_few_times(rig: Rig) -> None:
    """Content that arrives as something else waits twice, and is held the third time."""
    seq = await rig.accept()
    rig.store.script.extend(Fault("put", CorruptError("unable: differs")) for _ in range(3))
    states = []
    for _ in range(3):
        await rig.round()
        states.append((await rig.report(seq)).state)
        rig.clock.advance(1000)
    assert states == [JobState.WAITING, JobState.WAITING, JobState.HELD]
    assert not rig.store.script


async def test_a_bug_holds_one_job_and_no_other(rig: Rig) -> None:
    """What nobody foresaw holds the job it struck, with its name, and the next one is delivered."""
    seq, other = await rig.accept(b"one"), await rig.accept(b"two")
    rig.dispatch._places = 1
    rig.store.script.append(Fault("put", ZeroDivisionError("by zero")))
    await rig.round()
    await rig.round()
    reports = [await rig.report(seq), await rig.report(other)]
    assert sorted(report.state for report in reports) == [JobState.DELIVERED, JobState.HELD]
    (held,) = (report for report in reports if report.state is JobState.HELD)
    assert "ZeroDivisionError: by zero" in held.reason


async def test_a_store_that_nothing_serves_holds_the_job(rig: Rig) -> None:
    """A job that came in with an impossible store is held with a hint."""
    seq = await rig.accept(run=run_info(store="refused://nowhere"))
    await rig.round()
    report = await rig.report(seq)
    assert (report.state, report.hint != "") == (JobState.HELD, True)


async def test_a_lost_answer_makes_no_second_record(rig: Rig) -> None:
    """A put of content, run or record whose answer is lost is found at the next try, and not repeated."""
    for call in range(3):
        seq = await rig.accept(b"content %d" % call, run=run_info(f"run {call}"))
        rig.store.script.append(Fault("put", UnavailableError("unable: no answer"), after=True))
        rig.store.script.extendleft(Fault("put", None) for _ in range(call))
        rounds = 0
        while (await rig.report(seq)).state is not JobState.DELIVERED:
            await rig.round()
            rig.clock.advance(1000)
            rounds += 1
        assert (rounds, len(rig.store.script)) == (2, 0)
    records = oracle.contents(rig.root / "store")
    assert sorted(next(iter(files.values())) for files in records.values()) == [
        b"content 0",
        b"content 1",
        b"content 2",
    ]


async def test_damaged_content_in_the_store_is_put_right(rig: Rig) -> None:
    """An object that somebody damaged is replaced when a job brings the right bytes."""
    await rig.accept(b"content")
    await rig.round()
    (path,) = (rig.root / "store").glob("*/files/*/*")
    path.unlink()
    path.write_bytes(b"damaged")
    seq = await rig.accept(b"content")
    rig.store.calls.clear()
    await rig.round()
    assert (await rig.report(seq)).state is JobState.DELIVERED
    assert path.read_bytes() == b"content"
    # It may have been garbage that is just being removed: so it is claimed, and looked at again.
    assert rig.store.calls[1:] == ["stat", "put", "put", "stat", "put", "delete"]


async def test_what_a_second_try_finds_is_claimed(rig: Rig) -> None:
    """What the store has had for long is not taken for just sent, although a try that failed might have sent it."""

    class Again(DirectoryStore):
        async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
            try:
                return await super().put(key, body, mode, progress)
            except AlreadyExistsError:
                return await self.stat(key)

    await rig.accept(b"content")
    await rig.round()
    (path,) = (rig.root / "store").glob("*/files/*/*")
    os.utime(path, (rig.clock.now() - 2 * 86400,) * 2)
    rig.store.inner = Again(str(rig.root / "store"))
    rig.store.calls.clear()
    await rig.accept(b"content")
    await rig.round()
    assert rig.store.calls == ["put", "put", "stat", "put", "delete"]


async def test_the_same_content_is_stored_once(rig: Rig) -> None:
    """A second job with the same few bytes hears that they are there, claims them, looks again, sends a record."""
    await rig.accept(b"content")
    await rig.round()
    rig.store.calls.clear()
    await rig.accept(b"content")
    await rig.round()
    assert rig.store.calls == ["put", "stat", "put", "stat", "put", "delete"]


async def test_a_small_file_takes_two_requests(rig: Rig) -> None:
    """New content is not asked about first: after the run's own record it is the content and the record."""
    await rig.accept(b"one")
    await rig.round()
    assert rig.store.calls == ["put"] * 3
    rig.store.calls.clear()
    await rig.accept(b"two")
    await rig.round()
    assert rig.store.calls == ["put"] * 2


@pytest.mark.parametrize("hours", [7, -1], ids=["long ago", "by a clock that was wrong"])
async def test_what_was_sent_at_no_near_time_is_claimed(rig: Rig, hours: int) -> None:
    """What a delivery sent itself, hours before it comes to name it, it makes sure of as if it had found it."""

    class Slow(DirectoryStore):
        async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
            if "/files/" in key and "/runs/" not in key:
                rig.clock.advance(hours * 3600)
            return await super().put(key, body, mode, progress)

    await rig.accept(b"first")
    await rig.round()
    rig.store.calls.clear()
    rig.store.inner = Slow(str(rig.root / "store"))
    await rig.accept(b"content")
    await rig.round()
    assert rig.store.calls == ["put", "put", "stat", "put", "delete"]


async def test_no_more_run_than_there_are_places(rig: Rig) -> None:
    """Two places, five jobs: two start, and the others stay queued."""
    seqs = [await rig.accept(b"%d" % n) for n in range(5)]
    await rig.round()
    states = [(await rig.report(seq)).state for seq in seqs]
    assert (states.count(JobState.DELIVERED), states.count(JobState.QUEUED)) == (2, 3)


async def test_what_waits_for_space_is_delivered_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save whose row found no space on the disk is looked for again, without another save or a command."""

    def pages(most: int, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {most}")  # SQLite takes the present number if that is more

    looked, look = anyio.Event(), rig.spool.busy_stores

    async def busy_stores() -> dict[int, str]:
        found = await look()
        looked.set()
        return found

    monkeypatch.setattr(rig.spool, "busy_stores", busy_stores)
    await rig.accept()
    await rig.spool._database.run(lambda c: pages(1, c))
    large = await making.soon(lambda: rig.spool.accept_at_once(save(), inline(os.urandom(60_000))))
    async with anyio.create_task_group() as group:
        group.start_soon(rig.dispatch.run)
        await looked.wait()
        await rig.spool._database.run(lambda c: pages(1 << 30, c))
        looked = anyio.Event()
        rig.clock.advance(10)
        await looked.wait()
        while (await rig.report(large)).state is not JobState.DELIVERED:  # noqa: ASYNC110  # no other sign of it
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()


async def test_cancel_ends_a_queued_job_once(rig: Rig) -> None:
    """A cancelled job is not delivered, its bytes are freed, and it cannot be cancelled again."""
    seq = await rig.accept()
    assert await rig.dispatch.cancel(seq)
    assert not await rig.dispatch.cancel(seq)
    await rig.round()
    assert (await rig.report(seq)).state is JobState.CANCELLED
    assert oracle.records(rig.root / "store") == {}
    assert rig.spool.quota.used_bytes == 0


async def test_supersede_leaves_a_running_delivery_alone(rig: Rig) -> None:
    """A queued job can be superseded; one that is on its way arrives."""
    queued = await rig.accept(b"one")
    await rig.dispatch.supersede(queued)
    assert (await rig.report(queued)).state is JobState.SUPERSEDED
    running = await rig.accept(b"two")
    async with anyio.create_task_group() as group:
        await rig.dispatch._start_next(group)
        await rig.dispatch.supersede(running)
    assert (await rig.report(running)).state is JobState.DELIVERED


async def test_a_pause_is_remembered(rig: Rig, spools: Spools) -> None:
    """Whether deliveries are paused is in the spool, for the next daemon."""
    await rig.dispatch.pause(paused=True)
    assert rig.dispatch.paused
    await spools.aclose()
    again = await spools.open()
    assert await again.meta("paused") == "1"
