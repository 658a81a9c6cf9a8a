"""Copy a project, a run or an artifact to another store, under the same keys.

Nothing becomes visible in the target before all that it names is there. What is there already is not copied, so
whoever is interrupted says the same again. The source may be anybody's: what it says is checked before it is
believed, and nothing is written outside the project. Nothing is written to the source.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec

from dropoff.errors import NotStoredError, UsageError
from dropoffd.catalogue import keys
from dropoffd.catalogue.belongings import is_owner
from dropoffd.catalogue.lookup import find_version
from dropoffd.clock import Clock
from dropoffd.copying.contents import Contents
from dropoffd.copying.links import Links
from dropoffd.copying.passage import Passage
from dropoffd.copying.runs import Runs
from dropoffd.copying.tally import Copied, Tally
from dropoffd.copying.versions import Versions
from dropoffd.fetch.fetcher import Fetcher
from dropoffd.fetch.incoming import Incoming
from dropoffd.stores.base import NotFoundError, Store
from dropoffd.transfer.digest import Digester

_INCOMING = "copying"
_DIGESTS_AT_ONCE = 2
_OWNERS_MOST = 1_000_000


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be copied: all of a project, one run of it, or one artifact, of that all versions or one."""

    project: str
    run: str = ""
    artifact: str = ""
    which: str = ""


async def copy(source: Store, target: Store, scope: Scope, cache_dir: str, tally: Tally, clock: Clock) -> Copied:
    """Copy what belongs to `scope`, and return what came of it: conflicts and damage are in there.

    Raises NotStoredError where the source has nothing of it, StoreError where a store cannot be used, UsageError
    and OSError for what is wrong on this machine.
    """
    if source.url == target.url:
        raise UsageError("unable to copy a store onto itself", hint="name two stores")
    await target.prepare()
    with _incoming(cache_dir) as incoming:
        passage = Passage(source, target, incoming, Fetcher(clock), Digester(_DIGESTS_AT_ONCE), tally)
        contents = Contents(source, target, passage, tally, clock)
        links = Links(source, target, tally)
        runs = Runs(scope.project, source, target, contents, links, tally)
        versions = Versions(scope.project, source, target, contents, links, tally, clock)
        copying = _Copying(source, scope, runs, versions)
        if scope.artifact:
            await copying.artifact()
        elif scope.run:
            await copying.run()
        else:
            await copying.project()
    return tally.outcome(source.url, target.url, scope.project)


class _Copying:
    def __init__(self, source: Store, scope: Scope, runs: Runs, versions: Versions) -> None:
        self._source = source
        self._scope = scope
        self._runs = runs
        self._versions = versions

    async def project(self) -> None:
        """Copy all that a project has: what names a run after it, links at last."""
        of_artifacts, of_runs = keys.catalogue_prefixes(keys.project_prefix(self._scope.project))
        runs = [prefix async for prefix in self._owners(of_runs)]
        artifacts = [prefix async for prefix in self._owners(of_artifacts)]
        if not runs and not artifacts:
            raise self._not_stored(self._scope.project)
        runs = [prefix for prefix in runs if await self._runs.bring(prefix)]
        for prefix in artifacts:
            await self._versions.bring(prefix)
        for prefix in runs:
            await self._runs.bring_links(prefix)

    async def run(self) -> None:
        """Copy what a run saved, and the versions that it made."""
        prefix = keys.run_prefix(self._scope.project, self._scope.run)
        try:
            await self._source.head(f"{prefix}run.json")
        except NotFoundError:
            raise self._not_stored(f"{self._scope.project}/{self._scope.run}") from None
        if not await self._runs.bring(prefix):
            return
        for artifact, numbers in sorted((await self._runs.outputs(prefix)).items()):
            await self._versions.bring(keys.artifact_prefix(self._scope.project, artifact), numbers)
        await self._runs.bring_links(prefix)

    async def artifact(self) -> None:
        """Copy the versions of an artifact, or one."""
        project, artifact, chosen = self._scope.project, self._scope.artifact, None
        if self._scope.which:
            manifest, _ = await find_version(self._source, project, artifact, self._scope.which)
            chosen = {manifest.version}
        if not await self._versions.bring(keys.artifact_prefix(project, artifact), chosen):
            raise self._not_stored(f"{project}/{artifact}")

    async def _owners(self, prefix: str) -> AsyncIterator[str]:
        """Yield the prefix of each run, or of each artifact."""
        count = 0
        async for folder in self._source.folders(prefix):
            count += 1
            if count > _OWNERS_MOST:
                raise UsageError(f"unable to copy more than {_OWNERS_MOST} at once", hint="copy them one by one")
            if is_owner(prefix, folder):
                yield folder

    def _not_stored(self, name: str) -> NotStoredError:
        return NotStoredError(
            f"unable to find {name} in {self._source.url}: it is not there",
            hint="it is there once something of it is delivered: `dropoff status`; check the name",
        )


@contextmanager
def _incoming(cache_dir: str) -> Iterator[Incoming]:
    os.makedirs(cache_dir, exist_ok=True)
    root = os.open(cache_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        incoming = Incoming(root, _INCOMING)
        try:
            yield incoming
        finally:
            incoming.close()
    finally:
        os.close(root)
