"""How many at once: found by trying, from what comes of it.

Hill climbing on throughput, a step at a time: a step up is kept if it brings a fair share of what it would bring were
nothing saturated, a step down if it costs less than that. What succeeded is done again; what did not is taken back,
and after a pause the other direction has its turn. So the limit grows while throughput grows, stays where that ends,
and comes down when the network got smaller. Gradients of latency (TCP Vegas, Netflix's concurrency-limits) would
need requests that are alike, and files are not.

Throttling halves the limit, and the level that was too much stays out of reach for a while: additive increase,
multiplicative decrease, with the memory of CUBIC (RFC 9438) and of the AWS SDKs' adaptive mode.

Pure: time comes with each event. A store that is not kept busy teaches nothing, so such rounds do not count
(RFC 7661 has the same rule for TCP).
"""

import math

import msgspec

# A round has to show each stream at work, and to be long against the jitter of a network.
_ROUND_SECONDS = 1.0
# A step that would bring 25 % were nothing saturated has to bring 6 %.
_FAIR_SHARE = 0.25
_PAUSE_ROUNDS = 10
_HALVE_SECONDS = 1.0
_FORGET_SECONDS = 60.0


class Seen(msgspec.Struct, frozen=True):
    """What a round showed: so many at once brought so much."""

    limit: int
    bytes_per_second: float


class Concurrency:
    """A limit between `least` and `most` that looks for its own level."""

    def __init__(self, least: int, most: int, start: int) -> None:
        self.limit = start
        self._least = least
        self._most = most
        self._ceiling = most
        self._halved_at = -math.inf
        self._direction = 1
        self._pause = 0
        self._before: Seen | None = None
        self._settling = False
        self._round = Round()

    def finished(self, now: float, size_bytes: int) -> None:
        """Note bytes that were sent; the more evenly they are told, the better."""
        bytes_per_second = self._round.add(now, size_bytes, self.limit)
        if bytes_per_second is None:
            return
        if now - self._halved_at >= _FORGET_SECONDS:
            self._ceiling = self._most
        if self._settling:
            # The round after a change still shows what was before it.
            self._settling = False
            return
        self._learn(Seen(self.limit, bytes_per_second))

    def throttled(self, now: float) -> None:
        """Note that the store wants less."""
        if now - self._halved_at < _HALVE_SECONDS:
            return
        self._halved_at = now
        self._ceiling = max(self._least, self.limit - 1)
        self._before = None
        self._pause = _PAUSE_ROUNDS
        self._go(max(self._least, self.limit // 2))

    def unused(self) -> None:
        """Note that there was less to do than the limit allows: what this round shows is not the limit's doing."""
        self._round = Round()

    def _learn(self, seen: Seen) -> None:
        before = self._before
        self._before = seen
        if before is None or before.limit == seen.limit:
            self._pause -= 1
        elif better(before, seen) is seen:
            self._pause = 0
        else:
            self._direction = -self._direction
            self._pause = _PAUSE_ROUNDS
            self._before = before
            self._go(before.limit)
        if self._pause <= 0:
            self._step()

    def _step(self) -> None:
        size = max(1, self.limit // 4)
        aim = max(self._least, min(self._ceiling, self.limit + self._direction * size))
        if aim == self.limit:
            self._direction = -self._direction
            self._pause = _PAUSE_ROUNDS
        self._go(aim)

    def _go(self, limit: int) -> None:
        if limit != self.limit:
            self.limit = limit
            self._settling = True


class Round:
    """Adds up what is sent until it tells a throughput."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._bytes = 0
        self._events = 0

    def add(self, now: float, size_bytes: int, streams: int) -> float | None:
        """Count bytes; return the throughput when the round is over, and begin the next."""
        if self._began is None:
            # From one arrival to another: what led to the first was before.
            self._began = now
            return None
        self._bytes += size_bytes
        self._events += 1
        elapsed = now - self._began
        if elapsed < _ROUND_SECONDS or self._events < streams:
            return None
        bytes_per_second = self._bytes / elapsed
        self._began, self._bytes, self._events = now, 0, 0
        return bytes_per_second


def better(one: Seen, other: Seen) -> Seen:
    """Return the one to keep: the larger limit if it brings a fair share of what it asks, else the smaller."""
    less, more = sorted((one, other), key=lambda seen: seen.limit)
    asked = (more.limit - less.limit) / less.limit
    return more if more.bytes_per_second > less.bytes_per_second * (1 + _FAIR_SHARE * asked) else less
