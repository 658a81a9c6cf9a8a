"""How many at once is found by trying: simulated links and stores, second by second."""

import heapq
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropoffd.limits.concurrency import Concurrency, Round

MOST = 64
STEP_SECONDS = 0.1
STREAM = 1e6


class Link:
    """A link that carries so much with so many streams, with noise that lasts for a second each."""

    def __init__(self, concurrency: Concurrency, seed: int = 0, noise: float = 0.0) -> None:
        self.concurrency = concurrency
        self.now = 0.0
        self.limits: list[int] = []
        self.refusals = 0
        self._chance = random.Random(seed)
        self._noise = noise
        self._factor = 1.0

    def run(self, seconds: float, bytes_per_second: Callable[[int], float], refused_over: int = MOST) -> list[int]:
        """Let time pass with all streams at work; return the limits of that time, step by step."""
        begun, end = len(self.limits), self.now + seconds
        while self.now < end:
            before, self.now = self.now, self.now + STEP_SECONDS
            if int(before) != int(self.now):
                self._factor = max(0.1, self._chance.gauss(1, self._noise))
            streams = self.concurrency.limit
            if streams > refused_over:
                self.refusals += 1
                self.concurrency.throttled(self.now)
            each = bytes_per_second(streams) / streams * self._factor * STEP_SECONDS
            for _ in range(streams):
                self.concurrency.finished(self.now, int(each))
            self.limits.append(self.concurrency.limit)
        return self.limits[begun:]


def saturating(streams: int) -> Callable[[int], float]:
    """Return a link that so many streams fill."""
    return lambda limit: min(limit, streams) * STREAM


