"""The handle that a save returns: look at it, wait for it, or forget it. The job does not depend on it."""

import time
from collections.abc import Generator, Iterable

import msgspec

from dropoff.client import Connection, checked
from dropoff.errors import (
    DeliveryError,
    DeliveryTimeoutError,
    RefusedError,
    UnavailableError,
)
from dropoff.ids import JobId
from dropoff.messages import (
    FINAL_STATES,
    Cancel,
    JobList,
    JobReport,
    JobRequest,
    JobState,
    Receipt,
    Settled,
    Show,
    Wait,
)
from dropoff.settings import Settings

_AWAY_SECONDS = 0.2
# Longer than the daemon's pause between two `Working`.
SILENCE_SECONDS = 15.0
_WAIT_JOBS = 10_000


class Delivery:
    """One saved thing on its way to the store."""

    def __init__(self, settings: Settings, job: JobId, skipped: Iterable[str] = ()) -> None:
        self.id = job
        self.skipped = tuple(skipped)
        """What a directory held that could not be saved (links that lead outside, sockets, devices), and why."""
        self.settings = settings
        self._last: JobReport | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.id} {self._last.state if self._last else JobState.QUEUED}>"

    @property
    def state(self) -> JobState:
        """The job's state; the last one known while no daemon answers."""
        report = self.report()
        return report.state if report else JobState.QUEUED

    @property
    def progress(self) -> float:
        """How much of the content is in the store, from 0 to 1."""
        report = self.report()
        if report is None:
            return 0.0
        if report.state is JobState.DELIVERED:
            return 1.0
        return report.sent_bytes / report.size_bytes if report.size_bytes else 0.0

    def report(self) -> JobReport | None:
        """Ask the daemon about the job; None while only the inbox knows it."""
        if self._last is None or self._last.state not in FINAL_STATES:
            try:
                reply = ask_once(self.settings, Show(self.id))
            except (OSError, UnavailableError, RefusedError):
                return self._last
            if isinstance(reply, JobList) and reply.jobs:
                self._last = reply.jobs[0]
        return self._last

    def wait(self, timeout: float | None = None) -> Receipt:
        """Wait until the content is in the store and return the receipt.

        Raises DeliveryTimeoutError after `timeout` seconds (the job stays in custody and goes on), and
        DeliveryError if the job was cancelled, superseded, or is held for a person.
        """
        return wait(self, timeout=timeout)[0]

    def result(self) -> Receipt:
        """Return the receipt, without waiting; raises DeliveryError while there is none."""
        report = self.report()
        if report is None or report.receipt is None:
            raise _undelivered(self.id, report)
        return report.receipt

    def cancel(self) -> None:
        """Give the job up; its content leaves custody. Raises RefusedError if it is delivered already."""
        try:
            ask_once(self.settings, Cancel((self.id,)))
        except OSError as error:
            raise UnavailableError(
                f"unable to cancel {self.id}: no daemon answers", hint="start it with `dropoff serve`"
            ) from error

    def __await__(self) -> Generator[object, None, Receipt]:
        return self._settle().__await__()

    async def _settle(self) -> Receipt:
        import asyncio  # noqa: PLC0415  # 30 ms of every import of the SDK, needed only by who awaits

        pause = 0.02
        while True:
            report = self.report()
            if report and (report.state in FINAL_STATES or report.state is JobState.HELD):
                return self.result()
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)


def wait(*deliveries: Delivery, timeout: float | None = None) -> list[Receipt]:
    """Wait for all `deliveries` and return their receipts in order; raises as `Delivery.wait` does."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for start in range(0, len(deliveries), _WAIT_JOBS):
        some = deliveries[start : start + _WAIT_JOBS]
        settled = settle(some[0].settings, Wait(jobs=tuple(one.id for one in some)), deadline)
        if settled.pending:
            raise DeliveryTimeoutError(
                f"unable to see {settled.pending} deliveries through within {timeout} s; they stay in custody",
                hint="they go on by themselves; `dropoff status` shows how far they are",
            )
    return [one.result() for one in deliveries]


def settle(settings: Settings, request: Wait, deadline: float | None) -> Settled:
    """Send `request` on a connection of its own, again whenever the daemon went away, until `deadline`."""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            reply = ask_once(settings, Wait(request.jobs, request.run, left))
        except (OSError, UnavailableError):
            if left is not None and left <= _AWAY_SECONDS:
                return Settled(pending=max(1, len(request.jobs)), delivered=0)
            time.sleep(_AWAY_SECONDS)
            continue
        if isinstance(reply, Settled):
            return reply


def ask_once(settings: Settings, request: JobRequest) -> msgspec.Struct:
    """Ask on a connection of its own and with patience: no training loop waits for this answer, but a person may."""
    connection = Connection(settings, SILENCE_SECONDS)
    try:
        return checked(connection.ask(request))
    finally:
        connection.close()


def _undelivered(job: JobId, report: JobReport | None) -> DeliveryError:
    state = report.state if report else JobState.QUEUED
    cause = f"it is {state}" + (f" ({report.reason})" if report and report.reason else "")
    hint = report.hint if report and report.hint else f"`dropoff show {job}` tells more"
    return DeliveryError(f"unable to return the receipt of {job}: {cause}", hint=hint)
