"""Whether a store works, and who is to blame when a delivery fails: pure.

After Postfix's destination status: what would fail every job alike is held against the store, not against the job.
The store is then left alone but for one delivery now and then, which finds out whether it works again; no job's tries
are used up. Once a store has worked for another job since, and confirmed nothing of this one, a second failure of the
same job is the job's own; except that nobody was there, which no job can bring about.
"""

import enum

import msgspec

from dropoff.errors import DropoffError
from dropoffd.stores.base import (
    BrokenError,
    DeniedError,
    StalledError,
    StoreError,
    ThrottledError,
    UnreachableError,
)

# A network that is back is noticed within five seconds; whoever has to give permission takes longer.
_UNREACHABLE_SECONDS, _UNREACHABLE_MOST_SECONDS = 1.0, 3.0
_DENIED_SECONDS, _DENIED_MOST_SECONDS = 5.0, 60.0
_THROTTLED_SECONDS, _THROTTLED_MOST_SECONDS = 2.0, 300.0
_SUSPECTS_MOST = 1000


class Blame(enum.Enum):
    """Whom a failure is held against."""

    STORE = enum.auto()
    JOB = enum.auto()


class Pause(msgspec.Struct, frozen=True):
    """Why a store is left alone, since when, and when (monotonic seconds) it is tried again."""

    reason: str
    hint: str
    since: float
    tries: int
    until: float
    needs_person: bool


class Health:
    """What is known of one store."""

    def __init__(self) -> None:
        self.pause: Pause | None = None
        self._worked = 0
        self._suspects: dict[int, int] = {}

    def places(self, most: int, now: float) -> int:
        """Return how many deliveries may run: all, or one to find out, or none."""
        if self.pause is None:
            return most
        return 1 if now >= self.pause.until else 0

    def suspects(self, seq: int) -> bool:
        """Tell whether a job's last delivery failed, so that another one is the better to find out with."""
        return seq in self._suspects

    def worked(self, seq: int) -> bool:
        """Take note that a delivery succeeded; return whether that ends a pause."""
        self._suspects.pop(seq, None)
        self._worked += 1
        ended, self.pause = self.pause is not None, None
        return ended

    def advanced(self, seq: int, now: float) -> bool:
        """Take note that the store confirmed some of a job; return whether that ends a pause.

        What the job failed for before was not its own, then. During the pause this tells nothing: a store that wants
        less still takes what is under way.
        """
        self._suspects.pop(seq, None)
        ended = self.pause is not None and now >= self.pause.until
        if ended:
            self.pause = None
        return ended

    def try_now(self, now: float) -> None:
        """End the wait of a pause: a person says that it works now."""
        if self.pause is not None:
            self.pause = msgspec.structs.replace(self.pause, until=now)

    def failed(self, seq: int, error: DropoffError, now: float) -> Blame:
        """Take note that a delivery failed and return whom that is held against."""
        if not isinstance(error, BrokenError | UnreachableError | DeniedError | ThrottledError):
            return Blame.JOB
        worked_then = self._suspects.pop(seq, None)
        nobody_there = isinstance(error, UnreachableError) and not isinstance(error, StalledError)
        if worked_then is not None and worked_then < self._worked and not nobody_there:
            return Blame.JOB
        if len(self._suspects) >= _SUSPECTS_MOST:
            self._suspects.clear()
        self._suspects[seq] = self._worked
        if self.pause is None or now >= self.pause.until:  # what ran beside the first to fail tells nothing new
            self.pause = _next(self.pause, error, now)
        return Blame.STORE


def _next(before: Pause | None, error: StoreError, now: float) -> Pause:
    tries = before.tries + 1 if before else 1
    first, most = _UNREACHABLE_SECONDS, _UNREACHABLE_MOST_SECONDS
    if isinstance(error, DeniedError):
        first, most = _DENIED_SECONDS, _DENIED_MOST_SECONDS
    elif isinstance(error, ThrottledError):
        first, most = max(_THROTTLED_SECONDS, error.after_seconds), _THROTTLED_MOST_SECONDS
    seconds = max(first, min(most, first * 2.0 ** min(tries - 1, 20)))
    return Pause(
        reason=error.message,
        hint=error.hint,
        since=before.since if before else now,
        tries=tries,
        until=now + seconds,
        needs_person=isinstance(error, DeniedError),
    )
