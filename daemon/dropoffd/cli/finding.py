"""The commands that look around in a store: `ls` one step at a time, `find` by what things are."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from dropoff.answers import EntryList, EntryReport, Found, RecordReport, RunReport, VersionReport
from dropoff.conditions import conditions
from dropoff.errors import UsageError
from dropoff.names import display, printable
from dropoff.questions import Entries, Find, Subject
from dropoff.reading import version_named
from dropoff.saves import Category
from dropoff.settings import Settings, load
from dropoffd.cli import text
from dropoffd.cli.reading import answer, store_named
from dropoffd.errors import Exit

_PAGE = 1000


def ls(arguments: argparse.Namespace) -> int:
    """List what a store, a project, a run, an artifact or a version has."""
    settings = load()
    store = store_named(settings, arguments.store)
    project, _, rest = arguments.what.partition("/")
    if arguments.run and (rest or not project):
        raise UsageError("unable to list a run without its project", hint="write `dropoff ls PROJECT --run RUN`")
    if rest and not project:
        raise UsageError(f"unable to list {arguments.what!r}: it has no project", hint="write PROJECT/NAME")
    if not project:
        return _projects(settings, store, arguments)
    if arguments.run:
        return _tell(
            arguments, _found(settings, Find(store=store, subject=Subject.FILE, project=project, run=arguments.run))
        )
    name, _, which = rest.partition(":")
    if which:
        return _entries(settings, store, arguments)
    if name:
        return _tell(
            arguments, _found(settings, Find(store=store, subject=Subject.VERSION, project=project, name=name))
        )
    runs = _found(settings, Find(store=store, subject=Subject.RUN, project=project))
    versions = _found(settings, Find(store=store, subject=Subject.VERSION, project=project, newest=True))
    return _tell(arguments, [*runs, *versions])


def find(arguments: argparse.Namespace) -> int:
    """Look for runs, files or versions."""
    settings = load()
    asked = Find(
        store=store_named(settings, arguments.store), subject=Subject(arguments.kind), project=arguments.project,
        run=arguments.run, name=arguments.name, artifact_type=arguments.type, prefix=arguments.prefix,
        category=Category(arguments.category) if arguments.category else None, tags=tuple(arguments.tag),
        where=conditions(arguments.where), since=_moment(arguments.since), until=_moment(arguments.until),
        newest=arguments.newest,
    )  # fmt: skip
    return _tell(arguments, _found(settings, asked, arguments.limit))


def _found(settings: Settings, asked: Find, limit: int | None = None) -> Iterator[Any]:
    left = limit
    while left is None or left > 0:
        asked = msgspec.structs.replace(asked, limit=_PAGE if left is None else min(_PAGE, left))
        page = answer(settings, asked, Found)
        if not asked.after:
            for trouble in page.unreadable:
                print(f"dropoff: not looked at: {printable(trouble)}", file=sys.stderr)
        some: Sequence[object] = (*page.runs, *page.files, *page.versions)
        yield from some
        if not page.more:
            return
        left = None if left is None else left - len(some)
        asked = msgspec.structs.replace(asked, after=page.more)


def _projects(settings: Settings, store: str, arguments: argparse.Namespace) -> int:
    found = answer(settings, Find(store=store, subject=Subject.PROJECT), Found).projects
    rows = [("PROJECT", "RUNS", "FILES", "VERSIONS", "SIZE", "CHANGED")]
    rows += [
        (one.project, str(one.runs), str(one.files), str(one.versions), text.size(one.size_bytes), _when(one.changed))
        for one in found
    ]
    _print(arguments, found, rows)
    return Exit.OK


def _entries(settings: Settings, store: str, arguments: argparse.Namespace) -> int:
    version = answer(settings, version_named(arguments.what, "", store), VersionReport)
    entries: list[EntryReport] = []
    while True:
        after = entries[-1].path if entries else b""
        page = answer(settings, Entries(of=version.id, after=after, limit=_PAGE), EntryList)
        entries += page.entries
        if not page.more:
            break
    rows = [("SIZE", "SHA256", "NAME")]
    rows += [
        (
            text.size(one.size_bytes) if one.size_bytes is not None else "",
            one.sha256[:16] or "reference",
            display(one.path) + (f" -> {one.uri}" if one.uri else ""),
        )
        for one in entries
    ]
    _print(arguments, entries, rows)
    return Exit.OK


def _tell(arguments: argparse.Namespace, found: Iterable[Any]) -> int:
    shown = list(found)
    rows = [("KIND", "CREATED", "SIZE", "WHERE", "NAME")]
    rows += map(_row, shown)
    _print(arguments, shown, rows)
    return Exit.OK


def _row(one: RunReport | RecordReport | VersionReport) -> tuple[str, str, str, str, str]:
    if isinstance(one, RunReport):
        return "run", _when(one.created), "", one.id.project, one.id.run + _tags(one.tags)
    if isinstance(one, RecordReport):
        where = f"{one.id.project}/{one.id.run}"
        return one.kind.value, _when(one.created), text.size(one.size_bytes), where, one.name + _tags(one.tags)
    name = f"{one.id.artifact}:v{one.id.number}"
    aliases = f" ({', '.join(one.aliases)})" if one.aliases else ""
    return (
        one.artifact_type,
        _when(one.created),
        text.size(one.size_bytes),
        one.id.project,
        name + aliases + _tags(one.tags),
    )


def _print(arguments: argparse.Namespace, found: Sequence[object], rows: Sequence[Sequence[str]]) -> None:
    if arguments.json:
        print(text.json(found))
    elif found:
        print(text.aligned(rows))
    else:
        print("nothing found")


def _tags(tags: Iterable[str]) -> str:
    return "".join(f" #{tag}" for tag in tags)


def _when(created: str) -> str:
    try:
        return text.moment(datetime.fromisoformat(created).timestamp())
    except ValueError:  # somebody else's
        return created


def _moment(written: str) -> float | None:
    """Return the seconds since the epoch of "2026-11-26", "2026-11-26T08:00", or "3d" ago; None for nothing."""
    if not written:
        return None
    try:
        return time.time() - text.seconds(written)
    except UsageError:  # no span, but perhaps a moment
        pass
    try:
        return datetime.fromisoformat(written).timestamp()
    except ValueError:
        raise UsageError(
            f"unable to use {written!r} as a time", hint="write a date, 2026-11-26T08:00, or 3d for three days ago"
        ) from None
