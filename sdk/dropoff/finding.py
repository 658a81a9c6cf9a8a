"""Find what stores have: projects, runs, saved files and versions of artifacts.

The daemon keeps an index of each store that was asked about. It follows the store whenever somebody asks, so that an
answer knows of all that was stored before; a first question about a large store takes as long as reading all its
records. Everything here raises UnavailableError without a daemon, and RefusedError for trouble with the store.
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec

from dropoff import arguments
from dropoff.answers import Found, ProjectReport
from dropoff.asking import ask
from dropoff.conditions import conditions
from dropoff.errors import UsageError
from dropoff.names import printable
from dropoff.questions import Find, Subject
from dropoff.reading import StoredFile, StoredRun, StoredVersion, stored_version
from dropoff.saves import Category
from dropoff.settings import Settings, load, store_url

_PAGE = 500

Moment = datetime | float


def projects(
    name: str = "", *, store: str | None = None, settings: Settings | None = None
) -> tuple[ProjectReport, ...]:
    """Return the projects of a store, by name; `name` may be a pattern such as "cv-*"."""
    settings, find = asked(Subject.PROJECT, store, settings, name=name)
    return tuple(project for page in pages(settings, find) for project in page.projects)


def find_runs(
    project: str = "",
    name: str = "",
    *,
    tags: Iterable[str] = (),
    where: str | Iterable[str] = (),
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    store: str | None = None,
    settings: Settings | None = None,
) -> list[StoredRun]:
    """Return runs that are all of this, the newest first.

    `name` may be a pattern such as "resnet-*"; all `tags` are wanted; `where` are conditions on metadata such as
    "lr<0.1"; `since` and `until` are datetimes, or seconds since the epoch.
    """
    settings, find = asked(
        Subject.RUN, store, settings, project=project, name=name, tags=arguments.tags(tags),
        where=conditions(where), since=seconds(since), until=seconds(until),
    )  # fmt: skip
    return [StoredRun(settings, report) for page in pages(settings, find, limit) for report in page.runs]


def find_files(
    project: str = "",
    run: str = "",
    name: str = "",
    *,
    prefix: str = "",
    category: Category | str | None = None,
    tags: Iterable[str] = (),
    where: str | Iterable[str] = (),
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    store: str | None = None,
    settings: Settings | None = None,
) -> list[StoredFile]:
    """Return what runs saved, the newest first; `prefix` is the beginning of names by whole folders.

    The other arguments are as for `find_runs`.
    """
    settings, find = asked(
        Subject.FILE, store, settings, project=project, run=run, name=name, prefix=prefix,
        category=None if category is None else arguments.choice(Category, category, "category"),
        tags=arguments.tags(tags), where=conditions(where), since=seconds(since), until=seconds(until),
    )  # fmt: skip
    return [StoredFile(settings, report) for page in pages(settings, find, limit) for report in page.files]


def find_versions(
    project: str = "",
    name: str = "",
    type: str = "",  # noqa: A002  # the word of every user of artifacts
    *,
    run: str = "",
    newest: bool = False,
    tags: Iterable[str] = (),
    where: str | Iterable[str] = (),
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int | None = None,
    store: str | None = None,
    settings: Settings | None = None,
) -> list[StoredVersion]:
    """Return versions of artifacts, the newest first; with `newest` only the newest of each artifact.

    `name` is the artifact's, `run` the run that made them. The other arguments are as for `find_runs`.
    """
    settings, find = asked(
        Subject.VERSION, store, settings, project=project, name=name, artifact_type=type, run=run, newest=newest,
        tags=arguments.tags(tags), where=conditions(where), since=seconds(since), until=seconds(until),
    )  # fmt: skip
    return [stored_version(settings, report) for page in pages(settings, find, limit) for report in page.versions]


def asked(subject: Subject, store: str | None, settings: Settings | None, **wanted: Any) -> tuple[Settings, Find]:
    """Return the settings, and the question to the store that is named, or theirs."""
    settings = settings or load()
    return settings, Find(store=store_url(store or settings.store), subject=subject, **wanted)


def pages(settings: Settings, find: Find, limit: int | None = None) -> Iterator[Found]:
    """Yield the answer page by page, up to a limit; warn of what could not be read."""
    left = limit
    while left is None or left > 0:
        find = msgspec.structs.replace(find, limit=_PAGE if left is None else min(_PAGE, left))
        found = ask(settings, find, Found)
        if found.unreadable and not find.after:
            warnings.warn("not looked at: " + "; ".join(map(printable, found.unreadable)), stacklevel=4)
        yield found
        if not found.more:
            return
        left = None if left is None else left - len(found.runs) - len(found.files) - len(found.versions)
        find = msgspec.structs.replace(find, after=found.more)


def seconds(moment: Moment | None) -> float | None:
    """Return a moment in seconds since the epoch."""
    at = moment.timestamp() if isinstance(moment, datetime) else moment
    if at is not None and math.isnan(at):
        raise UsageError(f"unable to use {moment!r} as a time", hint="give a datetime, or seconds since the epoch")
    return at
