"""A pace never lets more go than it says, and hardly less."""

import random
from collections.abc import Sequence
from itertools import pairwise

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.virtual import VirtualClock, run_virtually
from dropoffd.limits.pace import PIECE_BYTES, Pace

Gone = list[tuple[float, int]]
Rates = Sequence[tuple[float, float | None]]

RATES = st.one_of(st.none(), st.floats(1e3, 1e9))
# When a taker begins, how long it rests between two takes, and what it takes.
TAKERS = st.lists(
    st.tuples(
        st.floats(0, 5), st.floats(0, 0.5), st.lists(st.integers(1, 3 * PIECE_BYTES), min_size=1, max_size=12)
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


async def taker(clock: VirtualClock, pace: Pace, gone: Gone, arrival: tuple[float, float, list[int]]) -> None:
    """Take as `arrival` has it, and note what went when."""
    begins, rests, sizes = arrival
    await anyio.sleep(begins)
    for size in sizes:
        await pace.take(size)
        gone.append((clock.monotonic(), size))
        await anyio.sleep(rests)


def allowed(rates: Rates, start: float, end: float) -> float:
    """Return how much the rates in force between two moments allow, without any burst."""
    spans = (
        (min(end, until) - max(start, since), rate)
        for (since, rate), (until, _) in pairwise([*rates, (float("inf"), None)])
    )
    return sum(span * rate for span, rate in spans if span > 0 and rate is not None)


def in_force(rates: Rates, start: float, end: float) -> set[float | None]:
    """Return the rates that a window touches, also with its edges."""
    return {
        rate
        for (since, rate), (until, _) in pairwise([*rates, (float("inf"), None)])
        if since <= end and until >= start
    }


def assert_never_over(gone: Gone, rates: Rates) -> None:
    """Look at every window from one moment that something went to another; a larger piece is a burst of its own."""
    for first, (start, _) in enumerate(gone):
        total = 0
        for end, size in gone[first:]:
            total += size
            if None in in_force(rates, start, end):
                break
            burst = PIECE_BYTES + 0.05 * max(rate or 0.0 for rate in in_force(rates, end, end))
            assert total <= allowed(rates, start, end) + max(burst, size) + 1


@settings(deadline=None)
@given(TAKERS, st.lists(st.tuples(st.floats(0.001, 3), RATES), max_size=4), RATES, st.integers())
def test_never_over_the_rate_and_one_burst(
    arrivals: list[tuple[float, float, list[int]]],
    changes: list[tuple[float, float | None]],
    first: float | None,
    seed: int,
) -> None:
    """In any window no more goes than the rates allow and one burst, whoever takes what, however late timers are."""
    chance = random.Random(seed)
    gone: Gone = []
    rates: list[tuple[float, float | None]] = [(0.0, first)]

    async def main() -> None:
        clock = VirtualClock(lambda: chance.uniform(0, 0.2))
        pace = Pace(clock, first, PIECE_BYTES)
        async with anyio.create_task_group() as group:
            for arrival in arrivals:
                group.start_soon(taker, clock, pace, gone, arrival)
            for after, rate in changes:
                await anyio.sleep(after)
                rates.append((clock.monotonic(), rate))
                pace.set_rate(rate)

    run_virtually(main)
    assert len(gone) == sum(len(sizes) for *_, sizes in arrivals)
    assert_never_over(gone, rates)


@settings(deadline=None)
@given(
    st.floats(1e4, 1e8),
    st.lists(st.integers(1, PIECE_BYTES), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(),
)
def test_always_the_rate_while_somebody_waits(rate: float, sizes: list[int], takers: int, seed: int) -> None:
    """Takers that never rest get 97 % of the rate and more, of pieces of any size, with timers up to 40 ms late."""
    chance = random.Random(seed)
    pieces = [size for size in sizes for _ in range(200 // len(sizes))]
    gone: Gone = []

    async def main() -> None:
        clock = VirtualClock(lambda: chance.uniform(0, 0.04))
        pace = Pace(clock, rate, PIECE_BYTES)
        async with anyio.create_task_group() as group:
            for _ in range(takers):
                group.start_soon(taker, clock, pace, gone, (0, 0, pieces))

    run_virtually(main)
    seconds = gone[-1][0]
    # What the last wait was late by is not the pace's doing.
    assert sum(size for _, size in gone) >= 0.97 * rate * (seconds - 0.041)


@settings(deadline=None)
@given(TAKERS, TAKERS, st.floats(1e3, 1e9), st.floats(1e3, 1e9), st.lists(st.floats(1e3, 1e9), max_size=3))
def test_a_pace_within_another_keeps_both(
    ours: list[tuple[float, float, list[int]]],
    theirs: list[tuple[float, float, list[int]]],
    our_rate: float,
    all_rate: float,
    changes: list[float],
) -> None:
    """Each store stays within its own rate, and all together stay within the daemon's, which may change."""
    gone: tuple[Gone, Gone] = ([], [])
    rates: list[tuple[float, float | None]] = [(0.0, all_rate)]

    async def main() -> None:
        clock = VirtualClock()
        daemons = Pace(clock, all_rate, PIECE_BYTES)
        stores = Pace(clock, our_rate, PIECE_BYTES, daemons), Pace(clock, None, PIECE_BYTES, daemons)
        async with anyio.create_task_group() as group:
            for store, arrivals, went in zip(stores, (ours, theirs), gone, strict=True):
                for arrival in arrivals:
                    group.start_soon(taker, clock, store, went, arrival)
            for rate in changes:
                await anyio.sleep(1)
                rates.append((clock.monotonic(), rate))
                daemons.set_rate(rate)

    run_virtually(main)
    assert_never_over(gone[0], [(0.0, our_rate)])
    assert_never_over(sorted(gone[0] + gone[1]), rates)


@pytest.mark.anyio
async def test_what_the_daemon_held_back_is_no_credit_with_the_store(clock: VirtualClock) -> None:
    """When the daemon's limit is lifted, a store that waited for it goes with one burst of its own, and no more."""
    outer = Pace(clock, 1.0, 50)
    pace = Pace(clock, 100.0, 100, outer)
    gone: Gone = []
    await outer.take(50)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(taker, clock, pace, gone, (0, 0, [50]))
        await anyio.sleep(10)
        outer.set_rate(None)
    assert [at for at, _ in gone] == pytest.approx([10, 10, *(10.45 + 0.5 * n for n in range(8))], abs=0.01)


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [2e6, 10e6, 123e6])
async def test_any_ten_seconds_are_within_three_percent(rate: float) -> None:
    """With steady demand any ten seconds carry the rate, give or take 3 %, though timers are late."""
    chance = random.Random(1)
    clock = VirtualClock(lambda: chance.uniform(0, 0.02))
    pace = Pace(clock, rate, PIECE_BYTES)
    gone: Gone = []
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(taker, clock, pace, gone, (0, 0, [PIECE_BYTES] * int(rate * 30 / PIECE_BYTES / 4)))
    end = gone[-1][0]
    for start in range(1, int(end) - 10):
        sent = sum(size for at, size in gone if start <= at < start + 10)
        assert abs(sent / (10 * rate) - 1) <= 0.03


@pytest.mark.anyio
async def test_who_waits_is_served_in_order(clock: VirtualClock) -> None:
    """Takers go in order of arrival, and one that could go at once does not overtake them."""
    pace = Pace(clock, 1000, 1000)
    served: list[int] = []

    async def take(number: int, size: int) -> None:
        await pace.take(size)
        served.append(number)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(take, number, 1 if number % 2 else 1000)
            await anyio.wait_all_tasks_blocked()
        assert len(served) < 5
        assert not pace.take_nowait(1)
    assert served == list(range(50))


@pytest.mark.anyio
@pytest.mark.parametrize("rate", [None, 1e12])
async def test_a_change_is_noticed_at_once(clock: VirtualClock, rate: float | None) -> None:
    """Who would have waited for a day goes at the moment that the rate is raised, all of them in order."""
    outer = Pace(clock, 1, PIECE_BYTES)
    pace = Pace(clock, None, PIECE_BYTES, outer)
    gone: Gone = []
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(taker, clock, pace, gone, (0, 0, [PIECE_BYTES]))
        await anyio.sleep(1)
        assert len(gone) == 1
        outer.set_rate(rate)
    assert [at for at, _ in gone] == pytest.approx([0] + [1] * 19, abs=0.001)


@pytest.mark.anyio
async def test_a_limit_can_come_and_go(clock: VirtualClock) -> None:
    """What went without a limit is not held against the limit that comes, and the other way round."""
    pace = Pace(clock, None, 10)
    for _ in range(1000):
        assert pace.take_nowait(1000)
    pace.set_rate(100.0)
    await pace.take(10)
    assert clock.monotonic() == 0
    await pace.take(10)
    assert clock.monotonic() == pytest.approx(0.05, abs=0.002)
    assert not pace.take_nowait(10)
    pace.set_rate(None)
    assert (pace.take_nowait(10**9), pace.per_second) == (True, None)


@pytest.mark.anyio
async def test_a_lower_rate_holds_for_those_who_wait(clock: VirtualClock) -> None:
    """Who was to go in a second waits for as long as a lower rate asks."""
    pace = Pace(clock, 100.0, 100)
    await pace.take(100)
    async with anyio.create_task_group() as group:
        group.start_soon(pace.take, 100)
        await anyio.sleep(0.5)
        pace.set_rate(10.0)
    # Owed: 100, of which 50 drained by then; the rest, less the slack, at the new rate.
    assert clock.monotonic() == pytest.approx(0.5 + (50 - 0.5) / 10, abs=0.002)


@pytest.mark.anyio
@pytest.mark.parametrize("nested", [False, True])
async def test_a_cancelled_waiter_has_taken_nothing(clock: VirtualClock, *, nested: bool) -> None:
    """Waiters that are cancelled, the first in line and others, cost those behind them nothing."""
    outer = Pace(clock, 100.0, 100)
    pace = Pace(clock, None, 100, outer) if nested else outer
    await pace.take(100)
    scopes = [anyio.CancelScope() for _ in range(10)]
    gone: Gone = []

    async def give_up(scope: anyio.CancelScope) -> None:
        with scope:
            await pace.take(100)
            gone.append((clock.monotonic(), 0))

    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(give_up, scope)
            await anyio.wait_all_tasks_blocked()
        group.start_soon(taker, clock, pace, gone, (0, 0, [100]))
        await anyio.sleep(0.5)
        for scope in (scopes[0], *scopes[2:]):
            scope.cancel()
    assert [at for at, _ in gone] == pytest.approx([0.95, 1.95], abs=0.003)


@pytest.mark.anyio
async def test_a_piece_larger_than_the_burst_is_paid_for_afterwards(clock: VirtualClock) -> None:
    """It goes when nothing is owed, and the next waits until it is worked off."""
    pace = Pace(clock, 100.0, 10)
    await pace.take(1000)
    assert clock.monotonic() == 0
    await pace.take(1000)
    assert clock.monotonic() == pytest.approx(10.0, abs=0.002)


@pytest.mark.anyio
async def test_requests_are_paced_alike(clock: VirtualClock) -> None:
    """A pace of pieces of one is so many requests a second."""
    pace = Pace(clock, 20.0, 1)
    for _ in range(201):
        await pace.take(1)
    assert clock.monotonic() == pytest.approx(10.0, rel=0.03)
