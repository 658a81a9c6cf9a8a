"""A gate: lets so many in at once, the runs in turn and each run's own in order of arrival.

The limit is a `Concurrency` that the gate tells what happens behind it. Nobody who waits is passed over: of two
runs, each gets every other place that falls free, however long its queue is.
"""

from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import anyio

from dropoffd.clock import Clock
from dropoffd.limits.concurrency import Concurrency
from dropoffd.limits.pace import Pace


class Gate:
    """At most `concurrency.limit` holders of a place, and no more than a pace has bytes for."""

    def __init__(self, clock: Clock, concurrency: Concurrency, pace: Pace | None = None) -> None:
        self._clock = clock
        self._concurrency = concurrency
        self._pace = pace
        self._holders = 0
        # Whose turn it is stands first.
        self._waiting: dict[Hashable, deque[anyio.Event]] = {}

    @property
    def limit(self) -> int:
        """How many may hold a place now."""
        limit = self._concurrency.limit
        return limit if self._pace is None else int(min(limit, self._pace.streams))

    @property
    def holders(self) -> int:
        """How many hold a place now: more than the limit for a while after it came down."""
        return self._holders

    @asynccontextmanager
    async def place(self, run: Hashable) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        await self._enter(run)
        try:
            yield
        finally:
            self._leave()

    def finished(self, size_bytes: int) -> None:
        """Note bytes that a holder sent; to be told while it still holds its place."""
        if self._holders < self.limit:
            self._concurrency.unused()
        else:
            self._concurrency.finished(self._clock.monotonic(), size_bytes)
            self._admit()

    def throttled(self) -> None:
        """Note that the store wants less."""
        self._concurrency.throttled(self._clock.monotonic())

    async def _enter(self, run: Hashable) -> None:
        if self._holders < self.limit:
            self._holders += 1
            return
        admitted = anyio.Event()
        self._waiting.setdefault(run, deque()).append(admitted)
        try:
            await admitted.wait()
        except BaseException:
            if admitted.is_set():
                self._leave()
            else:
                self._forget(run, admitted)
            raise

    def _leave(self) -> None:
        self._holders -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._holders < self.limit:
            run, queue = next(iter(self._waiting.items()))
            del self._waiting[run]
            self._holders += 1
            queue.popleft().set()
            if queue:
                self._waiting[run] = queue

    def _forget(self, run: Hashable, admitted: anyio.Event) -> None:
        queue = self._waiting[run]
        queue.remove(admitted)
        if not queue:
            del self._waiting[run]
