"""A gate lets so many in, and everybody in turn."""

import random
import statistics

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.virtual import VirtualClock, run_virtually
from dropoffd.limits.concurrency import Concurrency
from dropoffd.limits.gate import Gate
from dropoffd.limits.pace import PIECE_BYTES, Pace

pytestmark = pytest.mark.anyio


def fixed(clock: VirtualClock, places: int) -> Gate:
    """Return a gate whose limit stays."""
    return Gate(clock, Concurrency(places, places, places))


async def test_so_many_and_no_more(clock: VirtualClock) -> None:
    """Of a hundred that want in, never more than the limit are in, and never fewer while others wait."""
    gate = fixed(clock, 7)
    inside: list[int] = []

    async def enter(number: int) -> None:
        async with gate.place("run"):
            await anyio.sleep(1 + number % 3)
            inside.append(gate.holders)

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(enter, number)
    assert set(inside[:-7]) == {7}
    assert (len(inside), gate.holders) == (100, 0)


async def test_a_file_of_one_run_does_not_wait_for_anothers_thousand(clock: VirtualClock) -> None:
    """Runs take turns, each in order of arrival; one that comes late has its turn after one of each."""
    gate = fixed(clock, 1)
    order: list[tuple[str, int]] = []

    async def enter(run: str, number: int) -> None:
        async with gate.place(run):
            order.append((run, number))
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(enter, "long", number)
        for number in range(3):
            group.start_soon(enter, "short", number)
        group.start_soon(enter, "single", 0)
    assert order[:8] == [
        ("long", 0), ("long", 1), ("short", 0), ("single", 0), ("long", 2), ("short", 1), ("long", 3), ("short", 2),
    ]  # fmt: skip
    assert [number for run, number in order if run == "long"] == list(range(1000))


async def test_a_lower_limit_waits_for_those_inside(clock: VirtualClock) -> None:
    """After throttling nobody enters before enough have left; nobody inside is disturbed."""
    gate = Gate(clock, Concurrency(1, 8, 8))
    entered: list[float] = []

    async def enter(number: int) -> None:
        async with gate.place("run"):
            entered.append(clock.monotonic())
            await anyio.sleep(number % 8 + 1)

    async with anyio.create_task_group() as group:
        for number in range(9):
            group.start_soon(enter, number)
        await anyio.sleep(0.5)
        gate.throttled()
        assert (gate.limit, gate.holders) == (4, 8)
    assert entered == [0] * 8 + [5]


async def test_a_higher_limit_lets_in_at_once(clock: VirtualClock) -> None:
    """As soon as it is known that more streams pay, more enter, though nobody left."""
    gate = Gate(clock, Concurrency(1, 16, 4))
    async with anyio.create_task_group() as group:

        async def send() -> None:
            async with gate.place("run"):
                for _ in range(100):
                    await anyio.sleep(0.2)
                    gate.finished(1000)

        for _ in range(16):
            group.start_soon(send)
        await anyio.sleep(19)
        assert gate.holders == gate.limit > 10


async def test_few_that_are_busy_raise_nothing(clock: VirtualClock) -> None:
    """Two senders behind a gate for four leave its limit alone, however fast they become."""
    gate = Gate(clock, Concurrency(1, 16, 4))

    async def send() -> None:
        async with gate.place("run"):
            for number in range(1000):
                await anyio.sleep(0.1)
                gate.finished(number**2)

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        group.start_soon(send)
    assert gate.limit == 4


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32), st.integers(1, 40))
def test_whoever_gives_up_leaves_no_trace(places: int, seed: int, many: int) -> None:
    """Cancelled while waiting, just admitted or inside, in any order: places are neither lost nor made."""

    async def main() -> None:
        chance = random.Random(seed)
        gate = fixed(VirtualClock(), places)
        scopes = [anyio.CancelScope() for _ in range(many)]
        most = 0

        async def enter(scope: anyio.CancelScope) -> None:
            nonlocal most
            with scope:
                async with gate.place(chance.randrange(3)):
                    most = max(most, gate.holders)
                    await anyio.sleep(chance.choice([0, 1, 2]))

        async with anyio.create_task_group() as group:
            for scope in scopes:
                group.start_soon(enter, scope)
            for _ in range(many):
                await anyio.sleep(chance.choice([0, 0, 1]))
                chance.choice(scopes).cancel()
        assert most <= places
        assert gate.holders == 0
        assert gate._waiting == {}
        with anyio.fail_after(0.1):
            for _ in range(places):
                await gate._enter("run")

    run_virtually(main)


async def test_a_link_is_filled_by_parts_in_flight(clock: VirtualClock) -> None:
    """Two runs' parts over a link that ten streams fill: the limit finds it, the link is full, the runs get alike."""
    gate = Gate(clock, Concurrency(1, 64, 4))
    limits: list[int] = []
    sent = {"one": 0, "two": 0}

    async def part(run: str) -> None:
        async with gate.place(run):
            for _ in range(16):
                size = 1 << 18
                await anyio.sleep(size / 1e6 * max(1, gate.holders / 10))
                gate.finished(size)
                sent[run] += size
                limits.append(gate.limit)

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(part, "one")
        for _ in range(500):
            group.start_soon(part, "two")
        await anyio.sleep(200)
        assert 9 <= statistics.mean(limits[-2000:]) <= 15
        assert sum(sent.values()) >= 0.9 * 10e6 * 200
        assert sent["one"] == pytest.approx(sent["two"], rel=0.1)
        group.cancel_scope.cancel()


async def test_a_slow_pace_is_shared_by_few(clock: VirtualClock) -> None:
    """Places are no more than the pace has pieces a second, and at least one; unlimited, they are the limit's."""
    pace = Pace(clock, None, PIECE_BYTES, within=Pace(clock, None, PIECE_BYTES))
    gate = Gate(clock, Concurrency(1, 16, 16), pace)
    assert gate.limit == 16
    for rate, places in ((10_000, 1), (3 * PIECE_BYTES, 3), (100 * PIECE_BYTES, 16), (None, 16)):
        pace.set_rate(rate)
        assert gate.limit == places
