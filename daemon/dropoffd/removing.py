"""Remove versions and runs from a store's catalogue; what they named stays until it is collected.

A version that is removed leaves its manifest under another key: its number is never given out again, and what it
named is no garbage yet, since a delivery may just have learnt from it that the store has it.
"""

import contextlib

from dropoff.answers import Doomed, Removed, VersionReport
from dropoffd.catalogue import keys, links
from dropoffd.catalogue.aliases import LATEST, alias_of
from dropoffd.catalogue.inventory import Found, Scope, take_inventory
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.publish import create
from dropoffd.catalogue.reading import read_manifest
from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    NotFoundError,
    Progress,
    RefusedError,
    Stat,
    Store,
    ignore_progress,
)

_TOLD_MOST = 500


class Removal:
    """What is to be removed from one project."""

    def __init__(self, store: Store, project: str, progress: Progress = ignore_progress) -> None:
        self._store = store
        self._progress = progress
        self._project = project
        self._versions: list[Doomed] = []
        self._records: list[str] = []
        self._runs: list[str] = []

    async def add_version(self, version: VersionReport, reason: str) -> None:
        """Add a version."""
        one = version.id
        users = await links.users(self._store, one.project, one.artifact, one.number)
        used_by = [f"{link.run_project}/{link.run}" for link in users]
        self._versions.append(
            Doomed(
                id=one, size_bytes=version.size_bytes, reason=reason, aliases=version.aliases, used_by=tuple(used_by)
            )
        )

    async def add_run(self, run: str) -> None:
        """Add a run and all that it saved; versions that it made stay."""
        self._runs.append(run)
        self._records += [stat.key async for stat in self._store.list(keys.records_prefix(self._project, run))]

    async def run(self, *, apply: bool) -> Removed:
        """Tell what would be removed, and with `apply` remove it."""
        doomed = {keys.version_key(one.id.project, one.id.artifact, one.id.number) for one in self._versions}
        orphaned = await self._orphaned(doomed.union(self._records))
        if apply:
            for one in self._versions:
                await self._remove_version(one)
            for run in self._runs:
                await self._remove_run(run)
        return Removed(
            versions=len(self._versions), records=len(self._records), orphaned=len(orphaned),
            orphaned_bytes=sum(orphaned.values()), doomed=tuple(self._versions[:_TOLD_MOST]), applied=apply,
        )  # fmt: skip

    async def _orphaned(self, doomed: set[str]) -> dict[str, int]:
        """Return the objects that nothing but the doomed names, with how much of them is named."""
        theirs: dict[str, int] = {}
        others: set[str] = set()

        async def sort(stat: Stat, found: Found) -> None:
            self._progress(1)
            if isinstance(found, CorruptError | RefusedError):
                return
            for entry in found.entries:
                if stat.key not in doomed:
                    others.add(entry.key)
                elif entry.offset is None:
                    theirs[entry.key] = entry.size
                else:  # in a pack
                    theirs[entry.key] = theirs.get(entry.key, 0) + entry.size

        await take_inventory(self._store, Scope(project=self._project), sort)
        return {key: size for key, size in theirs.items() if key not in others}

    async def _remove_version(self, doomed: Doomed) -> None:
        one = doomed.id
        key = keys.version_key(one.project, one.artifact, one.number)
        try:
            _, data = await read_manifest(self._store, key)
        except NotFoundError:  # removed meanwhile
            return
        with contextlib.suppress(AlreadyExistsError):  # an earlier try came so far
            await create(self._store, keys.removed_key(one.project, one.artifact, one.number), data)
        for alias in doomed.aliases:
            await self._remove_alias(keys.alias_key(one.project, one.artifact, alias), alias, one.number)
        await self._store.delete(keys.state_key(one.project, one.artifact, one.number))
        await self._store.delete(key)

    async def _remove_alias(self, key: str, alias: str, number: int) -> None:
        # `latest` stays: it tells which number comes next.
        if alias != LATEST:
            found = await alias_of(self._store, key)
            if found is not None and found.version == number:
                await self._store.delete(key)

    async def _remove_run(self, run: str) -> None:
        """Remove a run; its own record last, so that what is interrupted can be found and done again."""
        await links.remove_uses(self._store, self._project, run)
        prefix = keys.run_prefix(self._project, run)
        found = [stat.key async for stat in self._store.list(prefix)]
        for key in sorted(found, key=lambda key: keys.holds(key) is Holds.RUN):
            await self._store.delete(key)
