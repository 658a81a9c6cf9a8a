"""Rows of artifacts: additions wait to be claimed, versions for their parts and their turn."""

import random
import sqlite3

import msgspec
import pytest

from daemon import making
from daemon.making import inline, part, run_info, sized, version
from dropoff.content import Capture, Content
from dropoff.messages import FINAL_STATES, JobState
from dropoff.records import Entry
from dropoff.saves import Kind, Save
from dropoffd.custody import Note
from dropoffd.spool import jobs, reports, versions
from dropoffd.spool.schema import MIGRATIONS, migrate


@pytest.fixture
def connection() -> sqlite3.Connection:
    """Return an empty spool in memory."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    migrate(made)
    return made


def accept(connection: sqlite3.Connection, one: Save, *contents: Content, now: float = 0.0) -> int:
    """Accept a save as the spool does, and return its `seq`."""
    run = jobs.run_of(connection, (one.run.project, one.run.name, one.run.store))
    seq = jobs.last_seq(connection) + 1
    assert jobs.accept(connection, seq, run, one, contents or ([sized(1)] if one.version is None else []), ())
    if one.part is not None:
        versions.stage(connection, seq, one.part, now)
    if one.version is not None:
        versions.claim(connection, seq, run, one, one.version)
    return seq


def end(connection: sqlite3.Connection, seq: int, state: JobState = JobState.DELIVERED) -> None:
    """End a job as the spool does."""
    receipt = making.receipt("0" * 32) if state is JobState.DELIVERED else None
    if jobs.finish(connection, seq, state, receipt) is not None:
        versions.after_end(connection, seq, state, receipt)


def hold(connection: sqlite3.Connection, seq: int, reason: str = "reason", hint: str = "hint") -> None:
    """Hold a job as the spool does."""
    jobs.hold(connection, seq, reason, hint)
    versions.after_hold(connection, seq, reason, hint)


def requeue(connection: sqlite3.Connection, *seqs: int) -> None:
    """Put jobs back in the queue as the spool does."""
    jobs.requeue(connection, versions.with_parts(connection, seqs) if seqs else None)
    versions.after_requeue(connection)


def state(connection: sqlite3.Connection, seq: int) -> str:
    """Return a job's state."""
    (found,) = connection.execute("SELECT state FROM jobs WHERE seq = ?", (seq,)).fetchone()
    return str(found)


def reason(connection: sqlite3.Connection, seq: int) -> str:
    """Return why a job waits or is held."""
    (found,) = connection.execute("SELECT reason FROM jobs WHERE seq = ?", (seq,)).fetchone()
    return str(found)


def next_jobs(connection: sqlite3.Connection) -> set[int]:
    """Return the jobs that could be delivered now."""
    stores = connection.execute("SELECT store FROM stores").fetchall()
    return {candidate.seq for (store,) in stores for candidate in jobs.window(connection, store, 100, 100, 100)}


def test_an_addition_is_delivered_only_once_it_is_claimed(connection: sqlite3.Connection) -> None:
    """Staged, it is nobody's to deliver; claimed, it has the version's run, project, store and priority."""
    seq = accept(connection, part())
    assert (state(connection, seq), next_jobs(connection)) == ("staged", set())
    run = run_info("r", "cv", "file:///there")
    accept(connection, version(run=run))
    job = jobs.load(connection, seq)
    assert job is not None
    assert (job.save.run, next_jobs(connection)) == (run, {seq})


def test_a_version_waits_for_its_parts_and_then_for_its_turn(connection: sqlite3.Connection) -> None:
    """Whatever is stored first, versions of one artifact become deliverable one by one, as they were called."""
    parts = [accept(connection, part(f"draft {n}")) for n in range(3)]
    seqs = [accept(connection, version(f"draft {n}")) for n in range(3)]
    other_part = accept(connection, part("other", artifact="dogs"))
    other = accept(connection, version("other", artifact="dogs"))
    assert [reason(connection, seq) for seq in seqs] == ["its files are on their way"] * 3
    end(connection, parts[2])
    end(connection, parts[1])
    assert (next_jobs(connection), reason(connection, seqs[1])) == (
        {parts[0], other_part},
        "an earlier version of it comes first",
    )
    end(connection, other_part)
    end(connection, parts[0])
    assert next_jobs(connection) == {seqs[0], other}
    end(connection, seqs[0])
    assert next_jobs(connection) == {seqs[1], other}
    end(connection, seqs[1], JobState.CANCELLED)
    assert next_jobs(connection) == {seqs[2], other}


