"""A pace: so much a second and no more, be it bytes or requests.

The generic cell rate algorithm (ITU-T I.371) in its leaky-bucket form: what went is owed, the debt drains at the
rate, and more may go as long as the debt stays within one burst. In any t seconds at most `rate * t` and one burst
go; while somebody always waits, no less than the rate. A burst is one piece and 50 ms of the rate: a timer that is
late by less than that loses nothing.

Who waits is served in order of arrival. Nothing is charged before it may go, so that a waiter that is cancelled has
nothing to give back. A pace within another (a store's within the daemon's) lets go what both let go, at one moment.
"""

import math

import anyio

from dropoffd.clock import Clock

# What senders hand to the wire at once, and so the least that one of them can take. Over TLS larger pieces cost more
# (1 MiB: a quarter more than this), smaller ones more calls.
PIECE_BYTES = 256 << 10
_SLACK_SECONDS = 0.05
# Timers are no finer; the slack pays for it.
_TICK_SECONDS = 0.001


class Pace:
    """At most `per_second` in the long run, `piece` being what is usually taken at once; None is unlimited."""

    def __init__(self, clock: Clock, per_second: float | None, piece: int, within: "Pace | None" = None) -> None:
        self._clock = clock
        self._per_second = per_second
        self._piece = piece
        self._within = within
        self._owed = 0.0
        self._counted_at = clock.monotonic()
        self._turn = anyio.Lock(fast_acquire=True)
        self._nap = anyio.CancelScope()

    @property
    def per_second(self) -> float | None:
        """The rate; None is unlimited."""
        return self._per_second

    @property
    def streams(self) -> float:
        """How many may share it so that each gets a piece a second: a store cuts off who is silent for long."""
        own = math.inf if self._per_second is None else max(1.0, self._per_second // self._piece)
        return own if self._within is None else min(own, self._within.streams)

    @property
    def burst(self) -> float:
        """How much may go at once after a silence; a single larger piece goes as a burst of its own."""
        return self._piece + _SLACK_SECONDS * (self._per_second or 0.0)

    def set_rate(self, per_second: float | None) -> None:
        """Change the rate; whoever waits goes by the new one from now on."""
        self._drain()
        self._per_second = per_second
        self._nap.cancel()

    def take_nowait(self, size: int) -> bool:
        """Take `size` if so much may go at once and nobody waits; otherwise take nothing and return False."""
        if self._turn.locked() or self._wait_seconds(size) > 0:
            return False
        if self._within is not None and not self._within.take_nowait(size):
            return False
        self._owed += size
        return True

    async def take(self, size: int) -> None:
        """Return when `size` may go."""
        if self.take_nowait(size):
            return
        async with self._turn:
            while (seconds := self._wait_seconds(size)) > 0:
                await self._doze(max(seconds, _TICK_SECONDS))
            if self._within is not None:
                await self._within.take(size)
                self._drain()
            self._owed += size

    def _wait_seconds(self, size: int) -> float:
        if self._per_second is None:
            return 0.0
        self._drain()
        return (self._owed + min(size, self.burst) - self.burst) / self._per_second

    def _drain(self) -> None:
        now = self._clock.monotonic()
        drained = float("inf") if self._per_second is None else (now - self._counted_at) * self._per_second
        self._owed = max(0.0, self._owed - drained)
        self._counted_at = now

    async def _doze(self, seconds: float) -> None:
        """Sleep, or until the rate changes."""
        with anyio.CancelScope() as self._nap:
            await self._clock.sleep(seconds)
