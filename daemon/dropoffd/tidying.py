"""Prune and collect now and then, for those who set that the daemon does."""

import logging

from dropoff.answers import Collected, Found, Removed
from dropoff.errors import DropoffError
from dropoff.questions import Collect, Find, Prune, Subject
from dropoffd.clock import Clock
from dropoffd.curator import Curator
from dropoffd.reader import Reader

_log = logging.getLogger(__name__)

GRACE_SECONDS = 7 * 86400.0


class Tidying:
    """Keeps a store tidy: every `every_seconds`, unless that is 0."""

    def __init__(self, reader: Reader, curator: Curator, clock: Clock, store: str, every_seconds: float) -> None:
        self._reader = reader
        self._curator = curator
        self._clock = clock
        self._store = store
        self._every = every_seconds

    async def run(self) -> None:
        """Tidy up again and again, until cancelled."""
        while self._every:
            await self._clock.sleep(self._every)
            await self.tidy_up()

    async def tidy_up(self) -> None:
        """Remove what no rule keeps, and what nothing names; what fails is said, and tried again the next time."""
        try:
            found = await self._reader.answer(Find(store=self._store, subject=Subject.PROJECT))
        except DropoffError as error:
            _log.warning("store not tidied up store=%s cause=%s", self._store, error.message)
            return
        for one in found.projects if isinstance(found, Found) else ():
            try:
                await self._tidy_up(one.project)
            except DropoffError as error:  # the others have nothing to do with it
                _log.warning("project not tidied up project=%s cause=%s", one.project, error.message)

    async def _tidy_up(self, project: str) -> None:
        if self._curator.has_rules:
            pruned = await self._curator.answer(Prune(store=self._store, project=project, apply=True))
            if isinstance(pruned, Removed) and pruned.versions:
                _log.info("pruned project=%s versions=%d", project, pruned.versions)
        collect = Collect(store=self._store, project=project, grace_seconds=GRACE_SECONDS, apply=True)
        collected = await self._curator.answer(collect)
        if isinstance(collected, Collected) and collected.removed:
            _log.info("collected project=%s bytes=%d", project, collected.removed_bytes)
