"""The store format: what the JSON objects in a store hold. `docs/store-format.md` is the specification."""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from dropoff.ids import JobId
from dropoff.questions import Role, VersionState
from dropoff.saves import Category, Kind

STORE_FORMAT = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file: its name, where its bytes are, and what they are.

    `offset` is set for a file inside a pack: its bytes are `size` bytes of the object `key` from there.
    `path_base64` is set where the name is not UTF-8; `path` is then only for people. `serializer` is set for an
    object: what it was written by.
    """

    path: str
    key: str
    size: int
    sha256: str
    mode: str
    mtime: str
    content_type: str = ""
    serializer: str = ""
    crc64nvme: str = ""
    offset: int | None = None
    path_base64: str | None = None


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something under a name in an artifact that lies elsewhere: what is known of it, and nobody's copy."""

    path: str
    uri: str
    size: int | None = None
    etag: str = ""
    uri_version: str = ""
    path_base64: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What one save of a run stored."""

    job: JobId
    project: str
    run: str
    kind: Kind
    name: str
    category: Category
    created: str
    entries: tuple[Entry, ...]
    format: int = STORE_FORMAT
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    skipped: tuple[str, ...] = ()
    source: str = ""
    prefix: str = ""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run: who made it, where and when."""

    project: str
    run: str
    created: str
    host: str
    user: str
    format: int = STORE_FORMAT
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    finished: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an artifact, whole: there is no version until its manifest is there."""

    project: str
    artifact: str
    type: str
    version: int
    digest: str
    size: int
    created: str
    job: JobId
    run: str
    entries: tuple[Entry, ...]
    references: tuple[Reference, ...] = ()
    format: int = STORE_FORMAT
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    ttl_seconds: float | None = None
    skipped: tuple[str, ...] = ()
    previous_sha256: str = ""
    """The sha256 of the manifest before this one, as it was read."""


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several writers brings to a version that is not there yet."""

    project: str
    artifact: str
    type: str
    group: str
    writer: str
    job: JobId
    run: str
    created: str
    entries: tuple[Entry, ...]
    references: tuple[Reference, ...] = ()
    format: int = STORE_FORMAT
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    skipped: tuple[str, ...] = ()


class GroupClosed(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing that is contributed from now on is sure to count."""

    job: JobId
    created: str
    format: int = STORE_FORMAT


class GroupFinished(msgspec.Struct, frozen=True, kw_only=True):
    """Which contributions, by their jobs, the version of a group is made of, and what its manifest says besides.

    `newest` was the number of the newest version, -1 for none: the group's has a later one.
    """

    job: JobId
    run: str
    created: str
    newest: int
    contributions: tuple[JobId, ...]
    format: int = STORE_FORMAT
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    ttl_seconds: float | None = None


class GroupDone(msgspec.Struct, frozen=True, kw_only=True):
    """Which version a group became."""

    version: int
    format: int = STORE_FORMAT


class AliasRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which version an alias stands for; replaced only by who knows what it stood for."""

    version: int
    changed: str
    job: str
    format: int = STORE_FORMAT


class StateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What state people said a version is in."""

    state: VersionState
    changed: str
    format: int = STORE_FORMAT


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Objects that a delivery found in the store and is about to name: they are no garbage."""

    job: str
    keys: tuple[str, ...]
    created: str
    format: int = STORE_FORMAT


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """Objects that are being removed as garbage right now: nobody may begin to count on them."""

    keys: tuple[str, ...]
    created: str
    format: int = STORE_FORMAT


class LinkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run made a version its output, or used it as its input."""

    role: Role
    run_project: str
    run: str
    project: str
    artifact: str
    version: int
    created: str
    format: int = STORE_FORMAT


encode = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
decode_run = msgspec.json.Decoder(RunRecord).decode
decode_manifest = msgspec.json.Decoder(Manifest).decode
decode_link = msgspec.json.Decoder(LinkRecord).decode
decode_contribution = msgspec.json.Decoder(Contribution).decode
decode_done = msgspec.json.Decoder(GroupDone).decode
decode_finished = msgspec.json.Decoder(GroupFinished).decode
decode_state = msgspec.json.Decoder(StateRecord).decode
decode_claim = msgspec.json.Decoder(Claim).decode
decode_sweep = msgspec.json.Decoder(Sweep).decode
decode_alias = msgspec.json.Decoder(AliasRecord).decode


def path_fields(raw: bytes) -> tuple[str, str | None]:
    """Return a name as JSON can hold it, and its bytes in base64 if that loses any."""
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), base64.b64encode(raw).decode()


def entry_path(entry: Entry | Reference) -> bytes:
    """Return the name's bytes."""
    return base64.b64decode(entry.path_base64) if entry.path_base64 else entry.path.encode()


def content_digest(entries: Iterable[Entry], references: Iterable[Reference]) -> str:
    """Return the sha256 of what an artifact holds: equal for the same files under the same names.

    `docs/store-format.md` defines it; times, modes and metadata do not count.
    """
    lines = [(entry_path(entry), b"sha256:" + entry.sha256.encode()) for entry in entries]
    lines += [
        (entry_path(one), "\n".join(("reference:" + one.uri, one.etag, one.uri_version)).encode())
        for one in references
    ]
    digest = hashlib.sha256(b"dropoff content 1\0")
    for path, content in sorted(lines):
        digest.update(path + b"\0" + content + b"\0")
    return digest.hexdigest()
