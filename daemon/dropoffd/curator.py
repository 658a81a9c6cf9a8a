"""Change what a store's catalogue says, when a person asks for it."""

import glob
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from dropoff.answers import Answer, Changed, Collected, Removed, VersionReport
from dropoff.artifact import alias_name
from dropoff.errors import DamagedError, NotStoredError, SettingsError, UsageError
from dropoff.ids import new_job_id
from dropoff.questions import Collect, Curating, Find, Prune, Remove, RunId, SetAlias, SetState, Subject, VersionId
from dropoff.records import StateRecord, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import LATEST, alias_record, let_stand, take_away
from dropoffd.catalogue.claims import overwrite
from dropoffd.catalogue.lookup import find_project, find_run, find_version
from dropoffd.catalogue.publish import moment
from dropoffd.catalogue.retention import Rule, parse, rule_for, unkept
from dropoffd.clock import Clock
from dropoffd.collecting import GRACE_LEAST_SECONDS, Collector
from dropoffd.index.index import Indexes
from dropoffd.reader import Opens
from dropoffd.removing import Removal
from dropoffd.stores.base import CorruptError, Progress, Store, ignore_progress

_PAGE = 1000


class Curator:
    """Curates stores for everybody."""

    def __init__(self, stores: Opens, indexes: Indexes, clock: Clock, rules: str = "") -> None:
        """Make one that keeps, unless asked otherwise, what `rules`, a setting, say; raises SettingsError."""
        self._stores = stores
        self._indexes = indexes
        self._clock = clock
        try:
            self._rules = parse(rules)
        except UsageError as error:
            raise SettingsError(f"unable to use the setting `retention`: {error.message}", hint=error.hint) from None
        self._table: dict[type, Callable[[Any, Progress], Awaitable[Answer]]] = {
            SetAlias: self._set_alias,
            SetState: self._set_state,
            Remove: self._remove,
            Prune: self._prune,
            Collect: self._collect,
        }

    @property
    def has_rules(self) -> bool:
        """Whether the setting has any."""
        return bool(self._rules)

    async def answer(self, request: Curating, progress: Progress = ignore_progress) -> Answer:
        """Do what is asked, and tell `progress` of what was looked at.

        Raises NotStoredError, DamagedError, UsageError and StoreError.
        """
        try:
            return await self._table[type(request)](request, progress)
        except CorruptError as error:
            raise DamagedError(error.message, hint=error.hint) from error

    async def _set_alias(self, asked: SetAlias, progress: Progress) -> Changed:  # noqa: ARG002  # one small object
        alias = alias_name(asked.alias)
        if alias == LATEST:
            raise UsageError(f"unable to move {LATEST!r}: it stands for the newest version", hint="use another alias")
        store = await self._stores.open(asked.store)
        key = keys.alias_key(asked.project, asked.artifact, alias)
        if not asked.which:
            if not await take_away(store, key):
                raise NotStoredError(f"unable to remove the alias {alias!r} of {asked.artifact!r}: there is none")
            return Changed()
        await store.prepare()
        manifest, _ = await find_version(store, asked.project, asked.artifact, asked.which)
        await let_stand(store, key, alias_record(manifest.version, self._clock.now(), new_job_id()))
        return Changed(number=manifest.version)

    async def _set_state(self, asked: SetState, progress: Progress) -> Changed:  # noqa: ARG002  # same
        store = await self._stores.open(asked.store)
        await store.prepare()
        manifest, _ = await find_version(store, asked.project, asked.artifact, asked.which)
        said = StateRecord(state=asked.state, changed=moment(self._clock.now()))
        await overwrite(store, keys.state_key(asked.project, asked.artifact, manifest.version), encode(said))
        return Changed(number=manifest.version)

    async def _remove(self, asked: Remove, progress: Progress) -> Removed:
        if bool(asked.run) == bool(asked.artifact):
            raise UsageError("unable to remove nothing, or a run and an artifact at once", hint="name one of them")
        store = await self._stores.open(asked.store)
        await store.prepare()
        removal = Removal(store, asked.project, self._clock, progress)
        if asked.run:
            await find_run(store, RunId(store=asked.store, project=asked.project, run=asked.run))
            await removal.add_run(asked.run)
        else:
            for version in await self._wanted(store, asked):
                await removal.add_version(version, "as asked")
        return await removal.run(apply=asked.apply)

    async def _wanted(self, store: Store, asked: Remove) -> list[VersionReport]:
        versions = await self._versions(store, asked.project, asked.artifact)
        if asked.which:
            manifest, _ = await find_version(store, asked.project, asked.artifact, asked.which)
            versions = [one for one in versions if one.id.number == manifest.version]
        if not versions:
            raise NotStoredError(f"unable to find {asked.project}/{asked.artifact} in {store.url}: it has no version")
        return versions

    async def _prune(self, asked: Prune, progress: Progress) -> Removed:
        rules = parse(asked.rules) if asked.rules else self._rules
        if not rules:
            raise UsageError(
                "unable to prune without rules of what to keep",
                hint="give --keep, or set `retention`: see the README",
            )
        store = await self._stores.open(asked.store)
        await store.prepare()
        removal = Removal(store, asked.project, self._clock, progress)
        for version, rule in await self._unkept(store, asked, rules):
            await removal.add_version(version, f"no clause of {rule.pattern} keeps it")

        async def still() -> set[VersionId]:
            # To find out what else names content may have taken long, and somebody given a version an alias.
            return {version.id for version, _ in await self._unkept(store, asked, rules)}

        return await removal.run(apply=asked.apply, still=still)

    async def _unkept(self, store: Store, asked: Prune, rules: Sequence[Rule]) -> list[tuple[VersionReport, Rule]]:
        by_artifact: dict[str, list[VersionReport]] = {}
        for version in await self._versions(store, asked.project, asked.artifact):
            by_artifact.setdefault(version.id.artifact, []).append(version)
        return [
            (version, rule)
            for artifact, versions in by_artifact.items()
            if (rule := rule_for(rules, asked.project, artifact)) is not None
            for version in unkept(rule, versions, self._clock.now())
        ]

    async def _versions(self, store: Store, project: str, artifact: str) -> list[VersionReport]:
        found: list[VersionReport] = []
        # A name is taken as a pattern there, and what is to be removed is named as it is.
        name = glob.escape(artifact)
        asked = Find(store=store.url, subject=Subject.VERSION, project=project, name=name, limit=_PAGE)
        while True:
            page = await self._indexes.find(store, asked)
            found += page.versions
            if not page.more:
                return found
            asked = msgspec.structs.replace(asked, after=page.more)

    async def _collect(self, asked: Collect, progress: Progress) -> Collected:
        if asked.grace_seconds < GRACE_LEAST_SECONDS:
            raise UsageError(
                f"unable to collect garbage that is younger than {GRACE_LEAST_SECONDS / 3600:.0f} hours",
                hint="deliveries that are under way may need it; give --grace 1d or more",
            )
        store = await self._stores.open(asked.store)
        await find_project(store, asked.project)
        collector = Collector(store, asked.project, asked.grace_seconds, self._clock, progress)
        return await collector.run(apply=asked.apply)
