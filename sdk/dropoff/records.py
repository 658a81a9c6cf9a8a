"""The store format: what the JSON objects in a store hold. `docs/store-format.md` is the specification."""

import base64
from typing import Any

import msgspec

from dropoff.ids import JobId
from dropoff.messages import Category, Kind

STORE_FORMAT = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file: its name, where its bytes are, and what they are.

    `offset` is set for a file inside a pack: its bytes are `size` bytes of the object `key` from there.
    `path_base64` is set where the name is not UTF-8; `path` is then only for people.
    """

    path: str
    key: str
    size: int
    sha256: str
    mode: str
    mtime: str
    content_type: str = ""
    crc64nvme: str = ""
    offset: int | None = None
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


encode = msgspec.json.Encoder().encode
decode_record = msgspec.json.Decoder(Record).decode
decode_run = msgspec.json.Decoder(RunRecord).decode


def path_fields(raw: bytes) -> tuple[str, str | None]:
    """Return a name as JSON can hold it, and its bytes in base64 if that loses any."""
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), base64.b64encode(raw).decode()


def entry_path(entry: Entry) -> bytes:
    """Return the name's bytes."""
    return base64.b64decode(entry.path_base64) if entry.path_base64 else entry.path.encode()