def test_artifacts_of_other_stores_and_projects_are_others(connection: sqlite3.Connection) -> None:
    """The same name in another project or store waits for nothing here."""
    runs = [run_info("r", "a"), run_info("r", "b"), run_info("r", "a", "file:///other")]
    seqs = {accept(connection, version(f"draft {n}", 0, run=run)) for n, run in enumerate(runs)}
    assert next_jobs(connection) == seqs


def test_a_held_part_holds_its_version_until_it_is_stored(connection: sqlite3.Connection) -> None:
    """Who waits for a version hears that one of its files needs a person; when that one arrives, it goes on."""
    seq = accept(connection, part())
    whole = accept(connection, version())
    hold(connection, seq, "no permission", "ask")
    assert (state(connection, whole), reason(connection, whole)) == (
        "held",
        "one of its files is held: no permission",
    )
    requeue(connection, seq)
    end(connection, seq)
    assert (state(connection, whole), next_jobs(connection)) == ("queued", {whole})


def test_a_retried_version_retries_its_held_parts(connection: sqlite3.Connection) -> None:
    """One retry, of the version or of all that is held, sets everything going again."""
    for named in (True, False):
        seq = accept(connection, part(f"draft {named}"))
        whole = accept(connection, version(f"draft {named}"))
        hold(connection, seq)
        requeue(connection, *([whole] if named else []))
        assert (state(connection, seq), state(connection, whole)) == ("queued", "waiting")
        end(connection, seq)
        end(connection, whole)


def test_a_part_that_was_held_before_it_was_claimed_holds_the_version(connection: sqlite3.Connection) -> None:
    """Content that was lost while it was staged is not forgotten when the artifact is logged."""
    seq = accept(connection, part())
    hold(connection, seq, "power was lost")
    requeue(connection)
    assert state(connection, seq) == "staged"
    hold(connection, seq, "power was lost")
    whole = accept(connection, version())
    assert state(connection, whole) == "held"
    assert reason(connection, whole) == "one of its files is held: power was lost"


def test_a_version_and_its_parts_are_one_family(connection: sqlite3.Connection) -> None:
    """Whoever gives up one of them gives up all that have not ended; a plain job is alone."""
    seqs = [accept(connection, part("draft", n)) for n in range(3)]
    alone = accept(connection, making.save())
    assert versions.family(connection, seqs[0]) == [seqs[0]]
    whole = accept(connection, version(steps=3))
    end(connection, seqs[1])
    assert [set(versions.family(connection, one)) for one in (whole, seqs[0])] == [{whole, seqs[0], seqs[2]}] * 2
    assert versions.family(connection, alone) == [alone]
    end(connection, whole, JobState.CANCELLED)
    assert next_jobs(connection) == {alone}
    assert (state(connection, seqs[0]), versions.unlogged(connection, 1.0)) == ("staged", [seqs[0], seqs[2]])


def test_a_part_given_up_alone_holds_its_version(connection: sqlite3.Connection) -> None:
    """A version never becomes visible without one of its files."""
    seq = accept(connection, part())
    whole = accept(connection, version())
    end(connection, seq, JobState.CANCELLED)
    assert (state(connection, whole), reason(connection, whole)) == ("held", "one of its files was given up")
    requeue(connection)
    assert state(connection, whole) == "held"


