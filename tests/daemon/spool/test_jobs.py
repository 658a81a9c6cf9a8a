"""Rows: what each step on the spool's database does and leaves alone."""

import random
import sqlite3
from collections import Counter
from collections.abc import Sequence

import pytest

from daemon import making
from daemon.making import Spools, inline, run_info, save, sized
from dropoff.content import Capture, Content
from dropoff.messages import FINAL_STATES, JobState
from dropoff.saves import Keep, Save
from dropoffd.spool import jobs, reports
from dropoffd.spool.schema import migrate
from dropoffd.spool.spool import Spool


@pytest.fixture
def connection() -> sqlite3.Connection:
    """Return an empty spool in memory."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    migrate(made)
    return made


def accept(connection: sqlite3.Connection, one: Save, size: int = 1) -> int:
    """Accept a save of `size` bytes and return its `seq`."""
    seq = taken(connection, one, [sized(size)])
    assert seq is not None
    return seq


def taken(
    connection: sqlite3.Connection, one: Save, contents: Sequence[Content], skipped: Sequence[str] = ()
) -> int | None:
    """Accept a save into its run, which is added if need be."""
    run = jobs.run_of(connection, (one.run.project, one.run.name, one.run.store))
    seq = jobs.last_seq(connection) + 1
    return seq if jobs.accept(connection, seq, run, one, contents, skipped) else None


def states(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Count jobs and bytes by state from the rows themselves."""
    rows = connection.execute("SELECT state, count(*), sum(size_bytes) FROM jobs GROUP BY state")
    return {state: (count, size) for state, count, size in rows}


def test_a_job_is_accepted_once(connection: sqlite3.Connection) -> None:
    """Accepting a known id returns None and changes nothing, whatever else the second save says."""
    first = save(7)
    seq = taken(connection, first, [inline(b"one")], ("a", "b"))
    assert seq is not None
    before = (
        connection.execute("SELECT * FROM jobs").fetchall(),
        connection.execute("SELECT * FROM contents").fetchall(),
    )
    assert taken(connection, save(7, name=b"other"), [inline(b"two"), inline(b"3", 2)]) is None
    assert before == (
        connection.execute("SELECT * FROM jobs").fetchall(),
        connection.execute("SELECT * FROM contents").fetchall(),
    )


def test_a_known_job_stays_known_after_its_end(connection: sqlite3.Connection) -> None:
    """A job that was delivered has no content left, and is not accepted again: its deposit may come late."""
    one = save()
    jobs.finish(connection, accept(connection, one), JobState.DELIVERED, making.receipt(one.job))
    assert [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("contents", "inlines")] == [[], []]
    assert jobs.known(connection, one.job)
    assert taken(connection, one, [sized(1)]) is None


def test_what_was_accepted_is_loaded_as_it_was(connection: sqlite3.Connection) -> None:
    """A job's row gives back the save, every content and what was skipped."""
    one = save(name=b"\xff name\n")
    contents = [inline(b"data"), inline(b"more", 2, b"\xfe")]
    seq = taken(connection, one, contents, ("x: a fifo",))
    assert seq is not None
    loaded = jobs.load(connection, seq)
    assert loaded is not None
    assert (loaded.seq, loaded.save, loaded.skipped, loaded.size_bytes) == (seq, one, ("x: a fifo",), 8)
    assert [held.content for held in loaded.contents] == contents


def test_a_pack_does_not_count_beside_its_members(connection: sqlite3.Connection) -> None:
    """A job's size is that of its files, not of the archive that holds some of them."""
    pack = Content(ordinal=0, path=b"", size_bytes=999, mode=0, mtime_ns=0, capture=Capture.PACK)
    seq = taken(connection, save(), [pack, inline(b"1234", 1, b"a"), inline(b"5", 2, b"b")])
    assert seq is not None
    loaded = jobs.load(connection, seq)
    assert loaded is not None
    assert loaded.size_bytes == 5
    assert connection.execute("SELECT files, capture FROM jobs").fetchall() == [(2, "inline")]


@pytest.mark.parametrize("final", sorted(FINAL_STATES))
def test_an_ended_job_stays_ended(connection: sqlite3.Connection, final: JobState) -> None:
    """No step moves a job out of a final state, and ending it twice tells so."""
    seq = accept(connection, save())
    assert jobs.finish(connection, seq, final) == (1, [])
    for other in FINAL_STATES:
        assert jobs.finish(connection, seq, other) is None
    jobs.postpone(connection, seq, 0, "")
    jobs.hold(connection, seq, "", "")
    assert jobs.requeue(connection, [seq]) == 0
    assert jobs.requeue_due(connection, 1e18, 1e18) == 0
    assert jobs.load(connection, seq) is None
    assert states(connection) == {final: (1, 1)}


