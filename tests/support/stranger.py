"""Somebody who has docs/store-format.md, a JSON parser and a way to get objects: none of our code is used here."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Shelves(Protocol):
    """A way to get objects."""

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        """Return an object, or some of it; None if there is none."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix."""


class Bucket:
    """Objects below a prefix of a bucket, by botocore."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        """Return an object, or some of it; None if there is none."""
        if size == 0:  # no range is empty
            return b""
        span = {} if size is None else {"Range": f"bytes={start}-{start + size - 1}"}
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **span)
        except self._client.exceptions.NoSuchKey:
            return None
        data: bytes = found["Body"].read()
        if size is None and ("/files/" in key or "/packs/" in key) and "/runs/" not in key:
            assert found["Metadata"]["sha256"] == hashlib.sha256(data).hexdigest()
        return data

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        return [item["Key"].removeprefix(self._prefix) for page in pages for item in page.get("Contents", [])]


class Directory:
    """Objects as files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str, start: int = 0, size: int | None = None) -> bytes | None:
        """Return an object, or some of it; None if there is none."""
        try:
            with (self._root / key).open("rb") as file:
                file.seek(start)
                return file.read(-1 if size is None else size)
        except FileNotFoundError:
            return None

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix."""
        found = (str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix))


def component(name: str) -> str:
    """Return a name as a component of a key."""
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()"
    encoded = "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in name.encode())
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def version(shelves: Shelves, project: str, artifact: str, alias: str = "latest") -> dict[str, Any]:
    """Return the manifest that an alias stands for; of `latest` the newest there is."""
    root = f"{component(project)}/artifacts/{component(artifact)}"
    number = json.loads(shelves.get(f"{root}/aliases/{component(alias)}.json") or b"null")["version"]
    found = shelves.get(f"{root}/versions/{number:06d}.json")
    while alias == "latest" and (newer := shelves.get(f"{root}/versions/{number + 1:06d}.json")):
        found, number = newer, number + 1
    manifest: dict[str, Any] = json.loads(found or b"null")
    assert (manifest["format"], manifest["version"]) == (1, number)
    assert digest(manifest) == manifest["digest"]
    return manifest


def digest(manifest: dict[str, Any]) -> str:
    """Return the digest of what a manifest lists."""
    lines = [(path(one), b"sha256:" + one["sha256"].encode()) for one in manifest["entries"]]
    for one in manifest["references"]:
        parts = ("reference:" + one["uri"], one.get("etag", ""), one.get("uri_version", ""))
        lines.append((path(one), "\n".join(parts).encode()))
    found = hashlib.sha256(b"dropoff content 1\0")
    for name, content in sorted(lines):
        found.update(name + b"\0" + content + b"\0")
    return found.hexdigest()


def path(entry: dict[str, Any]) -> bytes:
    """Return the name of a file or a reference."""
    raw = entry.get("path_base64")
    return base64.b64decode(raw) if raw else str(entry["path"]).encode()


def files(shelves: Shelves, entries: list[dict[str, Any]]) -> dict[bytes, bytes]:
    """Return files by name; AssertionError if one is not what its entry says."""
    found = {}
    for entry in entries:
        data = shelves.get(entry["key"], *((entry["offset"], entry["size"]) if "offset" in entry else ()))
        assert data is not None, entry
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"]), entry
        found[path(entry)] = data
    return found


def records(shelves: Shelves, project: str, run: str) -> Iterator[dict[str, Any]]:
    """Yield what a run saved, in the order of the calls."""
    for key in shelves.keys(f"{component(project)}/runs/{component(run)}/files/"):
        yield json.loads(shelves.get(key) or b"null")