def test_additions_tell_the_names_they_bring(connection: sqlite3.Connection) -> None:
    """A file brings its name, a directory its files below its own name, if it has one; packs do not count."""
    pack = Content(ordinal=0, path=b"", size_bytes=9, mode=0, mtime_ns=0, capture=Capture.PACK)
    files = (pack, inline(b"a", 1, b"a"), inline(b"b", 2, b"b/c"))
    accept(connection, part("draft", 0, name=b"x"))
    accept(connection, part("draft", 1, name=b"d", kind=Kind.DIRECTORY), *files)
    accept(connection, part("draft", 2, name=b"", kind=Kind.DIRECTORY, overwrite=True), *files)
    found = [(one.position, one.overwrite, one.paths) for one in versions.additions(connection, "draft")]
    assert found == [(0, False, (b"x",)), (1, False, (b"d/a", b"d/b/c")), (2, True, (b"a", b"b/c"))]


def test_of_two_additions_at_one_position_the_later_counts(connection: sqlite3.Connection) -> None:
    """A call that was interrupted after it was acknowledged, and made again, adds once."""
    first, second = (accept(connection, part("draft", 0)) for _ in range(2))
    assert [one.seq for one in versions.additions(connection, "draft")] == [second]
    accept(connection, version())
    assert (next_jobs(connection), state(connection, first)) == ({second}, "staged")


