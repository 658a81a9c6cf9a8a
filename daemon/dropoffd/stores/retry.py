"""A wrapper that tries again: the only place, beside the scheduler, where anything is tried twice.

Short pauses against a store that stumbles, as long as a budget lasts; a store that stays away is the scheduler's to
come back to, and one that nobody can reach is not asked again at once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import tenacity

from dropoffd.clock import Clock
from dropoffd.limits.budget import Budget
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    Folder,
    Limits,
    Mode,
    Multipart,
    Part,
    PreconditionFailedError,
    Progress,
    Stat,
    Store,
    ThrottledError,
    UnavailableError,
    UnreachableError,
    Upload,
)
from dropoffd.stores.leftovers import end_nameless

T = TypeVar("T")

TRIES = 3
_FIRST_SECONDS, _MOST_SECONDS = 0.1, 2.0
# A store that asks for a longer pause than this is left alone by the scheduler instead.
_THROTTLE_MOST_SECONDS = 10.0
_jitter = tenacity.wait_random_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS)


def _put_off(error: BaseException) -> bool:
    return isinstance(error, ThrottledError) and error.after_seconds <= _THROTTLE_MOST_SECONDS


def _worth_it(error: BaseException) -> bool:
    if isinstance(error, ThrottledError):
        return _put_off(error)
    return isinstance(error, UnavailableError) and not isinstance(error, UnreachableError)


class Patience:
    """Tries an operation again while that is of use and one store's budget lasts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._budget = Budget()

    async def __call__(
        self, once: Callable[[], Awaitable[T]], worth_it: Callable[[BaseException], bool] = _worth_it
    ) -> T:
        """Return what `once` returns, in one of a few tries; `worth_it` tells which failures call for another."""
        try:
            result = await once()
        except UnavailableError as error:
            return await self._again(once, error, worth_it)
        self._budget.deposit(retried=False)
        return result

    async def _again(
        self, once: Callable[[], Awaitable[T]], error: UnavailableError, worth_it: Callable[[BaseException], bool]
    ) -> T:
        """Go on after a first try that failed: only then are the machinery's 100 us well spent."""
        failures = [error]

        async def attempt() -> T:
            if failures:
                raise failures.pop()
            result = await once()
            self._budget.deposit(retried=True)
            return result

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(worth_it),
            stop=self._is_over,
            wait=_pause_seconds,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(attempt)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        # In this order: the budget pays for tries that are made.
        return state.attempt_number >= TRIES or not self._budget.withdraw()


def _pause_seconds(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    after = error.after_seconds if isinstance(error, ThrottledError) else 0.0
    return after + _jitter(state)


class RetryingStore:
    """The same store, patient for a moment."""

    def __init__(self, inner: Store, clock: Clock) -> None:
        self.url = inner.url
        self._inner = inner
        self._patiently = Patience(clock)

    @property
    def limits(self) -> Limits:
        """What the store within can do."""
        return self._inner.limits

    @property
    def multipart(self) -> Multipart | None:
        """Its uploads in parts, each request of them tried again by itself."""
        return RetryingMultipart(self._inner.multipart, self._patiently) if self._inner.multipart else None

    async def prepare(self) -> None:
        """Find out what the store can do."""
        await self._patiently(self._inner.prepare)

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body`; a body is rewindable, so each try sends all of it."""
        tries = 0

        async def once() -> Stat:
            nonlocal tries
            tries += 1
            try:
                return await self._inner.put(key, body, mode, progress)
            except (AlreadyExistsError, PreconditionFailedError):
                # The try before may have been answered by nobody and yet succeeded.
                if tries > 1:
                    found = await self._inner.stat(key)
                    if (found.size_bytes, found.sha256) == (body.size_bytes, body.sha256):
                        return found
                raise

        return await self._patiently(once)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return some of an object's bytes."""
        return await self._patiently(lambda: self._inner.get(key, start, end))

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill a buffer with an object's bytes; each try from its beginning."""
        return await self._patiently(lambda: self._inner.read(key, start, buffer))

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`."""
        return await self._patiently(lambda: self._inner.stat(key))

    async def head(self, key: str) -> Stat:
        """Return what the store says of `key`."""
        return await self._patiently(lambda: self._inner.head(key))

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix; a listing that breaks is its caller's to begin again."""
        return self._inner.list(prefix)

    def folders(self, prefix: str) -> AsyncIterator[str]:
        """Yield what comes next in keys."""
        return self._inner.folders(prefix)

    def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """Yield the folders below a prefix; begun again by the caller, as a listing is."""
        return self._inner.changes(prefix, known)

    async def delete(self, key: str) -> None:
        """Remove an object; once that may have been done it is not tried again, or it would take what came since."""
        await self._patiently(lambda: self._inner.delete(key), _put_off)

    async def aclose(self) -> None:
        """Close the store within."""
        await self._inner.aclose()


class RetryingMultipart:
    """The same uploads, each request patient for a moment."""

    def __init__(self, inner: Multipart, patiently: Patience) -> None:
        self._inner = inner
        self._patiently = patiently

    async def begin(self, key: str, sha256: str) -> str:
        """Begin an upload; one that was begun although the answer was lost is ended before the next try."""
        tries = 0

        async def once() -> str:
            nonlocal tries
            tries += 1
            if tries > 1:
                await end_nameless(self._inner, key)
            return await self._inner.begin(key, sha256)

        return await self._patiently(once)

    async def put_part(self, key: str, upload: str, number: int, body: Body, progress: Progress) -> Part:
        """Store a part; a second try replaces the first."""
        return await self._patiently(lambda: self._inner.put_part(key, upload, number, body, progress))

    async def parts(self, key: str, upload: str) -> list[Part]:
        """Return the parts that the store has."""
        return await self._patiently(lambda: self._inner.parts(key, upload))

    async def finish(self, key: str, upload: str, parts: Sequence[Part], sha256: str, mode: Mode) -> Stat:
        """Make the object of its parts."""
        return await self._patiently(lambda: self._inner.finish(key, upload, parts, sha256, mode))

    async def abandon(self, key: str, upload: str) -> None:
        """End an upload."""
        await self._patiently(lambda: self._inner.abandon(key, upload))

    def uploads(self, prefix: str) -> AsyncIterator[Upload]:
        """Yield the unfinished uploads."""
        return self._inner.uploads(prefix)
