"""A daemon's spool and deliveries under any sequence of saves, faults, crashes and passing time.

The spool is a real database, the worker and the directory store are the real ones; time is a fake clock, and the
store fails as the machine says. A crash is what a kill leaves: the files of the state directory, copied as they
are at that moment, also in the middle of a delivery, and a new daemon on the copy.

`DROPOFF_TEST_ROUNDS` sets the number of examples; hypothesis prints the steps that replay a failure.
"""

import asyncio
import contextlib
import copy
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from daemon import making
from daemon.making import RETRY_MOST_SECONDS, Deliveries, FakeClock
from dropoff.content import PAYLOADS
from dropoff.errors import SpoolFullError
from dropoff.ids import JobId
from dropoff.messages import FINAL_STATES, JobReport, JobState
from dropoff.saves import Keep
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import (
    Body,
    CorruptError,
    DeniedError,
    Folder,
    Mode,
    Multipart,
    Progress,
    Stat,
    StoreError,
    UnavailableError,
    UnreachableError,
)
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.retry import RetryingStore
from support import oracle

T = TypeVar("T")

EXAMPLES = int(os.environ.get("DROPOFF_TEST_ROUNDS", "50"))
STEPS = 30
QUOTA_BYTES = 2000
MEMORY = "/dev/shm"

FAULTS: dict[str, StoreError] = {
    "unavailable": UnavailableError("unable to use the store: it is away"),
    "unreachable": UnreachableError("unable to reach the store: it is away"),
    "denied": DeniedError("unable to use the store: no", hint="give access"),
    "corrupt": CorruptError("unable to store this: it differs"),
}
# What strikes: content and records are both put; the third put of a run's first job is its record.
BEFORE, AFTER, CRASH_BEFORE, CRASH_AFTER = "before", "after", "crash before", "crash after"


class Strike:
    """A fault that waits for its operation."""

    def __init__(self, operation: str, skip: int, moment: str, kind: str) -> None:
        self.operation = operation
        self.skip = skip
        self.moment = moment
        self.kind = kind


strikes = st.lists(
    st.builds(
        Strike,
        st.sampled_from(("put", "put", "stat")),
        st.integers(0, 3),
        st.sampled_from((BEFORE, AFTER, CRASH_BEFORE, CRASH_AFTER)),
        st.sampled_from(sorted(FAULTS)),
    ),
    min_size=1,
    max_size=4,
)


