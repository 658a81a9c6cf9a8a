"""Time that costs nothing: an event loop that jumps to its next timer whenever it would wait for it.

Everything that awaits runs as it does in the daemon, in order of its timers, at any scale of time. Where the loop
would wait with no timer set, nobody could ever wake it, and the test fails instead.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a time of its own, from 0."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Return the loop's seconds."""
        return self.seconds


class _Jumping(selectors.EpollSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, it is later at once."""
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for somebody else"
            self._loop.seconds += timeout
        return ready


class VirtualClock:
    """The running virtual loop's time, as the daemon sees it; sleeps may end late, as they do in life."""

    def __init__(self, late_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._late_seconds = late_seconds

    def now(self) -> float:
        """Return seconds since the epoch."""
        return 1e9 + self.monotonic()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, and what the test adds to it."""
        await anyio.sleep(seconds + self._late_seconds())


def run_virtually(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` on a virtual loop that begins at 0."""
    return anyio.run(main, backend_options={"loop_factory": VirtualLoop})