def test_waiting_ends_when_its_time_has_come(connection: sqlite3.Connection) -> None:
    """A postponed job is queued again at its time and not before, and counts one attempt more."""
    seq = accept(connection, save())
    jobs.postpone(connection, seq, 100.0, "why")
    assert jobs.next_due(connection) == 100.0
    assert jobs.requeue_due(connection, 99.9, 3600) == 0
    assert jobs.requeue_due(connection, 100.0, 3600) == 1
    loaded = jobs.load(connection, seq)
    assert loaded is not None
    assert (loaded.state, loaded.attempts) == (JobState.QUEUED, 1)
    assert jobs.next_due(connection) is None


def test_a_clock_that_was_wrong_keeps_nobody_waiting(connection: sqlite3.Connection) -> None:
    """A time further ahead than the longest pause has come already."""
    seq = accept(connection, save())
    jobs.postpone(connection, seq, 1e9, "the clock was years ahead")
    assert jobs.requeue_due(connection, 1000.0, 3600) == 1


def test_retry_takes_held_jobs_or_the_named(connection: sqlite3.Connection) -> None:
    """A retry of all takes the held alone; of named ones also those that wait."""
    held, waiting, queued = (accept(connection, save()) for _ in range(3))
    jobs.hold(connection, held, "why", "do this")
    jobs.postpone(connection, waiting, 1e18, "why")
    assert jobs.requeue(connection, None) == 1
    assert jobs.requeue(connection, [waiting, queued]) == 1
    rows = connection.execute("SELECT DISTINCT state, reason, hint, due_at FROM jobs").fetchall()
    assert rows == [("queued", "", "", None)]


def test_newest_supersedes_only_its_undelivered_namesakes(connection: sqlite3.Connection) -> None:
    """Only older undelivered saves with keep="newest", of the same name in the same run, are superseded."""
    newest = Keep.NEWEST
    older = [accept(connection, save(keep=newest)) for _ in range(3)]
    jobs.hold(connection, older[1], "", "")
    jobs.finish(connection, older[2], JobState.DELIVERED)
    accept(connection, save())  # keep="all"
    accept(connection, save(keep=newest, name=b"other"))
    accept(connection, save(keep=newest, run=run_info("other")))
    new = accept(connection, save(keep=newest))
    accept(connection, save(keep=newest))  # newer still
    assert sorted(jobs.older_of_name(connection, new)) == older[:2]


def test_totals_equal_a_recount_after_any_steps(connection: sqlite3.Connection) -> None:
    """The totals that triggers keep are those of the rows after thousands of random steps."""
    chance = random.Random(5)
    seqs: list[int] = []
    seen: set[JobState] = set()
    for number in range(3000):
        step = chance.randrange(7)
        seq = chance.choice(seqs) if seqs else 0
        if step in {0, 1} or not seqs:
            made = taken(
                connection,
                save(chance.randrange(10**6, 10**6 + 2000), run=run_info(f"run {chance.randrange(5)}")),
                [sized(chance.randrange(99))],
            )
            seqs += [made] if made else []
        elif step == 2:
            jobs.postpone(connection, seq, chance.uniform(0, 9), "")
        elif step == 3:
            jobs.hold(connection, seq, "", "")
        elif step == 4:
            jobs.finish(connection, seq, chance.choice(sorted(FINAL_STATES)))
        elif step == 5:
            jobs.requeue(connection, [seq] if chance.random() < 0.8 else None)
        else:
            jobs.requeue_due(connection, chance.uniform(0, 9), 100)
            if chance.random() < 0.1:
                jobs.prune(connection, 50)
        if number % 50 == 0:
            kept = {s: (t.jobs, t.size_bytes) for s, t in reports.totals(connection).items() if t.jobs}
            assert kept == states(connection)
            seen |= set(kept)
    # Uploading is never on disk; what artifacts add is staged, in test_versions.py.
    assert seen == set(JobState) - {JobState.UPLOADING, JobState.STAGED}


def test_prune_keeps_the_newest_of_the_ended(connection: sqlite3.Connection) -> None:
    """Pruning forgets the oldest ended jobs, and never one that is still wanted."""
    seqs = [accept(connection, save()) for _ in range(10)]
    for seq in seqs[:8]:
        jobs.finish(connection, seq, JobState.DELIVERED)
    assert jobs.prune(connection, 3) == 5
    assert [seq for (seq,) in connection.execute("SELECT seq FROM jobs ORDER BY seq")] == seqs[5:]
    assert jobs.prune(connection, 3) == 0


def test_prune_never_gives_a_number_out_twice(connection: sqlite3.Connection) -> None:
    """The newest job's number is not used again although all that ended are forgotten."""
    last = 0
    for _ in range(3):
        last = accept(connection, save())
        jobs.finish(connection, last, JobState.DELIVERED)
    jobs.prune(connection, 0)
    assert accept(connection, save()) == last + 1


def test_the_window_is_bounded(connection: sqlite3.Connection) -> None:
    """However long the queue, the window is what was asked for, without doubles."""
    for n in range(1000):
        accept(connection, save(run=run_info(f"run {n % 4}")))
    window = jobs.window(connection, 1, per_run=5, oldest=7, runs_most=64)
    assert len(window) <= 4 * 5 + 7
    assert len({candidate.seq for candidate in window}) == len(window)


