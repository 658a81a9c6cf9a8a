"""Run deliveries: ask the schedule who is next, let the worker deliver, and write down how it ended."""

import logging
import math
import random
from typing import Protocol

import anyio
import anyio.abc
import msgspec

from dropoff.errors import DropoffError, SpoolFullError
from dropoff.messages import JobReport, JobState, Receipt, StoreReport
from dropoffd.capture.keeper import Keeper
from dropoffd.clock import Clock, backoff_seconds
from dropoffd.custody import Candidate, Job
from dropoffd.errors import SourceChangedError, SpoolBrokenError
from dropoffd.schedule.health import Blame, Health
from dropoffd.schedule.order import choose
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import CorruptError, Progress, Store, StoreError, UnavailableError
from dropoffd.stores.leftovers import end_nameless
from dropoffd.stores.registry import Stores
from dropoffd.transfer.rate import Rate

_log = logging.getLogger(__name__)

_PAUSED = "paused"
# Saves come in bursts, and while one lasts the disk and the interpreter are theirs: deliveries start when no
# save came for a moment. That can put them off by so much; only a pause between saves as long refills it.
_QUIET_SECONDS = 0.05
_PUT_OFF_MOST_SECONDS = 1.0
# A store that confirms something else than it was sent is tried a few times, in case a wire was to blame.
_CORRUPT_TRIES = 3
_SPACE_SECONDS = 1.0
# While jobs are known that wait for a place, saves that come in meanwhile are looked at together.
_LOOK_SECONDS = 0.05
_ORPHANS_AT_ONCE, _ORPHANS_SECONDS = 100, 60.0


class _Running(msgspec.Struct):
    candidate: Candidate
    scope: anyio.CancelScope
    done: anyio.Event | None = None
    sent_bytes: int = 0


