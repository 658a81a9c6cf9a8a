"""Reads a store as a stranger would: with `json`, `hashlib` and the file system, and none of our code."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any


def records(store: Path) -> dict[str, dict[str, Any]]:
    """Return every record and manifest in the store by the id of the job that made it."""
    found = {path.stem: json.loads(path.read_bytes()) for path in store.glob("*/runs/*/files/*.json")}
    return found | {manifest["job"]: manifest for manifest in manifests(store)}


def manifests(store: Path) -> list[dict[str, Any]]:
    """Return every version in the store; AssertionError if one does not say the number that its key says."""
    found = []
    for path in sorted(store.glob("*/artifacts/*/versions/*.json")):
        found.append(json.loads(path.read_bytes()))
        assert found[-1]["version"] == int(path.stem), f"{path} is not the version that it says"
    return found


def contents(store: Path) -> dict[str, dict[bytes, bytes]]:
    """Return, by job id, each file's name and bytes, checked against the size and sha256 of its entry."""
    return {
        job: {name(entry): content(store, entry) for entry in record["entries"]}
        for job, record in records(store).items()
    }


def name(entry: dict[str, Any]) -> bytes:
    """Return an entry's path in bytes."""
    raw = entry.get("path_base64")
    return base64.b64decode(raw) if raw else str(entry["path"]).encode()


def content(store: Path, entry: dict[str, Any]) -> bytes:
    """Return the bytes that an entry names; AssertionError if they are not what it says."""
    data = (store / str(entry["key"])).read_bytes()
    if entry.get("offset") is not None:
        data = data[entry["offset"] : entry["offset"] + entry["size"]]
    assert len(data) == entry["size"], f"{entry['key']} has {len(data)} bytes, its entry says {entry['size']}"
    assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{entry['key']} is not what its entry says"
    return data
