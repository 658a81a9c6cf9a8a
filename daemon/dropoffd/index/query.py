"""What is asked of the index, as SQL, and what it answers, as reports."""

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from dropoff.answers import Found, ProjectReport, RecordReport, RunReport, VersionReport
from dropoff.questions import Find, RecordId, RunId, Subject, VersionId, VersionState
from dropoff.saves import Category, Kind
from dropoffd.catalogue.publish import moment
from dropoffd.index.conditions import meets
from dropoffd.index.rows import text
from dropoffd.paging import page

_MOST = 1000
# Of one version; as many, and as long, fit into an answer with all else.
_ALIASES_MOST = 200
_PATTERN = frozenset("*?[")
# Between the two halves of what a page ends with; no key has it.
_CUT = "\0"

_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_plain = msgspec.json.Decoder(dict[str, Any]).decode

_TABLES = {Subject.RUN: "runs", Subject.FILE: "files", Subject.VERSION: "versions"}
_NAMES = {Subject.RUN: "run", Subject.FILE: "name", Subject.VERSION: "name"}


# Of what people said nothing of, nobody said that it is more than a draft.
_STATE = (
    "ifnull((SELECT state FROM states AS s WHERE s.folder = t.folder AND s.number = t.number),"
    f" '{VersionState.DRAFT.value}')"
)


