"""Turns of the event loop: only so many pieces of bodies go out in each, whoever sends them.

A body is sent without a pause for as long as its socket takes it and its content is cached. To a quick server that
was 20 ms for a part of 8 MiB, and a save that came meanwhile waited for two of them.
"""

import asyncio
from collections import deque

# Half a millisecond of work, with pieces of 256 KiB. With four a save waits half as long again.
PIECES_A_TURN = 2


class Turns:
    """Lets a few in each turn of the running loop, in the order in which they came."""

    def __init__(self) -> None:
        self._left = PIECES_A_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def take(self) -> None:
        """Return in the present turn or, when it has had enough, in one of the next."""
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)
        if self._left:
            self._left -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _renew(self) -> None:
        self._left = PIECES_A_TURN
        self._renewing = bool(self._waiting)
        while self._waiting and self._left:
            place = self._waiting.popleft()
            if not place.done():  # else somebody gave up
                place.set_result(None)
                self._left -= 1
        if self._renewing:
            asyncio.get_running_loop().call_soon(self._renew)