class StruckStore:
    """A store that is struck now and then, and gone when its daemon is."""

    def __init__(self, inner: DirectoryStore, crash: Callable[[], None]) -> None:
        self.inner = inner
        self.url = inner.url
        self.limits = inner.limits
        self.multipart: Multipart | None = None
        self.strikes: list[Strike] = []
        self.away: str | None = None
        self.dead = False
        self._crash = crash

    async def prepare(self) -> None:
        """Nothing has to be found out."""

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Put, unless struck."""
        return await self._struck("put", lambda: self.inner.put(key, body, mode, progress))

    async def stat(self, key: str) -> Stat:
        """Stat, unless struck."""
        return await self._struck("stat", lambda: self.inner.stat(key))

    async def head(self, key: str) -> Stat:
        """Head, unless struck."""
        return await self._struck("head", lambda: self.inner.head(key))

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Get, unless struck."""
        return await self._struck("get", lambda: self.inner.get(key, start, end))

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Read, unless struck."""
        return await self._struck("read", lambda: self.inner.read(key, start, buffer))

    async def _struck(self, operation: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        strike = self._next(operation)
        if strike and strike.moment == CRASH_BEFORE:
            self._die()
        if self.dead:
            raise FAULTS["unavailable"]
        if self.away:
            raise FAULTS[self.away]
        if strike and strike.moment == BEFORE:
            raise FAULTS[strike.kind]
        result = await work()
        if strike and strike.moment == CRASH_AFTER:
            self._die()
        if strike:
            raise FAULTS["unavailable"]
        return result

    def _next(self, operation: str) -> Strike | None:
        for strike in self.strikes:
            if strike.operation == operation:
                if strike.skip:
                    strike.skip -= 1
                    return None
                self.strikes.remove(strike)
                return strike
        return None

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """List."""
        return self.inner.list(prefix)

    def folders(self, prefix: str) -> AsyncIterator[str]:
        """List what comes next in keys."""
        return self.inner.folders(prefix)

    def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """List what changed."""
        return self.inner.changes(prefix, known)

    async def delete(self, key: str) -> None:
        """Delete, unless struck."""
        await self._struck("delete", lambda: self.inner.delete(key))

    async def aclose(self) -> None:
        """Close the store within."""
        await self.inner.aclose()

    def _die(self) -> None:
        self._crash()
        self.dead = True


class SpoolAndTransfer(RuleBasedStateMachine):
    """One host: a state directory, a store, and a daemon that dies now and then."""

    jobs: Bundle[JobId] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        memory = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="dropoff-simulation-", dir=memory))
        self.clock = FakeClock()
        self.taken: dict[JobId, bytes] = {}
        self.given_up: set[JobId] = set()
        self.lives = 0
        self.left_by_crash: Path | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the daemon work."""
        return self.loop.run_until_complete(work)

    @initialize()
    def start(self) -> None:
        """Start the first daemon."""
        self.state = self.root / "state-0"
        (self.state / PAYLOADS).mkdir(parents=True)
        self.run(self._open())

    async def _open(self) -> None:
        self.spool = Spool(str(self.state), QUOTA_BYTES, 0, 1000)
        await self.spool.open()
        leftovers = [os.fsencode(f"{PAYLOADS}/{name}") for name in os.listdir(self.state / PAYLOADS)]
        self.store = StruckStore(DirectoryStore(str(self.root / "store")), self._copy_state)
        patient = RetryingStore(self.store, self.clock)
        # One delivery at a time: a crash in the middle of it then finds the database at rest, fit to be copied.
        self.daemon = Deliveries(self.spool, self.state, patient, self.clock, places=1)
        await self.spool.sweep(leftovers)

    def _copy_state(self) -> None:
        """Keep what a kill would leave at this moment; the log last, it holds what the database lacks."""
        self.lives += 1
        self.left_by_crash = self.root / f"state-{self.lives}"
        shutil.copytree(self.state / PAYLOADS, self.left_by_crash / PAYLOADS)
        for name in ("spool.db", "spool.db-wal"):
            shutil.copyfile(self.state / name, self.left_by_crash / name)

    def _rise(self) -> None:
        """If the daemon died, bury it and start the next one on what it left."""
        if self.left_by_crash is None:
            return
        away, strikes = self.store.away, self.store.strikes
        self.run(self.spool.aclose())
        shutil.rmtree(self.state)
        self.state, self.left_by_crash = self.left_by_crash, None
        self.run(self._open())
        self.store.away, self.store.strikes = away, strikes

    # What users do.

    @rule(
        target=jobs,
        datas=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
        name=st.sampled_from((b"a", b"b/c", b"\xff")),
        run=st.sampled_from(("one", "two")),
        priority=st.integers(-1, 1),
        in_file=st.booleans(),
        keep=st.sampled_from(Keep),
    )
    def save(self, datas: list[bytes], name: bytes, run: str, priority: int, in_file: bool, keep: Keep) -> Any:
        """Save some files of one name."""
        made = [self._save(data, name, run, priority, in_file, keep) for data in datas]
        return multiple(*(job for job in made if job))

    def _save(self, data: bytes, name: bytes, run: str, priority: int, in_file: bool, keep: Keep) -> JobId | None:
        one = making.save(name=name, run=making.run_info(run), priority=priority, keep=keep)
        try:
            self.spool.quota.reserve(len(data))
        except SpoolFullError:
            return None
        content = making.in_file(self.state, one.job, data) if in_file else making.inline(data)
        seq = self.run(self.spool.accept(one, [content], ()))
        assert seq is not None
        assert self.run(self.spool.accept(one, [content], ())) is None
        self.taken[one.job] = data
        if keep is Keep.NEWEST:
            for older in self.run(self.spool.older_of_name(seq)):
                self.run(self.daemon.dispatch.supersede(older))
        return one.job

    @rule(job=consumes(jobs))
    def cancel(self, job: JobId) -> None:
        """Give a job up, if it has not ended."""
        report = self.reports()[job]
        done = self.run(self.daemon.dispatch.cancel(report.seq))
        assert done is (report.state not in FINAL_STATES)
        if done:
            self.given_up.add(job)

    @rule(job=jobs)
    def retry(self, job: JobId) -> None:
        """Put one job back in the queue, if it waits or is held."""
        report = self.reports()[job]
        count = self.run(self.spool.requeue([report.seq]))
        assert count == (report.state in {JobState.WAITING, JobState.HELD})

    @rule()
    def retry_all(self) -> None:
        """Put every held job back in the queue."""
        self.run(self.spool.requeue(None))

    # What the world does.

    @rule(times=st.integers(1, 3))
    def deliver(self, times: int) -> None:
        """Let some deliveries run."""
        for _ in range(times):
            self.run(self.daemon.round())
            self._rise()

    @rule(times=st.integers(1, 4), strikes=strikes)
    def deliver_through_trouble(self, times: int, strikes: list[Strike]) -> None:
        """Let some deliveries run while single operations fail."""
        self.store.strikes += [copy.copy(strike) for strike in strikes]
        self.deliver(times)

    @rule(times=st.integers(2, 6))
    def deliver_as_time_passes(self, times: int) -> None:
        """Let deliveries run, and jobs that wait come due in between."""
        for _ in range(times):
            self.clock.advance(RETRY_MOST_SECONDS)
            self.deliver(1)

    @rule(seconds=st.sampled_from((1.0, 20.0, RETRY_MOST_SECONDS)))
    def time_passes(self, seconds: float) -> None:
        """Let jobs come due."""
        self.clock.advance(seconds)

    @rule()
    def kill(self) -> None:
        """Kill the daemon while nothing is delivered."""
        self._copy_state()
        self._rise()

    @rule(kind=st.sampled_from(sorted(FAULTS)))
    def go_away(self, kind: str) -> None:
        """Let everything fail from now on."""
        self.store.away = kind

    @rule()
    def come_back(self) -> None:
        """Let the store be well again."""
        self.store.away = None
        self.store.strikes.clear()

    @rule()
    def damage(self) -> None:
        """Let the objects be damaged that no record names yet and no row says are stored."""
        trusted = {entry["key"] for record in self.records().values() for entry in record["entries"]}
        for report in self.reports().values():
            job = self.run(self.spool.load(report.seq))
            trusted |= {held.key for held in job.contents} if job else set()
        for path in sorted((self.root / "store").glob("*/files/**/*")):
            if path.is_file() and str(path.relative_to(self.root / "store")) not in trusted:
                path.unlink()
                path.write_bytes(b"damaged")

    # What must hold whenever nothing runs.

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the store's records by job."""
        return oracle.records(self.root / "store")

    def reports(self) -> dict[JobId, JobReport]:
        """Return every job that the spool knows."""
        return {report.job: report for report in self.run(self.spool.listed([], 10_000, None))}

    @invariant()
    def nothing_is_lost(self) -> None:
        """Hold every save against the spool: each is there once, and the states add up to all of them."""
        if not hasattr(self, "state"):
            return
        reports = self.reports()
        assert set(reports) == set(self.taken)
        totals = self.run(self.spool.totals())
        assert sum(total.jobs for total in totals.values()) == len(self.taken)
        undelivered = [report for report in reports.values() if report.state not in FINAL_STATES]
        assert self.spool.quota.used_bytes == sum(len(self.taken[report.job]) for report in undelivered)
        assert {job for job, report in reports.items() if report.state is JobState.CANCELLED} == self.given_up
        for report in reports.values():
            assert report.size_bytes == len(self.taken[report.job])
            assert (report.receipt is not None) is (report.state is JobState.DELIVERED)
            assert bool(report.hint) is (report.state is JobState.HELD)

    @invariant()
    def what_is_delivered_is_true(self) -> None:
        """Hold the store against the saves: what a record names is there, and is what was saved."""
        if not hasattr(self, "state"):
            return
        contents = oracle.contents(self.root / "store")
        for job, files in contents.items():
            assert list(files.values()) == [self.taken[JobId(job)]]
        delivered = {job for job, report in self.reports().items() if report.state is JobState.DELIVERED}
        assert delivered <= set(contents)
        places = [path.stem for path in (self.root / "store").glob("*/runs/*/files/*.json")]
        assert len(places) == len(set(places))

    @invariant()
    def custody_is_as_large_as_it_has_to_be(self) -> None:
        """Hold the payload files against the jobs: none of a job that ended stays."""
        if not hasattr(self, "state"):
            return
        reports = self.reports()
        kept = {name.split("-")[0] for name in os.listdir(self.state / PAYLOADS)}
        assert {job for job in kept if reports[JobId(job)].state in FINAL_STATES} == set()

    def teardown(self) -> None:
        """See that all that was not given up arrives once the store is well, and clean up."""
        try:
            if hasattr(self, "state"):
                self._see_it_through()
        finally:
            with contextlib.suppress(AttributeError):
                self.run(self.spool.aclose())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)

    def _see_it_through(self) -> None:
        self.come_back()
        self.retry_all()
        for _ in range(2 * len(self.taken) + 1):
            self.clock.advance(2 * RETRY_MOST_SECONDS)
            self.run(self.daemon.round())
        states = {report.state for report in self.reports().values()}
        assert states <= FINAL_STATES
        self.nothing_is_lost()
        self.what_is_delivered_is_true()


TestSpoolAndTransfer = SpoolAndTransfer.TestCase
# A failure is made as short as it can be before it is shown, which may take five minutes.
TestSpoolAndTransfer.pytestmark = [pytest.mark.timeout(400 + 2 * EXAMPLES)]  # type: ignore[attr-defined]
TestSpoolAndTransfer.settings = hypothesis.settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=True,
)
