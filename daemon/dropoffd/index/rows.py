"""What the index keeps of a record, a manifest, a run or an alias; checked against the key that it stands under."""

import sqlite3
from typing import Any

import msgspec

from dropoff.records import AliasRecord, Manifest, Record, RunRecord, StateRecord
from dropoff.saves import Kind
from dropoff.wire import FRAME_MAX_BYTES
from dropoffd.catalogue import keys
from dropoffd.index.schema import TABLES
from dropoffd.stores.base import CorruptError

Row = tuple[str, dict[str, Any]]

_json = msgspec.json.Encoder().encode
_plain = msgspec.json.Decoder(dict[str, Any]).decode
_wire = msgspec.msgpack.Encoder().encode
# What a save says fits into a frame, with room for what an answer tells besides.
_MOST_BYTES = FRAME_MAX_BYTES - (96 << 10)
_LEVELS_MOST = 100
_NUMBER_MOST = (1 << 63) - 1
_TROUBLE_MOST = 500


def of_run(key: str, run: RunRecord) -> Row:
    """Return the row of a run."""
    _check(key, f"{keys.run_prefix(run.project, run.run)}run.json")
    return "runs", {
        "project": run.project, "run": run.run, "created": run.created, "tags": text(run.tags),
        "metadata": text(run.metadata), "host": run.host, "user": run.user, "finished": run.finished,
    }  # fmt: skip


def of_record(key: str, record: Record) -> Row:
    """Return the row of what a save stored."""
    _check(key, f"{keys.records_prefix(record.project, record.run)}{record.job}.json")
    first = record.entries[0].sha256 if record.kind is Kind.FILE and record.entries else ""
    return "files", {
        "project": record.project, "run": record.run, "created": record.created, "tags": text(record.tags),
        "metadata": text(record.metadata), "job": record.job, "kind": record.kind.value, "name": record.name,
        "path": f"{record.prefix}/{record.name}" if record.prefix else record.name,
        "category": record.category.value, "description": record.description,
        "size_bytes": sum(entry.size for entry in record.entries), "files": len(record.entries), "sha256": first,
    }  # fmt: skip


def of_manifest(key: str, manifest: Manifest, sha256: str) -> Row:
    """Return the row of a version; `sha256` is that of the manifest as it was read."""
    _check(key, keys.version_key(manifest.project, manifest.artifact, manifest.version))
    return "versions", {
        "project": manifest.project, "run": manifest.run, "created": manifest.created, "tags": text(manifest.tags),
        "metadata": text(manifest.metadata), "folder": keys.artifact_folder(key), "name": manifest.artifact,
        "number": manifest.version, "type": manifest.type, "job": manifest.job, "digest": manifest.digest,
        "sha256": sha256, "description": manifest.description, "size_bytes": manifest.size,
        "files": len(manifest.entries), "pointers": len(manifest.references), "ttl_seconds": manifest.ttl_seconds,
        "skipped": text(manifest.skipped),
    }  # fmt: skip


def of_alias(key: str, alias: AliasRecord) -> Row:
    """Return the row of an alias."""
    return "aliases", {
        "folder": keys.artifact_folder(key), "alias": keys.alias_name(key), "number": alias.version
    }  # fmt: skip


def of_state(key: str, state: StateRecord) -> Row:
    """Return the row of a version's state; raises CorruptError for a key that names no version."""
    number = keys.version_number(key)
    if number is None:
        raise CorruptError(f"unable to use {key}: it names no version")
    return "states", {"folder": keys.artifact_folder(key), "number": number, "state": state.state.value}


def text(value: object) -> str:
    """Return tags or metadata as the index has them."""
    return _json(value).decode()


def check(key: str, row: Row) -> None:
    """Raise CorruptError for a row that no answer could carry: for its sake nothing else could be found either."""
    _, values = row
    metadata = _plain(values.get("metadata", "{}"))
    try:
        size = len(_wire({**values, "metadata": metadata}))
    except (OverflowError, RecursionError):
        size = _MOST_BYTES + 1
    numbers = [value for value in values.values() if isinstance(value, int)]
    if size > _MOST_BYTES or _is_deep(metadata) or not all(0 <= number <= _NUMBER_MOST for number in numbers):
        raise CorruptError(
            f"unable to use {key}: it says more than any call of ours could store", hint="somebody made it by hand"
        )


def _is_deep(metadata: dict[str, Any]) -> bool:
    layer: list[Any] = [metadata]
    for _ in range(_LEVELS_MOST):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(layer)


def put(connection: sqlite3.Connection, key: str, etag: str, row: Row | None, trouble: str) -> None:
    """Keep what an object says, or why it says nothing, in place of what was kept of it."""
    remove(connection, key)
    connection.execute("INSERT INTO objects VALUES (?, ?, ?)", (key, etag, trouble[:_TROUBLE_MOST]))
    if row is not None:
        table, values = row
        marks = ", ".join("?" * (len(values) + 1))
        connection.execute(
            f"INSERT INTO {table} (key, {', '.join(values)}) VALUES ({marks})", (key, *values.values())
        )


def remove(connection: sqlite3.Connection, key: str) -> None:
    """Forget an object."""
    for table in ("objects", *TABLES):
        connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))


def _check(key: str, own: str) -> None:
    if key != own:
        raise CorruptError(f"unable to use {key}: it says that it is {own}", hint="somebody moved it by hand")
