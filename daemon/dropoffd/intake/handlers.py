"""What each request does: one handler per message, in a table."""

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio

from dropoff.answers import Reply
from dropoff.artifact import alias_name, artifact_name
from dropoff.errors import (
    DropoffError,
    RefusedError,
    SpoolFullError,
    UnavailableError,
    UnstableSourceError,
    UsageError,
)
from dropoff.ids import is_job_id
from dropoff.messages import (
    FINAL_STATES,
    Cancel,
    Code,
    Done,
    Hello,
    JobList,
    JobReport,
    Jobs,
    JobState,
    Limit,
    Pause,
    Rates,
    Refused,
    Resume,
    Retry,
    Settled,
    Show,
    Status,
    StatusReport,
    Wait,
)
from dropoff.names import check_name, display
from dropoff.questions import Curating, Reading, Request
from dropoff.saves import SAVE_FORMAT, Kind, RunInfo, Save
from dropoffd.errors import SpoolBrokenError
from dropoffd.intake.connection import Connection
from dropoffd.intake.custodian import Custodian
from dropoffd.intake.readers import Readers
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import StoreError
from dropoffd.stores.registry import Stores

JOBS_MOST = 500
_RUNS_REMEMBERED = 1000
_SETTLE_PAUSE_SECONDS = 0.05
_SETTLE_MOST_SECONDS = 2.0


class Deliveries(Protocol):
    """What requests ask of whoever delivers."""

    def try_again(self) -> None:
        """Look again for work, also for stores that are left alone."""

    async def cancel(self, seq: int) -> bool:
        """Give a job up, also while it is being delivered; False if it had ended."""

    async def pause(self, *, paused: bool) -> None:
        """Stop or start to start deliveries."""

    async def status(self) -> StatusReport:
        """Tell how things stand."""

    async def limit(self, bandwidth: str | None, store: str) -> Rates:
        """Change a timetable, unless None, and tell all of them; raises SettingsError."""

    @property
    def running(self) -> list[int]:
        """The jobs that are being delivered, by `seq`."""

    def running_of(self, report: JobReport) -> JobReport:
        """Return a job's report, with what is known of a delivery that runs."""


class Inbox(Protocol):
    """The other way in."""

    waiting: dict[str, tuple[str, str]]

    async def take_all(self) -> None:
        """Take every deposit there is into custody; `waiting` has those that must wait, and their runs."""