def test_entries_and_notes_live_as_long_as_the_version(connection: sqlite3.Connection) -> None:
    """What the manifest will say is kept until it is said, and then forgotten."""
    seq = accept(connection, part())
    whole = accept(connection, version())
    entry = Entry(path="a", key="k", size=1, sha256="0", mode="0644", mtime="now")
    versions.record_entries(connection, seq, [(1, entry, 0.0)])
    versions.record_entries(connection, seq, [(1, entry, 7.0)])
    versions.set_note(connection, whole, Note(number=3, aliases={"best": "etag"}))
    assert versions.note(connection, whole) == Note(number=3, aliases={"best": "etag"})
    (found,) = versions.stored_additions(connection, whole)
    assert (found.entries, found.proven_at) == ((entry,), (7.0,))
    end(connection, seq)
    end(connection, whole)
    for table in ("entries", "additions", "versions"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert versions.note(connection, whole) == Note()


def test_the_type_is_known_from_custody_and_then_from_what_was_delivered(connection: sqlite3.Connection) -> None:
    """A host knows an artifact's type from the newest call on, and after a version of it is in the store."""
    model, unknown = version("b", 0, of_type="model"), version("c", 0, artifact="dogs")
    assert versions.known_type(connection, model) == ""
    first = accept(connection, model)
    assert (versions.known_type(connection, model), versions.known_type(connection, unknown)) == ("model", "")
    end(connection, first, JobState.CANCELLED)
    assert versions.known_type(connection, model) == ""
    end(connection, accept(connection, version("d", 0)))
    assert versions.known_type(connection, model) == "dataset"


def test_what_nobody_logged_for_long_is_found(connection: sqlite3.Connection) -> None:
    """A draft is as old as its newest addition."""
    old = accept(connection, part("old"), now=10)
    accept(connection, part("young"), now=10)
    accept(connection, part("young", 1), now=20)
    accept(connection, part("claimed"), now=10)
    accept(connection, version("claimed"))
    assert versions.unlogged(connection, 15) == [old]


def test_an_older_spool_goes_on() -> None:
    """The schema before content had rows of its own becomes this one: it is there, and its totals go on."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, MIGRATIONS[:4])
    one = making.save()
    run = jobs.run_of(connection, (one.run.project, one.run.name, one.run.store))
    content = sized(5)
    seq = 1
    assert jobs.accept(connection, seq, run, one, [msgspec.structs.replace(content, inline=None)], ())
    connection.execute("UPDATE contents SET inline = ?", (b"bytes",))
    migrate(connection)
    job = jobs.load(connection, seq)
    assert job is not None
    assert [held.content for held in job.contents] == [msgspec.structs.replace(content, inline=b"bytes")]
    jobs.hold(connection, seq, "", "")
    totals = {state: (one.jobs, one.size_bytes) for state, one in reports.totals(connection).items() if one.jobs}
    assert totals == {JobState.HELD: (1, 5)}


class Machine:
    """Does random things to the rows, as callers and deliveries do."""

    def __init__(self, connection: sqlite3.Connection, chance: random.Random) -> None:
        self._connection = connection
        self._chance = chance
        self._drafts = 0
        self.time = 0.0
        self.seqs: list[int] = []
        self.order: dict[str, list[int]] = {"cats": [], "dogs": []}
        self.delivered: list[int] = []

    def log(self) -> None:
        """Make an artifact of some additions."""
        self._drafts += 1
        artifact, steps = self._chance.choice(("cats", "dogs")), self._chance.randrange(3)
        draft = str(self._drafts)
        self.seqs += [accept(self._connection, part(draft, n, artifact=artifact)) for n in range(steps)]
        self.order[artifact].append(accept(self._connection, version(draft, steps, artifact=artifact)))
        self.seqs.append(self.order[artifact][-1])

    def deliver(self) -> None:
        """Let one delivery end in one way or another."""
        able = sorted(next_jobs(self._connection))
        if not able:
            return
        one = self._chance.choice(able)
        how = self._chance.randrange(4)
        if how == 0:
            jobs.postpone(self._connection, one, self.time + 5, "away")
        elif how == 1:
            hold(self._connection, one)
        else:
            self.arrive(one)

    def arrive(self, seq: int) -> None:
        """Deliver a job."""
        end(self._connection, seq)
        self.delivered.append(seq)

    def cancel(self) -> None:
        """Give one of them up, now and then."""
        if self.seqs and self._chance.random() < 0.1:
            for one in versions.family(self._connection, self._chance.choice(self.seqs)):
                end(self._connection, one, JobState.CANCELLED)

    def retry(self) -> None:
        """Let time pass, or put one or all back in the queue."""
        self.time += 1
        jobs.requeue_due(self._connection, self.time, 1e6)
        if self.seqs and self._chance.random() < 0.5:
            requeue(self._connection, *self._chance.sample(self.seqs, self._chance.randrange(2)))

    def drain(self) -> None:
        """Let everything end, the youngest first."""
        unfinished = "SELECT 1 FROM jobs WHERE state IN ('queued', 'held', 'waiting')"
        while self._connection.execute(unfinished).fetchone():
            for one in sorted(next_jobs(self._connection), reverse=True):
                self.arrive(one)
            jobs.requeue_due(self._connection, 1e6, 1e9)
            requeue(self._connection)


def test_any_steps_keep_the_order_and_the_totals(connection: sqlite3.Connection) -> None:
    """After any steps totals equal a recount, only a version whose turn it is can be delivered, and all can end."""
    chance = random.Random(7)
    machine = Machine(connection, chance)
    steps = [machine.log, machine.deliver, machine.deliver, machine.deliver, machine.cancel, machine.retry]
    for _ in range(1500):
        chance.choice(steps)()
        check(connection, machine.order)
    machine.drain()
    assert {row[0] for row in connection.execute("SELECT DISTINCT state FROM jobs")} == {"delivered", "cancelled"}
    for of_one in machine.order.values():
        delivered = [seq for seq in machine.delivered if seq in of_one]
        assert (delivered == sorted(delivered), len(delivered) > 50) == (True, True)


def check(connection: sqlite3.Connection, order: dict[str, list[int]]) -> None:
    """Hold totals against the rows, and what is queued against whose turn it is."""
    rows = connection.execute("SELECT state, count(*), sum(size_bytes) FROM jobs GROUP BY state")
    recount = {state: (count, size) for state, count, size in rows}
    assert {s: (t.jobs, t.size_bytes) for s, t in reports.totals(connection).items() if t.jobs} == recount
    able = next_jobs(connection)
    for of_one in order.values():
        running = [seq for seq in of_one if state(connection, seq) not in FINAL_STATES]
        assert able & set(of_one) <= set(running[:1])
    missing = connection.execute("SELECT version FROM additions WHERE version IS NOT NULL AND NOT stored").fetchall()
    assert able.isdisjoint({version for (version,) in missing})
