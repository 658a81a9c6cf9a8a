"""Read back what a store has: runs, what they saved, versions of artifacts.

The daemon does the work and has the credentials; without one `UnavailableError` is raised, and `dropoff get` works
by itself. Everything here raises NotStoredError for what is not there, DamagedError for content that is not what was
stored, and RefusedError for trouble with the store.
"""

import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from dropoff import arguments
from dropoff.answers import (
    Changed,
    Link,
    LinkList,
    RecordList,
    RecordReport,
    RunReport,
    VersionReport,
)
from dropoff.artifact import alias_name, artifact_name
from dropoff.asking import ask
from dropoff.errors import DamagedError, UsageError
from dropoff.holding import Holding
from dropoff.questions import (
    FindRun,
    FindVersion,
    Links,
    Records,
    Role,
    RunId,
    SetAlias,
    VersionId,
)
from dropoff.saves import Category, Kind, RunInfo
from dropoff.settings import Settings, load, store_url

if TYPE_CHECKING:
    from dropoff.models import StoredModel

_WHICH = re.compile(r"(?:(?P<project>[^/:]+)/)?(?P<name>[^/:]+)(?::(?P<which>[^/:]+))?")
_PAGE = 1000


def open_run(project: str, name: str, *, store: str | None = None, settings: Settings | None = None) -> "StoredRun":
    """Look a run up in a store, by default that of the settings; raises NotStoredError."""
    settings = settings or load()
    run = RunId(store=store_url(store or settings.store), project=project, run=name)
    return StoredRun(settings, ask(settings, FindRun(run), RunReport))


def open_version(
    artifact: str,
    *,
    project: str = "default",
    store: str | None = None,
    settings: Settings | None = None,
    user: RunInfo | None = None,
) -> "StoredVersion":
    """Look a version up: "name:v3", "name:alias", "name" for the latest, each also after "project/".

    With `user` it is noted that this run uses it.
    """
    settings = settings or load()
    asked = version_named(artifact, project, store_url(store or settings.store))
    asked = msgspec.structs.replace(asked, user=user)
    return stored_version(settings, ask(settings, asked, VersionReport))


def stored_version(settings: Settings, report: VersionReport) -> "StoredVersion":
    """Return what a report tells of, a model as such."""
    from dropoff.models import MODEL, StoredModel  # noqa: PLC0415  # which is made of what is here

    return (StoredModel if report.artifact_type == MODEL else StoredVersion)(settings, report)


def version_named(text: str, project: str, store: str) -> FindVersion:
    """Return the question for what a person names as "name:v3", "name" or "project/name:alias"."""
    found = _WHICH.fullmatch(text)
    if found is None:
        raise UsageError(f"unable to use {text!r} as a version", hint="write it as name:v3, or project/name:alias")
    return FindVersion(
        store=store, project=found["project"] or project, artifact=artifact_name(found["name"]),
        which=found["which"] or "latest",
    )  # fmt: skip


class StoredRun:
    """A run in a store, as its own record tells it. Made by `open_run`."""

    def __init__(self, settings: Settings, report: RunReport) -> None:
        self._settings = settings
        self._id = report.id
        self.project = report.id.project
        self.name = report.id.run
        self.created = _time(report.created)
        self.finished = _time(report.finished) if report.finished else None
        self.host = report.host
        self.user = report.user
        self.tags = report.tags
        self.metadata = report.metadata

    def __repr__(self) -> str:
        return f"<StoredRun {self.project}/{self.name}>"

    def files(
        self,
        prefix: str = "",
        *,
        name: str = "",
        category: Category | str | None = None,
        tags: Iterable[str] = (),
    ) -> "list[StoredFile]":
        """Return what it saved, in the order of the calls; `prefix` is the beginning of names by whole folders."""
        asked = Records(
            run=self._id, prefix=prefix, name=name, tags=arguments.tags(tags), limit=_PAGE,
            category=None if category is None else arguments.choice(Category, category, "category"),
        )  # fmt: skip
        return [StoredFile(self._settings, report) for report in _records(self._settings, asked)]

    @property
    def artifacts(self) -> "dict[str, StoredVersion]":
        """The newest version of each artifact that it logged, by name."""
        return artifacts_of(self._settings, self._id)

    @property
    def models(self) -> "dict[str, list[StoredModel]]":
        """The models that it used, under "input", and made, under "output", in the order of their making."""
        from dropoff.models import models_of  # noqa: PLC0415  # which is made of what is here

        return models_of(self._settings, self._id)

    @property
    def links(self) -> tuple[Link, ...]:
        """Its lineage: which versions it made (`role` "output") and used ("input")."""
        return ask(self._settings, Links(self._id), LinkList).links