class Handlers:
    """Answers requests."""

    def __init__(
        self,
        spool: Spool,
        custodian: Custodian,
        deliveries: Deliveries,
        inbox: Inbox,
        stores: Stores,
        readers: Readers,
    ) -> None:
        self._spool = spool
        self._custodian = custodian
        self._deliveries = deliveries
        self._inbox = inbox
        self._stores = stores
        self._readers = readers
        self._runs: set[tuple[str, str, str]] = set()
        self._table: dict[type, Callable[[Any], Awaitable[Reply]]] = {
            Status: self._status,
            Jobs: self._jobs,
            Show: self._show,
            Retry: self._retry,
            Cancel: self._cancel,
            Pause: self._pause,
            Resume: self._resume,
            Limit: self._limit,
        }

    def at_once(self, request: Request, connection: Connection) -> Reply | None:
        """Answer a save that waits for nothing but its commit; None leaves the request to `handle`."""
        fd = connection.descriptor()
        if not isinstance(request, Save) or fd is None or self._objection(request, fd):
            return None
        try:
            return self._custodian.take_at_once(request, fd, connection.caller_waits)
        except (DropoffError, OSError) as error:
            return _refusal(request, error)

    async def handle(self, request: Request, connection: Connection) -> Reply | None:
        """Return the answer to `request`; None if nobody waits for one any more."""
        if isinstance(request, Save):
            return await self._save(request, connection)
        if isinstance(request, Wait):
            return await self._wait(request, connection)
        if isinstance(request, Reading | Curating):
            return await self._readers.answer(request, connection)
        if isinstance(request, Hello):
            return Refused(Code.PROTOCOL, "unable to greet twice on one connection")
        return await self._table[type(request)](request)

    async def _save(self, save: Save, connection: Connection) -> Reply | None:
        fd = connection.take_descriptor()
        try:
            refusal = self._objection(save, fd)
            if refusal:
                return refusal
            if fd is None:
                return await self._take_version(save)
            return await self._custodian.take(save, fd, connection.caller_waits)
        except (DropoffError, OSError) as error:
            return _refusal(save, error)
        finally:
            if fd is not None:
                os.close(fd)

    async def _take_version(self, save: Save) -> Reply:
        # What was deposited before this call comes before it: its parts, or an earlier version.
        await self._inbox.take_all()
        if self._inbox.waiting:
            return Refused(Code.STOPPING, "unable to take a version now: deposits before it wait for room")
        return await self._custodian.take_version(save)

    def _objection(self, save: Save, fd: int | None) -> Refused | None:
        """Look at what the message says, before anything is touched: it may come from anybody's code."""
        if not is_job_id(save.job) or (fd is None) != (save.version is not None) or (save.part and save.version):
            return Refused(Code.GARBAGE, "unable to take a job without an id, or without the descriptor it needs")
        if save.format > SAVE_FORMAT:
            return Refused(
                Code.PROTOCOL,
                f"unable to take a job of format {save.format}: this daemon knows {SAVE_FORMAT}",
                "upgrade the daemon: pip install -U 'dropoff[daemon]', then restart it",
            )
        try:
            _check_names(save)
            if save.part is None:
                self._check_run(save.run)
        except (UsageError, UnicodeError) as error:
            return Refused(Code.GARBAGE, str(error))
        except StoreError as error:
            return Refused(Code.STORE, error.message, error.hint)
        return None

    def _check_run(self, run: RunInfo) -> None:
        key = (run.project, run.name, run.store)
        if key in self._runs:
            return
        check_name(run.project.encode())
        check_name(run.name.encode())
        self._stores.check(run.store)
        if len(self._runs) >= _RUNS_REMEMBERED:
            self._runs.clear()
        self._runs.add(key)

    async def _wait(self, request: Wait, connection: Connection) -> Reply:
        if request.timeout_seconds is not None and not request.timeout_seconds >= 0:
            return Refused(Code.GARBAGE, f"unable to wait for {request.timeout_seconds} seconds")
        await self._inbox.take_all()
        with anyio.move_on_after(request.timeout_seconds):
            while True:
                changed = self._spool.changed
                settled = await self._settled(request)
                if not settled.pending or not connection.caller_waits():
                    return settled
                # Many jobs end in a second; one look now and then is enough, and so is one a while for a
                # caller that may have gone.
                with anyio.move_on_after(_SETTLE_MOST_SECONDS):
                    await changed.wait()
                await anyio.sleep(_SETTLE_PAUSE_SECONDS)
        return await self._settled(request)

    async def _settled(self, request: Wait) -> Settled:
        pending, delivered, troubled = await self._spool.settled(request.jobs, request.run)
        deposits = self._inbox.waiting
        if request.jobs:
            pending += sum(job in deposits for job in request.jobs)
        else:
            pending += sum(request.run in {None, run} for run in deposits.values())
        return Settled(pending=pending, delivered=delivered, troubled=tuple(troubled))

    async def _status(self, _: Status) -> Reply:
        return await self._deliveries.status()

    async def _jobs(self, request: Jobs) -> Reply:
        limit = max(1, min(request.limit, JOBS_MOST))
        # A running delivery is queued on disk, so those two are told apart only here.
        running = await self._spool.numbered(self._deliveries.running) if request.before is None else []
        chosen = [self._deliveries.running_of(report) for report in running]
        chosen = [report for report in chosen if report.state in request.states]
        states = [state for state in request.states if state is not JobState.UPLOADING]
        if request.states and not states:
            return JobList(tuple(chosen))
        found = await self._spool.listed(states, limit + 1, request.before)
        shown = [self._deliveries.running_of(report) for report in found[:limit]]
        chosen += [report for report in shown if not states or report.state in states]
        return JobList(tuple(chosen), more=len(found) > limit)

    async def _show(self, request: Show) -> Reply:
        found = await self._spool.found(request.job)
        if len(found) != 1:
            return _not_one(request.job, len(found))
        return JobList((self._deliveries.running_of(found[0]),))

    async def _retry(self, request: Retry) -> Reply:
        seqs = [(await self._the_one(job)).seq for job in request.jobs] if request.jobs else None
        count = await self._spool.requeue(seqs)
        self._deliveries.try_again()
        return Done(count)

    async def _cancel(self, request: Cancel) -> Reply:
        reports = [await self._the_one(job) for job in request.jobs]
        ended = [report.job for report in reports if report.state in FINAL_STATES]
        if ended:
            raise RefusedError(
                f"unable to cancel {ended[0]}: it has ended", hint="`dropoff show` tells how; nothing was changed"
            )
        # A version and its parts go together. One that ends at this very moment is not counted.
        count = 0
        for report in reports:
            for seq in await self._spool.family(report.seq):
                count += await self._deliveries.cancel(seq)
        return Done(count)

    async def _pause(self, _: Pause) -> Reply:
        await self._deliveries.pause(paused=True)
        return Done()

    async def _resume(self, _: Resume) -> Reply:
        await self._deliveries.pause(paused=False)
        return Done()

    async def _limit(self, request: Limit) -> Reply:
        if request.store:
            self._stores.check(request.store)
        return await self._deliveries.limit(request.bandwidth, request.store)

    async def _the_one(self, job: str) -> JobReport:
        found = await self._spool.found(job)
        if len(found) != 1:
            refusal = _not_one(job, len(found))
            raise RefusedError(refusal.message, hint=refusal.hint)
        return found[0]