@settings(deadline=None)
@given(st.integers(1, MOST // 2), st.integers(1, MOST), st.floats(0, 0.05), st.integers())
def test_the_limit_settles_where_the_link_is_full(full: int, start: int, noise: float, seed: int) -> None:
    """From any start, with some noise, the limit comes near the number of streams that fill the link, and stays."""
    link = Link(Concurrency(1, MOST, start), seed, noise)
    link.run(300, saturating(full))
    limits = link.run(120, saturating(full))
    assert 0.7 * full <= statistics.mean(limits) <= 1.5 * full + 1
    assert statistics.mean(min(limit, full) for limit in limits) >= 0.9 * full


@settings(deadline=None)
@given(st.integers(1, MOST // 2), st.integers(1, MOST))
def test_without_noise_the_limit_never_strays(full: int, start: int) -> None:
    """Once it has settled on a quiet link, the limit looks one step up and one step down, and no further."""
    link = Link(Concurrency(1, MOST, start))
    link.run(300, saturating(full))
    limits = link.run(120, saturating(full))
    assert 0.7 * full - 1 <= min(limits) <= max(limits) <= 1.6 * full + 2


def test_a_quiet_link_is_filled_within_half_a_minute() -> None:
    """A limit that starts at four fills a link of thirty streams in thirty seconds."""
    link = Link(Concurrency(1, MOST, 4))
    assert link.run(30, saturating(30))[-1] >= 30


def test_the_limit_follows_a_link_that_changes() -> None:
    """It comes down when fewer streams fill the link, and goes up when more are wanted."""
    link = Link(Concurrency(1, MOST, 4))
    assert statistics.mean(link.run(120, saturating(32))[-600:]) > 25
    assert statistics.mean(link.run(400, saturating(6))[-600:]) < 10
    assert statistics.mean(link.run(120, saturating(32))[-600:]) > 25


def test_a_link_that_many_streams_choke() -> None:
    """Where more streams bring less, the limit stays below them."""
    link = Link(Concurrency(1, MOST, 40))
    link.run(200, lambda limit: STREAM * (min(limit, 10) - max(0, limit - 10) / 2 if limit < 26 else 1))
    assert 6 <= statistics.mean(link.limits[-600:]) <= 13


@pytest.mark.parametrize("refused_over", [1, 2, 5, 10, 20, 40])
def test_a_store_that_throttles_is_left_in_peace(refused_over: int) -> None:
    """The limit stays below what is refused but for a look now and then, and makes good use of what is allowed."""
    link = Link(Concurrency(1, MOST, 4))
    link.run(60, saturating(MOST), refused_over)
    refusals = link.refusals
    limits = link.run(300, saturating(MOST), refused_over)
    assert statistics.mean(limits) >= 0.6 * refused_over
    assert link.refusals - refusals <= 10
    assert link.refusals > refusals


def test_throttling_that_ends_is_forgotten() -> None:
    """After an outage that refused everything for a minute, the limit is where it was in a few."""
    link = Link(Concurrency(1, MOST, 4))
    link.run(120, saturating(40))
    assert set(link.run(60, saturating(40), refused_over=0)[-100:]) == {1}
    after = link.run(180, saturating(40))
    assert max(after[:600]) < 20
    assert statistics.mean(after[-300:]) > 32


def test_after_a_refusal_the_limit_rests() -> None:
    """For some seconds after it was halved, nothing is tried."""
    link = Link(Concurrency(1, MOST, 40))
    link.run(1, saturating(MOST))
    assert set(link.run(1, saturating(MOST), refused_over=25)[-5:]) == {20}
    assert set(link.run(8, saturating(MOST))) == {20}
    assert link.run(10, saturating(MOST))[-1] > 20


def test_refusals_that_come_together_halve_once() -> None:
    """All streams of a second being refused halves the limit once; a second later it is halved again."""
    concurrency = Concurrency(1, MOST, 40)
    for at in (0.0, 0.3, 0.99):
        concurrency.throttled(at)
    assert concurrency.limit == 20
    concurrency.throttled(1.0)
    assert concurrency.limit == 10


def test_a_store_that_is_not_kept_busy_teaches_nothing() -> None:
    """Whatever the throughput, the limit stays while there is less to do than it allows."""
    concurrency = Concurrency(1, MOST, 8)
    for step in range(10_000):
        concurrency.finished(step * 0.1, step**2)
        concurrency.unused()
    assert concurrency.limit == 8


def test_a_silence_is_not_taken_for_a_slow_link() -> None:
    """An hour in which nothing was to be sent changes nothing, once it is known for what it was."""
    link = Link(Concurrency(1, MOST, 4))
    link.run(120, saturating(16))
    before = link.concurrency.limit
    link.now += 3600
    link.concurrency.unused()
    assert all(abs(limit - before) <= before // 4 + 1 for limit in link.run(10, saturating(16)))


@given(
    st.integers(1, 9),
    st.integers(0, 9),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1 << 30), st.integers(0, 9))),
)
def test_the_limit_keeps_its_bounds(least: int, more: int, events: list[tuple[float, int, int]]) -> None:
    """Whatever happens, the limit is between the least and the most; equal bounds are a fixed limit."""
    concurrency = Concurrency(least, least + more, least + more // 2)
    now = 0.0
    for after, size, kind in events:
        now += after
        if kind == 0:
            concurrency.throttled(now)
        elif kind == 1:
            concurrency.unused()
        else:
            concurrency.finished(now, size)
        assert least <= concurrency.limit <= least + more


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_whole_parts_do_as_well_as_pieces(jitter: float) -> None:
    """Told of nothing but finished parts, half a minute each, at once or spread, the limit finds its level."""
    chance = random.Random(1)
    concurrency = Concurrency(1, MOST, 4)
    now, limits = 0.0, []
    ends = [0.0]
    while now < 20_000:
        while len(ends) < concurrency.limit:
            seconds = 30 * max(1.0, concurrency.limit / 12) * chance.uniform(1 - jitter, 1 + jitter)
            heapq.heappush(ends, now + seconds)
        now = heapq.heappop(ends)
        concurrency.finished(now, 8 << 20)
        limits.append(concurrency.limit)
    assert 8 <= statistics.mean(limits[-3000:]) <= 17


def test_a_round_shows_every_stream_at_work() -> None:
    """A throughput is told after a second in which each stream can have been heard, from one arrival to another."""
    one = Round()
    assert [one.add(at, 100, 3) for at in (5.0, 5.5, 6.0, 7.0)] == [None, None, None, 150.0]
    assert [one.add(at, 100, 1) for at in (7.5, 8.0)] == [None, 200.0]
