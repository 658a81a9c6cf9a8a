"""Bring what records and manifests name, and have it named: each object once, and while nobody removes it.

What the target has already may be garbage that is about to be collected. So it is claimed before it is named, as
deliveries do it (`catalogue/claims.py`).
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence

import anyio

from dropoff.errors import DamagedError
from dropoff.ids import new_job_id
from dropoffd.catalogue.belongings import Holder
from dropoffd.catalogue.claims import claimed, is_proven
from dropoffd.clock import Clock
from dropoffd.copying.passage import SMALL_AT_ONCE, Passage
from dropoffd.copying.several import each, several
from dropoffd.copying.tally import Tally
from dropoffd.errors import VanishedError
from dropoffd.fetch.plan import Wanted
from dropoffd.fetch.reading import damaged
from dropoffd.fetch.verify import sha256_of
from dropoffd.stores.base import Create, Mode, NotFoundError, Overwrite, Stat, Store

_TRIES = 3
# What versions have in common is looked for once.
_KNOWN_MOST = 200_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Contents:
    """Brings what holders name from `source` to `target`."""

    def __init__(self, source: Store, target: Store, passage: Passage, tally: Tally, clock: Clock) -> None:
        self._source = source
        self._target = target
        self._passage = passage
        self._tally = tally
        self._clock = clock
        self._proven_at: dict[Holder, float] = {}
        self._coming: dict[str, anyio.Event] = {}

    async def name(self, project: str, holders: Sequence[Holder], make: Callable[[], Awaitable[None]]) -> None:
        """Bring holders, and have them named: `make` runs while nobody removes any of them as garbage.

        Raises DamagedError for what the source has not as it should be, CorruptError for what the target makes of
        it, other StoreErrors, VanishedError, and UsageError where this machine's disk is too small.
        """
        for left in reversed(range(_TRIES)):
            found = await self._bring_all(holders)
            began = self._clock.now()
            try:
                async with claimed(self._target, project, new_job_id(), found, began):
                    await make()
            except VanishedError as error:
                self._proven_at = {one: at for one, at in self._proven_at.items() if one.key not in error.keys}
                if not left:
                    raise
            else:
                self._proven_at |= dict.fromkeys(holders, began)
                return

    async def _bring_all(self, holders: Iterable[Holder]) -> set[str]:
        """Bring holders; return the keys of those that were there, and of which nobody made sure lately."""
        found: set[str] = set()

        async def bring(one: Holder) -> None:
            if not is_proven(await self._bring(one), self._clock.now()):
                found.add(one.key)

        await several(each(holders), bring, SMALL_AT_ONCE)
        return found

    async def _bring(self, one: Holder) -> float:
        """Bring one; return when it was sent or made sure of."""
        while one.key in self._coming:
            await self._coming[one.key].wait()
        if one not in self._proven_at:
            come, began = anyio.Event(), self._clock.now()
            self._coming[one.key] = come
            try:
                sent = await self._bring_alone(one)
            finally:
                del self._coming[one.key]
                come.set()
            if len(self._proven_at) >= _KNOWN_MOST:
                self._proven_at.clear()
            self._proven_at[one] = began if sent else 0.0
        return self._proven_at[one]

    async def _bring_alone(self, one: Holder) -> bool:
        """Bring one that is not known to be there; tell whether it was sent just now, where there was nothing."""
        mode: Mode = Create()
        try:
            found = await self._target.stat(one.key)
            if one.is_in(found):
                self._tally.objects_present += 1
                await self._passage.tidy(one.key, found.size_bytes)
                return False
            mode = Overwrite()  # somebody damaged it: the key says what belongs there
        except NotFoundError:
            pass
        return await self._passage.carry(await self._wanted(one), mode)

    async def _wanted(self, one: Holder) -> Wanted:
        """Return what is to be fetched; of a pack the source has to tell all of the digest, or to be read for it."""
        if not one.packed:
            return Wanted(sha256=one.sha256, size_bytes=one.size_bytes, key=one.key)
        try:
            noted = await self._source.head(one.key)
        except NotFoundError as error:
            raise DamagedError(f"unable to copy {one.key}: it is not in the store") from error
        wanted = Wanted(sha256=noted.sha256, size_bytes=noted.size_bytes, key=one.key)
        if not _SHA256.fullmatch(noted.sha256):
            wanted = Wanted(sha256=await sha256_of(self._source, wanted), size_bytes=noted.size_bytes, key=one.key)
        if not one.is_in(Stat(key=one.key, size_bytes=wanted.size_bytes, etag="", sha256=wanted.sha256)):
            raise damaged(Wanted(sha256=one.sha256, size_bytes=one.size_bytes, key=one.key))
        return wanted
