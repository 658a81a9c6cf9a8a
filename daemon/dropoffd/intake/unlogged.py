"""Give up what was added to artifacts that nobody logged: whoever made them is gone."""

import logging
from typing import Protocol

from dropoffd.clock import Clock
from dropoffd.spool.spool import Spool

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 600.0


class Deliveries(Protocol):
    """What ends jobs."""

    async def cancel(self, seq: int) -> bool:
        """Give a job up; False if it had ended."""


class Unlogged:
    """Looks now and then for artifacts to which nothing was added for a long time."""

    def __init__(self, spool: Spool, deliveries: Deliveries, clock: Clock, keep_seconds: float) -> None:
        self._spool = spool
        self._deliveries = deliveries
        self._clock = clock
        self._keep_seconds = keep_seconds

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.give_up()
            await self._clock.sleep(_LOOK_SECONDS)

    async def give_up(self) -> None:
        """End what lies for too long."""
        for seq in await self._spool.unlogged(self._clock.now() - self._keep_seconds):
            if await self._deliveries.cancel(seq):
                _log.warning("addition given up: its artifact was never logged seq=%d", seq)