def run_id(run: RunInfo) -> RunId:
    """Return how a run that is going on is asked for."""
    return RunId(store=run.store, project=run.project, run=run.name)


def artifacts_of(settings: Settings, run: RunId) -> "dict[str, StoredVersion]":
    """Return the newest version of each artifact that a run logged, by name."""
    newest: dict[str, int] = {}
    for link in ask(settings, Links(run), LinkList).links:
        if link.role is Role.OUTPUT:
            newest[link.artifact] = max(link.version, newest.get(link.artifact, 0))
    return {
        name: open_version(f"{name}:v{number}", project=run.project, store=run.store, settings=settings)
        for name, number in newest.items()
    }


class StoredVersion(Holding):
    """A version of an artifact. Made by `Run.use_artifact` and `open_version`."""

    _id: VersionId

    def __init__(self, settings: Settings, report: VersionReport) -> None:
        super().__init__(settings, report.id)
        self.project = report.id.project
        self.name = report.id.artifact
        self.version = report.id.number
        self.type = report.artifact_type
        self.digest = report.digest
        self.size_bytes = report.size_bytes
        self.created = _time(report.created)
        self.run = report.run
        self.description = report.description
        self.tags = report.tags
        self.metadata = report.metadata
        self.ttl_seconds = report.ttl_seconds
        self.skipped = report.skipped
        self.aliases = report.aliases
        """Those that stood for it when it was found; empty where nobody looked them up."""
        self.unrecorded = report.unrecorded
        """Why its use could not be noted, such as credentials that may only read; empty if it was."""

    def __repr__(self) -> str:
        return f"<StoredVersion {self.project}/{self.name}:v{self.version} ({self.type})>"

    def get(self, name: str | bytes | None = None, *, allow_pickle: bool = False) -> Any:
        """Return the object that was added under `name`, with or without its ending; without a name, the only one.

        It is made by what wrote it; of a file that was added as such, by what its ending stands for. Nothing that is
        read is run, but for a pickle with `allow_pickle`. Raises UsageError for what is no object.
        """
        return self._object(name, allow_pickle=allow_pickle)

    @property
    def links(self) -> tuple[Link, ...]:
        """Its lineage: which run made it (`role` "output") and which used it ("input")."""
        return ask(self._settings, Links(self._id), LinkList).links

    def set_alias(self, alias: str) -> None:
        """Let an alias stand for this version from now on; `latest` cannot be set."""
        self._set_alias(alias, f"v{self.version}")

    def remove_alias(self, alias: str) -> None:
        """Take an alias of this artifact away, whichever version it stands for; raises NotStoredError."""
        self._set_alias(alias, "")

    def _set_alias(self, alias: str, which: str) -> None:
        asked = SetAlias(
            store=self._id.store, project=self.project, artifact=self.name, alias=alias_name(alias), which=which
        )
        ask(self._settings, asked, Changed)


class StoredFile(Holding):
    """What one save of a run stored: a file, or a directory of them."""

    def __init__(self, settings: Settings, report: RecordReport) -> None:
        super().__init__(settings, report.id)
        self.project = report.id.project
        self.run = report.id.run
        self.name = report.name
        self.kind = report.kind
        self.category = report.category
        self.created = _time(report.created)
        self.description = report.description
        self.tags = report.tags
        self.metadata = report.metadata
        self.size_bytes = report.size_bytes
        self.files = report.files
        self.sha256 = report.sha256
        """Empty for a directory; its entries have theirs."""

    def __repr__(self) -> str:
        return f"<StoredFile {self.name}>"

    def get_local_copy(self) -> str:
        """Return the path in the cache of the file, or of the directory that holds it under its name; read-only.

        It is the cache's: what was not used for longest goes when the cache is full. `download` is for keeps.
        """
        place = super().get_local_copy()
        # Not the name, which is for people: that of the file need not be text.
        return os.path.join(place, os.fsdecode(self.entries[0].path)) if self.kind is Kind.FILE else place

    def get(self, *, allow_pickle: bool = False) -> Any:
        """Return the object that was saved; as for a version's `get`."""
        if self.kind is not Kind.FILE:
            raise UsageError(
                f"unable to get {self!r}: it is a directory", hint="take a local copy, or open its files"
            )
        return self._object(None, allow_pickle=allow_pickle)


def _records(settings: Settings, asked: Records) -> Iterator[RecordReport]:
    while True:
        page = ask(settings, asked, RecordList)
        yield from page.records
        if not page.more:
            return
        asked = msgspec.structs.replace(asked, after=page.more)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DamagedError(f"unable to use {text!r} as a time", hint="somebody changed the store by hand") from None