class _Lane:
    """The deliveries to one store: each has places of its own, so that none waits for another's store."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.health = Health()
        self.running: dict[int, _Running] = {}
        self.waiting: list[Candidate] = []
        self.more = False
        """Whether the spool may have more jobs for it than `waiting` has."""
        self.turn = 0


class Deliverer(Protocol):
    """Whoever brings a job into a store."""

    async def deliver(self, job: Job, store: Store, progress: Progress) -> Receipt:
        """Bring the whole job into `store`; raises StoreError or SourceChangedError."""


class Dispatch:
    """Keeps up to `places` deliveries running to each store."""

    def __init__(
        self,
        spool: Spool,
        keeper: Keeper,
        worker: Deliverer,
        stores: Stores,
        clock: Clock,
        chance: random.Random,
        *,
        places: int,
        retry_first_seconds: float,
        retry_most_seconds: float,
    ) -> None:
        self._spool = spool
        self._keeper = keeper
        self._worker = worker
        self._stores = stores
        self._clock = clock
        self._chance = chance
        self._places = places
        self._retry_first = retry_first_seconds
        self._retry_most = retry_most_seconds
        self._lanes: dict[int, _Lane] = {}
        self._running: dict[int, _Running] = {}
        self._wake = anyio.Event()
        self._given_up = anyio.Event()
        self._arrived_at = self._burst_began = -_PUT_OFF_MOST_SECONDS
        # What waits in the spool is asked when something changed there, and not each time that a place falls free.
        self._look_at = -math.inf
        self._due_at = -math.inf
        self.paused = False
        self.rate = Rate(clock)
        spool.on_advance = self._advanced

    async def run(self) -> None:
        """Deliver, until cancelled; what is interrupted is queued still."""
        self.paused = await self._spool.meta(_PAUSED) == "1"
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_orphans)
            while True:
                self._wake = anyio.Event()
                await self._let_saves_go_first()
                pauses = []
                try:
                    pauses.append(await self._requeue_due())
                    if not self.paused:
                        pauses += await self._start_next(group)
                except SpoolFullError as error:
                    await self._wait_for_space(error)
                    continue
                with anyio.move_on_after(max(0.0, min(pauses))):
                    await self._wake.wait()

    def wake(self) -> None:
        """Look again for work."""
        self._look_at = -math.inf
        self._wake.set()

    def try_again(self) -> None:
        """Look for work now, also for stores that are left alone: a person says that they work."""
        for lane in self._lanes.values():
            lane.health.try_now(self._clock.monotonic())
        self.wake()

    def arrived(self) -> None:
        """Look for work soon: a save came in."""
        now = self._clock.monotonic()
        if now - self._arrived_at > _PUT_OFF_MOST_SECONDS:
            self._burst_began = now
        self._arrived_at = now
        self._look_at = min(self._look_at, now + _LOOK_SECONDS)
        self._wake.set()

    async def _let_saves_go_first(self) -> None:
        while True:
            now = self._clock.monotonic()
            quiet_in = self._arrived_at + _QUIET_SECONDS - now
            if quiet_in <= 0 or now - self._burst_began > _PUT_OFF_MOST_SECONDS:
                return
            await self._clock.sleep(quiet_in)

    @property
    def running(self) -> list[int]:
        """The jobs that are being delivered, by `seq`."""
        return list(self._running)

    def running_of(self, report: JobReport) -> JobReport:
        """Return a job's report, with what is known of a delivery that runs."""
        running = self._running.get(report.seq)
        if running is None:
            return report
        sent = min(report.size_bytes, max(report.sent_bytes, running.sent_bytes))
        return msgspec.structs.replace(report, state=JobState.UPLOADING, sent_bytes=sent)

    def stores(self) -> list[StoreReport]:
        """Tell which stores are left alone now, and why."""
        ahead = self._clock.now() - self._clock.monotonic()
        return [
            StoreReport(
                store=lane.url, reason=pause.reason, hint=pause.hint, since=pause.since + ahead,
                retry_at=pause.until + ahead, needs_person=pause.needs_person,
            )
            for lane in self._lanes.values()
            if (pause := lane.health.pause) is not None
        ]  # fmt: skip

    async def cancel(self, seq: int) -> bool:
        """Give a job up, also while it is being delivered; False if it had ended."""
        running = self._running.get(seq)
        if running is not None:
            running.scope.cancel()
            running.done = running.done or anyio.Event()
            await running.done.wait()
        return await self._end(seq, JobState.CANCELLED, reason="cancelled by the user")

    async def supersede(self, seq: int) -> None:
        """Let a newer save take a job's place; one that is on its way already may as well arrive."""
        if seq not in self._running:
            await self._end(seq, JobState.SUPERSEDED, reason="a newer save of the same name took its place")

    async def pause(self, *, paused: bool) -> None:
        """Stop or start to start deliveries, also after a restart."""
        await self._spool.set_meta(_PAUSED, "1" if paused else "0")
        self.paused = paused
        self.wake()

    async def _requeue_due(self) -> float:
        """Put jobs whose time has come back in the queue; return in how many seconds that of the next comes."""
        if self._look_at == -math.inf or self._clock.now() >= self._due_at:
            due = await self._spool.requeue_due(self._clock.now(), self._retry_most)
            self._due_at = math.inf if due is None else due
            self._look_at = -math.inf
        return self._due_at - self._clock.now()

    async def _start_next(self, group: anyio.abc.TaskGroup) -> list[float]:
        """Start what is next for each store; return in how many seconds to look for work at the latest."""
        if self._clock.monotonic() >= self._look_at or (self._look_at < math.inf and self._has_room):
            await self._look()
        pauses = [self._look_at - self._clock.monotonic()]
        for number, lane in self._lanes.items():
            if not lane.waiting and not lane.more:
                continue
            now = self._clock.monotonic()
            places = lane.health.places(self._places, now)
            if lane.health.pause is not None and not places:
                pauses.append(lane.health.pause.until - now)
            if places > len(lane.running):
                await self._start_in(lane, number, places, group)
        return pauses

    @property
    def _has_room(self) -> bool:
        """Whether some store has a place for which nobody is known to wait."""
        lanes = self._lanes.values()
        return not lanes or any(not lane.waiting and len(lane.running) < self._places for lane in lanes)

    async def _look(self) -> None:
        """Learn for which stores there are jobs; which they are is asked when there is a place."""
        self._look_at = math.inf
        for number, url in (await self._spool.busy_stores()).items():
            lane = self._lanes.setdefault(number, _Lane(url))
            lane.waiting, lane.more = [], True
        if self._spool.waits_for_space:  # nobody tells when there is some
            self._look_at = self._clock.monotonic() + _SPACE_SECONDS

    async def _start_in(self, lane: _Lane, number: int, places: int, group: anyio.abc.TaskGroup) -> None:
        if not lane.waiting:
            lane.waiting = [one for one in await self._spool.window(number) if one.seq not in lane.running]
            lane.more = bool(lane.waiting)
        # A store that failed is tried with another job than the one it failed for, if there is one.
        able = [one for one in lane.waiting if not lane.health.suspects(one.seq)] or lane.waiting
        active = [running.candidate for running in lane.running.values()]
        for candidate in choose(able, active, places, lane.turn):
            lane.turn += 1
            lane.waiting.remove(candidate)
            running = _Running(candidate, anyio.CancelScope())
            self._running[candidate.seq] = lane.running[candidate.seq] = running
            group.start_soon(self._deliver, lane, running)

    async def _deliver(self, lane: _Lane, running: _Running) -> None:
        seq = running.candidate.seq
        alone = False
        try:
            with running.scope:
                job = await self._spool.load(seq)
                # It may have been held since it was looked up.
                if job is not None and job.state is JobState.QUEUED:
                    alone = await self._attempt(lane, job, running)
        except SpoolFullError as error:
            # What happened could not be written down, so it will happen again, and do no harm.
            await self._wait_for_space(error)
        finally:
            del self._running[seq], lane.running[seq]
            if running.done is not None:
                running.done.set()
            if alone:
                self._wake.set()
            else:
                self.wake()

    async def _wait_for_space(self, error: SpoolFullError) -> None:
        _log.error("deliveries wait for space cause=%s", error.message)
        await self._clock.sleep(_SPACE_SECONDS)

    async def _attempt(self, lane: _Lane, job: Job, running: _Running) -> bool:
        """Deliver; return whether that succeeded and no other job waited for it."""

        def progress(size: int) -> None:
            running.sent_bytes += size
            self.rate.add(size)

        try:
            store = await self._stores.open(job.save.run.store)
            receipt = await self._worker.deliver(job, store, progress)
        except (SpoolBrokenError, SpoolFullError):
            raise
        except (SourceChangedError, StoreError) as error:
            await self._failed(lane, job, error)
        except Exception as error:  # noqa: BLE001  # a bug must hold one job, with its trace, and not stop all
            _log.exception("delivery failed in a way nobody foresaw job=%s", job.id)
            await self._hold(
                job,
                DropoffError(
                    f"unable to deliver: {type(error).__name__}: {error}",
                    hint="this is a bug; its trace is in the daemon's log. `dropoff retry` tries again",
                ),
            )
        else:
            if lane.health.worked(job.seq):
                _log.info("store works again store=%s", lane.url)
            await self._end(job.seq, JobState.DELIVERED, receipt)
            _log.info("delivered job=%s bytes=%d record=%s", job.id, job.size_bytes, receipt.record)
            return job.save.part is None and job.save.version is None
        return False

    def _advanced(self, seq: int) -> None:
        """Open a store again when it confirms some of a job: all of a large one may take hours."""
        for lane in self._lanes.values():
            if seq in lane.running and lane.health.advanced(seq, self._clock.monotonic()):
                _log.info("store works again store=%s", lane.url)
                self.wake()

    async def _failed(self, lane: _Lane, job: Job, error: DropoffError) -> None:
        if lane.health.failed(job.seq, error, self._clock.monotonic()) is Blame.STORE:
            _log.warning("store is left alone for a while store=%s cause=%s", lane.url, error.message)
        elif isinstance(error, UnavailableError) or (
            isinstance(error, CorruptError) and job.attempts + 1 < _CORRUPT_TRIES
        ):
            await self._postpone(job, error)
        else:
            await self._hold(job, error)

    async def _end_orphans(self) -> None:
        """End uploads at their stores whose jobs were given up; what fails is tried again later."""
        while True:
            self._given_up = anyio.Event()
            left = False
            for orphan in await self._spool.orphans(_ORPHANS_AT_ONCE):
                try:
                    store = await self._stores.open(orphan.store)
                    await store.prepare()
                    if store.multipart is not None and orphan.upload:
                        await store.multipart.abandon(orphan.key, orphan.upload)
                    elif store.multipart is not None:
                        await end_nameless(store.multipart, orphan.key)
                except StoreError as error:
                    _log.warning("upload not ended yet key=%s cause=%s", orphan.key, error.message)
                    left = True
                else:
                    await self._spool.forget_upload(orphan.seq, orphan.ordinal)
            with anyio.move_on_after(_ORPHANS_SECONDS if left else None):
                await self._given_up.wait()

    async def _end(self, seq: int, state: JobState, receipt: Receipt | None = None, reason: str = "") -> bool:
        # From here to the row and the files' end nothing may come between.
        with anyio.CancelScope(shield=True):
            ended = await self._spool.finish(seq, state, receipt, reason)
            self._keeper.forget(seq)
        if state is not JobState.DELIVERED:
            self._given_up.set()
            self.wake()  # the version that it was part of may go now
        return ended

    async def _postpone(self, job: Job, error: DropoffError) -> None:
        pause = backoff_seconds(job.attempts + 1, self._retry_first, self._retry_most, self._chance)
        _log.warning("delivery waits job=%s seconds=%.1f cause=%s", job.id, pause, error.message)
        await self._spool.postpone(job.seq, self._clock.now() + pause, error.message)

    async def _hold(self, job: Job, error: DropoffError) -> None:
        _log.error("job held job=%s cause=%s", job.id, error.message)
        await self._spool.hold(job.seq, error.message, error.hint or "`dropoff retry` tries again")