def test_the_window_has_every_run_and_the_oldest(connection: sqlite3.Connection) -> None:
    """One run's thousand jobs hide neither another's single one nor the oldest of all."""
    oldest = [accept(connection, save(priority=-5), 1 << 30) for _ in range(3)]
    for _ in range(1000):
        accept(connection, save(priority=5))
    for n in range(20):
        accept(connection, save(run=run_info(f"late {n}")))
    window = jobs.window(connection, 1, per_run=2, oldest=3, runs_most=64)
    assert len({candidate.run for candidate in window}) == 21
    assert {candidate.seq for candidate in window} >= set(oldest)


def test_the_window_puts_priority_and_small_ones_first(connection: sqlite3.Connection) -> None:
    """Of one run the window has the highest priority, then the smallest class, then the oldest."""
    for _ in range(10):
        accept(connection, save(), 1 << 30)
    small = accept(connection, save(), 10)
    urgent = accept(connection, save(priority=1), 1 << 30)
    window = jobs.window(connection, 1, per_run=2, oldest=0, runs_most=64)
    assert [candidate.seq for candidate in window] == [urgent, small]


def test_each_store_has_a_window_of_its_own(connection: sqlite3.Connection) -> None:
    """The queue of one store, however long, is not in the window of another; both are named while they have one."""
    first = [accept(connection, save(run=run_info(store="file:///one"))) for _ in range(100)]
    second = accept(connection, save(run=run_info(store="file:///two")))
    stores = {url: number for number, url in jobs.busy_stores(connection).items()}
    assert set(stores) == {"file:///one", "file:///two"}
    (only,) = jobs.window(connection, stores["file:///two"], 9, 9, 9)
    assert only.seq == second
    assert {candidate.seq for candidate in jobs.window(connection, stores["file:///one"], 9, 9, 9)} <= set(first)
    jobs.finish(connection, second, JobState.CANCELLED)
    assert list(jobs.busy_stores(connection).values()) == ["file:///one"]


def test_what_is_not_queued_is_not_in_the_window(connection: sqlite3.Connection) -> None:
    """Jobs that wait, are held or ended are never next."""
    waiting, held, ended, queued = (accept(connection, save()) for _ in range(4))
    jobs.postpone(connection, waiting, 1, "")
    jobs.hold(connection, held, "", "")
    jobs.finish(connection, ended, JobState.CANCELLED)
    assert [candidate.seq for candidate in jobs.window(connection, 1, 9, 9, 9)] == [queued]


@pytest.mark.anyio
async def test_finishing_removes_the_payload_and_frees_the_quota(spools: Spools) -> None:
    """A job's end removes its files and returns its bytes, once."""
    spool = await spools.open(quota_bytes=100)
    one = save()
    spool.quota.reserve(10)
    seq = await spool.accept(one, [making.in_file(spools.state, one.job, b"0123456789")], ())
    assert seq is not None
    assert await spool.finish(seq, JobState.CANCELLED)
    assert not await spool.finish(seq, JobState.CANCELLED)
    assert list((spools.state / "payloads").iterdir()) == []
    assert spool.quota.used_bytes == 0


@pytest.mark.anyio
async def test_the_sweep_removes_what_no_job_needs(spools: Spools) -> None:
    """Payload files of unknown and of ended jobs go, those of jobs in custody stay."""
    spool = await spools.open()
    kept, gone = save(), save()
    await spool.accept(kept, [making.in_file(spools.state, kept.job, b"kept")], ())
    seq = await spool.accept(gone, [making.in_file(spools.state, gone.job, b"gone")], ())
    assert seq is not None
    await spool.finish(seq, JobState.CANCELLED)
    leftover = making.in_file(spools.state, gone.job, b"came back")
    unknown = making.in_file(spools.state, making.job_id(10**9), b"unknown")
    odd = spools.state / "payloads" / "not-ours \N{SNOWMAN}"
    odd.write_bytes(b"")
    places = [b"payloads/" + path.name.encode() for path in (spools.state / "payloads").iterdir()]
    assert len(places) == 4
    await spool.sweep(places)
    left = [path.name for path in (spools.state / "payloads").iterdir()]
    assert left == [f"{kept.job}-1"]
    assert leftover.place != unknown.place


@pytest.mark.anyio
async def test_the_quota_is_what_is_in_custody_after_opening(spools: Spools) -> None:
    """A spool that is opened counts the bytes of all jobs that have not ended, whatever their state."""
    spool = await spools.open()
    seqs = []
    for size in (1, 10, 100, 1000):
        seq = await spool.accept(save(), [sized(size)], ())
        assert seq is not None
        seqs.append(seq)
    await spool.postpone(seqs[1], 1e18, "")
    await spool.hold(seqs[2], "", "")
    await spool.finish(seqs[3], JobState.DELIVERED)
    await spools.aclose()
    again: Spool = await spools.open()
    assert again.quota.used_bytes == 111
    assert Counter({state: total.jobs for state, total in (await again.totals()).items() if total.jobs}) == {
        JobState.QUEUED: 1,
        JobState.WAITING: 1,
        JobState.HELD: 1,
        JobState.DELIVERED: 1,
    }
