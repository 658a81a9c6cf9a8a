"""Bring artifacts: versions in the order of their numbers, each after all content that it names; then aliases.

A number that is another version's in the target is a conflict: then both have gone their own ways, and nothing of
the artifact is brought. Looked for before anything is copied, and found by create-if-absent if it comes meanwhile.
"""

from collections.abc import Collection
from functools import partial

import msgspec

from dropoff.records import Manifest, decode_alias, decode_manifest, decode_state
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import LATEST, advance, alias_of, alias_record
from dropoffd.catalogue.belongings import Kind, holders, number_of
from dropoffd.catalogue.lookup import holdings
from dropoffd.catalogue.newest import newest_standing, newest_version
from dropoffd.catalogue.reading import MANIFEST_MAX_BYTES, read, read_bytes, read_manifest
from dropoffd.clock import Clock
from dropoffd.copying.contents import Contents
from dropoffd.copying.links import Links
from dropoffd.copying.objects import DAMAGE, ConflictError, check_time, follow, has_same, listed, make, misplaced
from dropoffd.copying.several import each, several
from dropoffd.copying.tally import Tally
from dropoffd.stores.base import NotFoundError, Store

_AT_ONCE = 16


class _Lot(msgspec.Struct):
    """What belongs to an artifact in the source: keys of versions and aliases, and those of links by number."""

    versions: dict[int, str] = {}
    removed: set[int] = set()
    states: dict[int, str] = {}
    aliases: list[str] = []
    uses: dict[int, list[str]] = {}


class Versions:
    """Brings a project's artifacts from `source` to `target`."""

    def __init__(
        self, project: str, source: Store, target: Store, contents: Contents, links: Links, tally: Tally, clock: Clock
    ) -> None:
        self._project = project
        self._source = source
        self._target = target
        self._contents = contents
        self._links = links
        self._tally = tally
        self._clock = clock

    async def bring(self, prefix: str, chosen: Collection[int] | None = None) -> bool:
        """Bring an artifact, or those of its versions, and note what could not be; False if there are none."""
        lot = await self._look(prefix)
        numbers = lot.versions.keys() if chosen is None else lot.versions.keys() & chosen
        for number in sorted(set(chosen or ()) - numbers):
            self._tally.damage(f"{prefix} v{number}", "it is not in the source")
        lot.versions = {number: lot.versions[number] for number in sorted(numbers)}
        there = await self._bring_versions(lot)
        if chosen is not None or not there:
            lot.removed = set()
        uses = [key for number in sorted(there) for key in lot.uses.get(number, ())]
        await several(each(uses), self._links.bring, _AT_ONCE)
        await self._bring_changing(lot, there)
        return bool(numbers)

    async def _bring_versions(self, lot: _Lot) -> set[int]:
        """Return the numbers of those that the target has then; none of them if there is a conflict."""
        survey = await self._survey(lot)
        if survey is None:
            return set()
        there, missing = survey
        for number in missing:
            key = lot.versions[number]
            try:
                brought = await self._bring_version(key)
            except ConflictError as error:
                self._tally.conflict(key, error.message)
                return set()
            except (NotFoundError, *DAMAGE) as error:
                self._tally.damage(key, error.message)
            else:
                self._tally.versions += brought
                self._tally.removed += not brought
                there |= {number} if brought else set()
        return there

    async def _look(self, prefix: str) -> _Lot:
        lot = _Lot()
        async for kind, stat in listed(self._source, prefix):
            key, number = stat.key, number_of(prefix, stat.key)
            if kind is Kind.MANIFEST:
                lot.versions[number] = key
            elif kind is Kind.REMOVED:
                lot.removed.add(number)
            elif kind is Kind.STATE:
                lot.states[number] = key
            elif kind is Kind.USE:
                lot.uses.setdefault(number, []).append(key)
            elif kind is Kind.ALIAS:
                lot.aliases.append(key)
            elif kind is None:
                self._tally.unknown += 1
        return lot

    async def _survey(self, lot: _Lot) -> tuple[set[int], list[int]] | None:
        """Return which numbers the target has and which it lacks; None if it has another version under one."""
        there: set[int] = set()
        missing: list[int] = []
        conflicts: dict[str, str] = {}

        async def look(item: tuple[int, str]) -> None:
            number, key = item
            try:
                if await has_same(self._source, self._target, key):
                    there.add(number)
                else:
                    missing.append(number)
            except NotFoundError:  # removed since the listing
                return
            except ConflictError as error:
                conflicts[key] = error.message

        await several(each(lot.versions.items()), look, _AT_ONCE)
        self._tally.present += len(there)
        for key, cause in sorted(conflicts.items()):
            self._tally.conflict(key, cause)
        return None if conflicts else (there, sorted(missing))

    async def _bring_version(self, key: str) -> bool:
        """Bring a version; False if the target has removed it, which is final."""
        data = await read_bytes(self._source, key, MANIFEST_MAX_BYTES)
        manifest = read(data, decode_manifest, key)
        if keys.version_key(manifest.project, manifest.artifact, manifest.version) != key:
            raise misplaced(key)
        if await self._is_removed(manifest):
            return False
        await holdings(manifest)
        await self._check_type(manifest)
        named = holders(self._project, manifest.entries, key)
        await self._contents.name(self._project, named, partial(make, self._target, key, data))
        return True

    async def _is_removed(self, one: Manifest) -> bool:
        try:
            await self._target.head(keys.removed_key(one.project, one.artifact, one.version))
        except NotFoundError:
            return False
        return True

    async def _check_type(self, ours: Manifest) -> None:
        newest = (await newest_version(self._target, ours.project, ours.artifact)).manifest
        if newest is None:  # removed, perhaps; those before may be there
            newest = (await newest_standing(self._target, ours.project, ours.artifact)).manifest
        if newest is not None and newest.type != ours.type:
            raise ConflictError(f"it is a {ours.type!r}, and in {self._target.url} a {newest.type!r}")

    async def _bring_changing(self, lot: _Lot, there: Collection[int]) -> None:
        """Bring what people say of versions that are there: states and aliases."""
        states = [lot.states[number] for number in sorted(there) if number in lot.states]
        for key in (*states, *lot.aliases):
            try:
                if key in states:
                    await follow(self._source, self._target, key, decode_state)
                else:
                    await self._bring_alias(key, there, lot.removed)
            except NotFoundError:  # removed since the listing
                continue
            except DAMAGE as error:
                self._tally.damage(key, error.message)
        if there:
            # The source's own may be behind, or stand for what was not chosen.
            newest, _ = await read_manifest(self._source, lot.versions[max(there)])
            latest = alias_record(newest.version, self._clock.now(), newest.job)
            await advance(self._target, keys.alias_key(newest.project, newest.artifact, LATEST), latest)

    async def _bring_alias(self, key: str, there: Collection[int], removed: Collection[int]) -> None:
        alias = await alias_of(self._source, key)
        latest = key.endswith(f"/{LATEST}.json")
        # A number that was removed is not given out again, also not in a copy.
        if alias is None or not (alias.version in there or (latest and alias.version in removed)):
            return
        if latest:
            check_time(alias.changed, key)
            await advance(self._target, key, alias)
        else:
            await follow(self._source, self._target, key, decode_alias)
