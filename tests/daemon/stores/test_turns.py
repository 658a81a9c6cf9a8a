"""Turns of the event loop: whoever sends, others get theirs, and in order."""

import asyncio

import pytest

from dropoffd.stores.turns import PIECES_A_TURN, Turns

pytestmark = pytest.mark.anyio

SENDERS, PIECES = 5, 8


async def _turns_passed(counted: list[int]) -> None:
    """Count the loop's turns, one by one."""
    while True:
        counted[0] += 1
        await asyncio.sleep(0)


async def test_only_a_few_go_in_each_turn() -> None:
    """However many send at once, no turn of the loop lets more go than it should, and all get through in order."""
    turns, counted = Turns(), [0]
    gone: list[tuple[int, int]] = []

    async def send(name: int) -> None:
        for _ in range(PIECES):
            await turns.take()
            gone.append((counted[0], name))

    counting = asyncio.create_task(_turns_passed(counted))
    await asyncio.gather(*(send(name) for name in range(SENDERS)))
    counting.cancel()
    assert len(gone) == SENDERS * PIECES
    assert counted[0] >= SENDERS * PIECES // PIECES_A_TURN - 1
    for turn in {turn for turn, _ in gone}:
        assert sum(one == turn for one, _ in gone) <= PIECES_A_TURN
    # Who has sent a piece comes after all who wait.
    names = [name for _, name in gone]
    assert names[PIECES_A_TURN : PIECES_A_TURN + SENDERS] == list(range(SENDERS))


async def test_who_gives_up_takes_no_turn() -> None:
    """A sender that is interrupted while it waits holds up nobody behind it."""
    turns = Turns()
    for _ in range(PIECES_A_TURN):
        await turns.take()
    given_up = [asyncio.create_task(turns.take()) for _ in range(2 * PIECES_A_TURN)]
    last = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    for one in given_up:
        one.cancel()
    async with asyncio.timeout(5):
        await last