class _Clauses:
    """What stands behind WHERE, and the values for its marks."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: list[object] = []

    def add(self, text: str, *values: object) -> None:
        """Add one more that has to be true."""
        self.texts.append(text)
        self.values += values

    def add_name(self, column: str, name: str) -> None:
        """Add that a column has a name, or one of a pattern; an empty one is any."""
        if _PATTERN & set(name):  # or it has brackets and is none
            self.add(f"({column} GLOB ? OR {column} = ?)", name, name)
        elif name:
            self.add(f"{column} = ?", name)

    def __str__(self) -> str:
        return " AND ".join(self.texts) or "1"


def find(connection: sqlite3.Connection, asked: Find) -> Found:
    """Return one page of what was asked for."""
    if asked.subject is Subject.PROJECT:
        return Found(projects=tuple(_projects(connection, asked)))
    connection.create_function("meets", 1, lambda metadata: meets(metadata, asked.where), deterministic=True)
    clauses = _clauses(asked)
    table, limit = _TABLES[asked.subject], max(1, min(asked.limit, _MOST))
    aliases = (
        "(SELECT json_group_array(alias) FROM (SELECT alias FROM aliases AS a"
        f" WHERE a.folder = t.folder AND a.number = t.number LIMIT {_ALIASES_MOST}))"
    )
    columns = f"*, {aliases} AS aliases, {_STATE} AS state" if asked.subject is Subject.VERSION else "*"
    cursor = connection.execute(
        f"SELECT {columns} FROM {table} AS t WHERE {clauses} ORDER BY created DESC, key DESC LIMIT ?",
        (*clauses.values, limit + 1),
    )
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    shown = page(_REPORTS[asked.subject](asked.store, row) for row in rows[:limit])
    more = f"{rows[len(shown) - 1]['created']}{_CUT}{rows[len(shown) - 1]['key']}" if len(rows) > len(shown) else ""
    return _found(asked.subject, tuple(shown), more)


def _found(subject: Subject, shown: tuple[Any, ...], more: str) -> Found:
    if subject is Subject.RUN:
        return Found(runs=shown, more=more)
    return Found(files=shown, more=more) if subject is Subject.FILE else Found(versions=shown, more=more)


def _clauses(asked: Find) -> _Clauses:
    clauses, name = _Clauses(), _NAMES[asked.subject]
    if asked.project:
        clauses.add("project = ?", asked.project)
    if asked.run:
        clauses.add("run = ?", asked.run)
    clauses.add_name(name, asked.name)
    for tag in asked.tags:
        # Looking for its text first spares most rows the parsing, which alone is exact.
        clauses.add("instr(tags, ?)", text(tag))
        clauses.add("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)", tag)
    if asked.since is not None:
        clauses.add("created >= ?", moment(asked.since))
    if asked.until is not None:
        clauses.add("created < ?", moment(asked.until))
    if asked.where:
        clauses.add("meets(metadata)")
    if asked.subject is Subject.FILE:
        _of_files(asked, clauses)
    if asked.subject is Subject.VERSION:
        _of_versions(asked, clauses)
    if asked.after:
        clauses.add("(created, key) < (?, ?)", *asked.after.rpartition(_CUT)[::2])
    return clauses


def _of_files(asked: Find, clauses: _Clauses) -> None:
    if asked.category is not None:
        clauses.add("category = ?", asked.category.value)
    if asked.prefix:
        folder = asked.prefix.rstrip("/") + "/"
        clauses.add("substr(path || '/', 1, ?) = ?", len(folder), folder)


def _of_versions(asked: Find, clauses: _Clauses) -> None:
    if asked.artifact_type:
        clauses.add("type = ?", asked.artifact_type)
    if asked.job:
        clauses.add("job = ?", asked.job)
    if asked.states:
        clauses.add(f"{_STATE} IN ({', '.join('?' * len(asked.states))})", *(one.value for one in asked.states))
    if asked.newest:
        clauses.add("number = (SELECT max(number) FROM versions AS v WHERE v.folder = t.folder)")


def _projects(connection: sqlite3.Connection, asked: Find) -> list[ProjectReport]:
    clauses = _Clauses()
    clauses.add_name("project", asked.name)
    rows = connection.execute(
        "SELECT project, sum(run), sum(file), sum(version), CAST(total(size_bytes) AS INTEGER), max(created) FROM ("
        " SELECT project, created, 1 AS run, 0 AS file, 0 AS version, 0 AS size_bytes FROM runs"
        " UNION ALL SELECT project, created, 0, 1, 0, size_bytes FROM files"
        " UNION ALL SELECT project, created, 0, 0, 1, size_bytes FROM versions"
        f") WHERE {clauses} GROUP BY project ORDER BY project",
        clauses.values,
    )
    return [
        ProjectReport(project=project, runs=runs, files=files, versions=versions, size_bytes=size, changed=changed)
        for project, runs, files, versions, size, changed in rows
    ]


def _run(store: str, row: dict[str, Any]) -> RunReport:
    return RunReport(
        id=RunId(store=store, project=row["project"], run=row["run"]), created=row["created"], host=row["host"],
        user=row["user"], tags=_texts(row["tags"]), metadata=_plain(row["metadata"]), finished=row["finished"],
    )  # fmt: skip


def _file(store: str, row: dict[str, Any]) -> RecordReport:
    return RecordReport(
        id=RecordId(store=store, project=row["project"], run=row["run"], job=row["job"]), name=row["name"],
        kind=Kind(row["kind"]), category=Category(row["category"]), created=row["created"],
        description=row["description"], tags=_texts(row["tags"]), metadata=_plain(row["metadata"]),
        size_bytes=row["size_bytes"], files=row["files"], sha256=row["sha256"],
    )  # fmt: skip


def _version(store: str, row: dict[str, Any]) -> VersionReport:
    return VersionReport(
        id=VersionId(
            store=store, project=row["project"], artifact=row["name"], number=row["number"], sha256=row["sha256"]
        ),
        artifact_type=row["type"], digest=row["digest"], size_bytes=row["size_bytes"], files=row["files"],
        references=row["pointers"], created=row["created"], run=row["run"], description=row["description"],
        tags=_texts(row["tags"]), metadata=_plain(row["metadata"]), ttl_seconds=row["ttl_seconds"],
        skipped=_texts(row["skipped"]), job=row["job"], aliases=tuple(sorted(_texts(row["aliases"]))),
        state=VersionState(row["state"]),
    )  # fmt: skip


_REPORTS: dict[Subject, Callable[[str, dict[str, Any]], object]] = {
    Subject.RUN: _run,
    Subject.FILE: _file,
    Subject.VERSION: _version,
}
