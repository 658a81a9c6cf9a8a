"""Verify all that a project, a run or an artifact has: every object that its records and manifests name."""

import anyio

from dropoff.answers import Damage, Verified
from dropoff.records import Manifest
from dropoffd.catalogue.inventory import Found, Scope, take_inventory
from dropoffd.catalogue.lookup import Holdings, held_by, holdings
from dropoffd.fetch.deliver import File, file_of
from dropoffd.fetch.plan import Wanted
from dropoffd.fetch.verify import AT_ONCE, TOLD_MOST, find_damage
from dropoffd.stores.base import CorruptError, Progress, RefusedError, Stat, Store, ignore_progress


class Auditor:
    """One look at a store; a content that many versions have is looked at once."""

    def __init__(self, store: Store, *, read_data: bool, progress: Progress = ignore_progress) -> None:
        self._store = store
        self._progress = progress
        self._read_data = read_data
        self._places = anyio.CapacityLimiter(AT_ONCE)
        # Hashes: there may be millions, and for want of a match a content is merely looked at again.
        self._sound: set[int] = set()
        self._broken: dict[Wanted, str] = {}
        self._damage: list[Damage] = []
        self._damaged = self._looked_at = self._files = self._objects = self._read_bytes = 0

    async def run(self, scope: Scope) -> Verified:
        """Look at all in scope; raises StoreError where the store does not answer."""
        await take_inventory(self._store, scope, self._look)
        self._damage.sort(key=lambda one: (one.where, one.path))
        return Verified(
            files=self._files, objects=self._objects, read_bytes=self._read_bytes, damaged=self._damaged,
            damage=tuple(self._damage), looked_at=self._looked_at,
        )  # fmt: skip

    async def _look(self, stat: Stat, found: Found) -> None:
        key = stat.key
        self._looked_at += 1
        self._progress(1)
        try:
            if isinstance(found, CorruptError | RefusedError):
                raise found
            held = await holdings(found) if isinstance(found, Manifest) else held_by(found, key)
        except (CorruptError, RefusedError) as error:
            self._note(Damage(b"", key, error.message, key))
            return
        await self._look_at_all(key, _files(held))

    async def _look_at_all(self, where: str, files: list[File]) -> None:
        self._files += len(files)
        new = [one for one in files if hash(one.content) not in self._sound and one.content not in self._broken]
        found = await find_damage(self._store, new, self._places, read_data=self._read_data)
        self._objects += found.objects
        self._read_bytes += found.read_bytes
        causes = {one.path: one.cause for one in found.damage}
        self._broken |= {one.content: causes[one.path] for one in new if one.path in causes}
        self._sound |= {hash(one.content) for one in new if one.path not in causes}
        for one in files:
            if one.content in self._broken:
                self._note(Damage(one.path, one.content.key, self._broken[one.content], where))

    def _note(self, damage: Damage) -> None:
        self._damaged += 1
        if len(self._damage) < TOLD_MOST:
            self._damage.append(damage)


def _files(held: Holdings) -> list[File]:
    return [file_of(path, entry) for path, entry in held.entries.items()]
