"""A wrapper that tries again: the only place, beside the scheduler, where anything is tried twice.

Short pauses against a store that stumbles; a store that stays away is the scheduler's to come back to.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import tenacity

from dropoffd.clock import Clock
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    Limits,
    Mode,
    PreconditionFailedError,
    Progress,
    Stat,
    Store,
    UnavailableError,
)

T = TypeVar("T")

TRIES = 3
_FIRST_SECONDS, _MOST_SECONDS = 0.1, 2.0


class RetryingStore:
    """The same store, patient for a moment."""

    def __init__(self, inner: Store, clock: Clock) -> None:
        self.url = inner.url
        self.limits: Limits = inner.limits
        self._inner = inner
        self._clock = clock

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

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`."""
        return await self._patiently(lambda: self._inner.stat(key))

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix; a listing that breaks is its caller's to begin again."""
        return self._inner.list(prefix)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._patiently(lambda: self._inner.delete(key))

    async def aclose(self) -> None:
        """Close the store within."""
        await self._inner.aclose()

    async def _patiently(self, once: Callable[[], Awaitable[T]]) -> T:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS),
            sleep=self._clock.sleep,
            reraise=True,
        )

        async def attempt() -> T:
            return await once()

        return await retrying(attempt)
