"""The only doors of nondeterminism: time and chance, so that tests can own both."""

import random
import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Time as the daemon sees it."""

    def now(self) -> float:
        """Return seconds since the epoch; may jump."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return seconds since the epoch; may jump."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await anyio.sleep(seconds)


def backoff_seconds(tries: int, first: float, most: float, chance: random.Random) -> float:
    """Return the pause after the `tries`-th failure: doubling, bounded, the upper half of it random.

    The random half keeps a fleet that failed together from coming back together.
    """
    whole = min(most, first * 2.0 ** min(tries - 1, 60))
    return whole / 2 + chance.uniform(0, whole / 2)
