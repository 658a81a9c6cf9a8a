"""Remove versions and runs from a store's catalogue; what they named stays until it is collected.

A version that is removed leaves its manifest under another key: what it named is no garbage yet, since a delivery may
just have learnt from it that the store has it. `latest` stands for its number or a higher one, so that it is never
given out again. A run leaves a claim of what its records named.
"""

from collections.abc import Awaitable, Callable, Collection

from dropoff.answers import Doomed, Removed, VersionReport
from dropoff.ids import new_job_id
from dropoff.questions import VersionId
from dropoff.records import Manifest
from dropoffd.catalogue import keys, links
from dropoffd.catalogue.aliases import LATEST, advance, alias_of, alias_record
from dropoffd.catalogue.claims import claim, overwrite
from dropoffd.catalogue.inventory import Found, Scope, take_inventory
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.reading import read_manifest
from dropoffd.clock import Clock
from dropoffd.stores.base import (
    CorruptError,
    NotFoundError,
    Progress,
    RefusedError,
    Stat,
    Store,
    ignore_progress,
)

_TOLD_MOST, _USERS_TOLD_MOST = 500, 10
_CLAIMED_AT_ONCE = 10_000

Still = Callable[[], Awaitable[Collection[VersionId]]]


class Removal:
    """What is to be removed from one project."""

    def __init__(self, store: Store, project: str, clock: Clock, progress: Progress = ignore_progress) -> None:
        self._store = store
        self._clock = clock
        self._progress = progress
        self._project = project
        self._versions: list[Doomed] = []
        self._records: list[str] = []
        self._runs: list[str] = []

    async def add_version(self, version: VersionReport, reason: str) -> None:
        """Add a version."""
        one = version.id
        try:
            users = await links.users(self._store, one.project, one.artifact, one.number)
        except (CorruptError, RefusedError) as error:  # what is only shown keeps nobody from removing it
            used_by = [error.message]
        else:
            used_by = [f"{link.run_project}/{link.run}" for link in users[:_USERS_TOLD_MOST]]
            used_by += [f"{len(users) - _USERS_TOLD_MOST} more"] if len(users) > _USERS_TOLD_MOST else []
        self._versions.append(
            Doomed(
                id=one, size_bytes=version.size_bytes, reason=reason, aliases=version.aliases, used_by=tuple(used_by)
            )
        )

    async def add_run(self, run: str) -> None:
        """Add a run and all that it saved; versions that it made stay."""
        self._runs.append(run)
        self._records += [stat.key async for stat in self._store.list(keys.records_prefix(self._project, run))]

    async def run(self, *, apply: bool, still: Still | None = None) -> Removed:
        """Tell what would be removed, and with `apply` remove it, of versions those that are `still` to go then."""
        doomed = {keys.version_key(one.id.project, one.id.artifact, one.id.number) for one in self._versions}
        orphaned = await self._orphaned(doomed.union(self._records))
        if apply:
            if still is not None:
                unkept = await still()
                self._versions = [one for one in self._versions if one.id in unkept]
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
            manifest, data = await read_manifest(self._store, key)
        except NotFoundError:  # removed meanwhile
            return
        # Anew, also if an earlier try came so far: what it names stays from now on for as long as the grace is.
        await overwrite(self._store, keys.removed_key(one.project, one.artifact, one.number), data)
        await self._let_pass(one.artifact, one.number, manifest)
        for alias in doomed.aliases:
            await self._remove_alias(keys.alias_key(one.project, one.artifact, alias), alias, one.number)
        await self._store.delete(keys.state_key(one.project, one.artifact, one.number))
        await self._store.delete(key)

    async def _let_pass(self, artifact: str, number: int, manifest: Manifest) -> None:
        """Let `latest` be past a number: who made its version may not have come so far."""
        latest = alias_record(number, self._clock.now(), manifest.job)
        await advance(self._store, keys.alias_key(self._project, artifact, LATEST), latest)

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
        await self._claim(run)
        for key in sorted(found, key=lambda key: keys.holds(key) is Holds.RUN):
            await self._store.delete(key)

    async def _claim(self, run: str) -> None:
        """Claim what a run's records name: it is no garbage before the claim is old."""
        named: set[str] = set()

        async def note(_: Stat, found: Found) -> None:
            if not isinstance(found, CorruptError | RefusedError):
                named.update(entry.key for entry in found.entries)

        await take_inventory(self._store, Scope(project=self._project, run=run), note)
        ordered = sorted(named)
        for start in range(0, len(ordered), _CLAIMED_AT_ONCE):
            some = ordered[start : start + _CLAIMED_AT_ONCE]
            await claim(self._store, self._project, new_job_id(), some, self._clock.now())
