"""What is answered to who asks of stores."""

from typing import Any

import msgspec

from dropoff.messages import JobReply, decoded
from dropoff.questions import RecordId, Role, RunId, VersionId, VersionState
from dropoff.saves import Category, Kind


class VersionReport(msgspec.Struct, frozen=True, kw_only=True, tag="version-report"):
    """A version, without its files. `unrecorded` tells why its use could not be noted."""

    id: VersionId
    artifact_type: str
    digest: str
    size_bytes: int
    files: int
    references: int
    created: str
    run: str
    description: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    ttl_seconds: float | None
    skipped: tuple[str, ...]
    unrecorded: str = ""
    job: str = ""
    aliases: tuple[str, ...] = ()
    """Those that stand for it, where they were looked up."""
    state: VersionState = VersionState.DRAFT
    """As people said, where it was looked up."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True, tag="run-report"):
    """A run as its own record tells it."""

    id: RunId
    created: str
    host: str
    user: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    finished: str | None


class RecordReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one save stored. `sha256` is empty for a directory."""

    id: RecordId
    name: str
    kind: Kind
    category: Category
    created: str
    description: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    size_bytes: int
    files: int
    sha256: str


class RecordList(msgspec.Struct, frozen=True, tag="record-list"):
    """Some of what a run saved; there is more after the job `more`, unless that is empty."""

    records: tuple[RecordReport, ...]
    more: str = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A run made a version its output, or used it as its input."""

    role: Role
    run_project: str
    run: str
    project: str
    artifact: str
    version: int
    created: str


class LinkList(msgspec.Struct, frozen=True, tag="link-list"):
    """A lineage."""

    links: tuple[Link, ...]


class EntryReport(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or with `uri` something that lies elsewhere."""

    path: bytes
    size_bytes: int | None
    sha256: str = ""
    mode: str = ""
    mtime: str = ""
    content_type: str = ""
    serializer: str = ""
    uri: str = ""
    etag: str = ""


class EntryList(msgspec.Struct, frozen=True, tag="entry-list"):
    """Some files; `more` tells that others come after the last."""

    entries: tuple[EntryReport, ...]
    more: bool = False


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched"):
    """What a `Fetch` or `Stream` did: `fetched_bytes` came from the store, the rest was here.

    `place` is in the cache; `sha256` is what a stream's bytes should have.
    """

    files: int
    size_bytes: int
    fetched_bytes: int
    place: str = ""
    sha256: str = ""


class Damage(msgspec.Struct, frozen=True):
    """A file whose bytes are not in the store as they should be."""

    path: bytes
    key: str
    cause: str
    where: str = ""
    """Which record or manifest names it, where several were looked at."""


class Verified(msgspec.Struct, frozen=True, kw_only=True, tag="verified"):
    """What a `Verify` or `Audit` found; of very much damage only some is told, `damaged` counts all.

    `looked_at` counts records and manifests.
    """

    files: int
    objects: int
    read_bytes: int
    damaged: int
    damage: tuple[Damage, ...]
    looked_at: int = 1


class ProjectReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a project has; `changed` is when the newest of it was saved."""

    project: str
    runs: int
    files: int
    versions: int
    size_bytes: int
    changed: str


class Found(msgspec.Struct, frozen=True, kw_only=True, tag="found"):
    """What a `Find` found; there is more after `more`, unless that is empty.

    `unreadable` names objects that nobody could make sense of, and why: they may have been what was looked for.
    """

    projects: tuple[ProjectReport, ...] = ()
    runs: tuple[RunReport, ...] = ()
    files: tuple[RecordReport, ...] = ()
    versions: tuple[VersionReport, ...] = ()
    more: str = ""
    unreadable: tuple[str, ...] = ()


class Doomed(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is, or would be, removed: why, which aliases stand for it, and which runs use it."""

    id: VersionId
    size_bytes: int
    reason: str
    aliases: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()


class Removed(msgspec.Struct, frozen=True, kw_only=True, tag="removed"):
    """What a `Remove` or `Prune` did, or would do.

    `records` counts what a run saved. `orphaned` counts the objects that nothing names then, which a collection may
    remove. Of very many versions only some are told.
    """

    versions: int
    records: int
    orphaned: int
    orphaned_bytes: int
    doomed: tuple[Doomed, ...] = ()
    applied: bool = False


class Collected(msgspec.Struct, frozen=True, kw_only=True, tag="collected"):
    """What a `Collect` found, and what it removed; `uploads` counts those in parts that it ended."""

    kept: int
    kept_bytes: int
    garbage: int
    garbage_bytes: int
    removed: int = 0
    removed_bytes: int = 0
    uploads: int = 0
    unreadable: tuple[str, ...] = ()


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """What was asked for is done; `number` is that of the version that it concerns, if it concerns one."""

    number: int | None = None


Answer = (
    VersionReport
    | RunReport
    | RecordList
    | LinkList
    | EntryList
    | Fetched
    | Verified
    | Found
    | Changed
    | Removed
    | Collected
)
Reply = JobReply | Answer

_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def decode_any_reply(data: bytes) -> Reply:
    """Return an answer, about jobs or stores; raises ProtocolError for anything else."""
    return decoded(_replies, data)