def _check_names(save: Save) -> None:
    # The top of an artifact has no name.
    if save.name or save.part is None or save.kind is not Kind.DIRECTORY:
        check_name(save.name)
    if save.prefix:
        check_name(save.prefix)
    if save.part is not None:
        artifact_name(save.part.artifact)
    if save.version is not None:
        artifact_name(save.name.decode())
        for alias in save.version.aliases:
            alias_name(alias)
        group = save.version.group
        for part in (group.name, *([] if group.finish else [group.writer])) if group else ():
            check_name(part)
        for path in [one.path for one in save.version.removals] + [one.path for one in save.version.pointers]:
            check_name(path)


def _not_one(job: str, count: int) -> Refused:
    why = "no job's id begins so" if count == 0 else "more than one job's id begins so"
    return Refused(Code.UNKNOWN_JOB, f"unable to find job {job}: {why}", "`dropoff jobs` lists them")


def _refusal(save: Save, error: Exception) -> Refused:
    codes = (
        (SpoolFullError, Code.SPOOL_FULL),
        (UnstableSourceError, Code.UNSTABLE),
        (UsageError, Code.NOT_REGULAR),
        (SpoolBrokenError, Code.STOPPING),
        (UnavailableError, Code.STOPPING),
    )
    if isinstance(error, DropoffError):
        code = next((code for kind, code in codes if isinstance(error, kind)), Code.NOT_ALLOWED)
        return Refused(code, error.message, error.hint)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Refused(
            Code.SPOOL_FULL,
            f"unable to take {display(save.source or save.name)} into custody: {error.strerror}",
            "free space (or inodes, or quota) on the disk of the state directory",
        )
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        return Refused(Code.STOPPING, f"unable to take {display(save.source or save.name)} now: {error.strerror}")
    what = "directory" if save.kind is Kind.DIRECTORY else "file"
    return Refused(
        Code.UNREADABLE,
        f"unable to capture {display(save.source or save.name)}: "
        f"{error.strerror if isinstance(error, OSError) else error}",
        f"check that the daemon's user may read the {what} and that the spool's disk works",
    )
