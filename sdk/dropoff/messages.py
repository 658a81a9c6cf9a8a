"""What the SDK and the command line say to the daemon, and what it answers.

Every connection opens with `Hello`; the daemon answers `Welcome`, or `Refused` if it does not speak that
protocol. Then each request has one answer; a `Working` may come any number of times before it, and says that
the daemon is alive and at it. Names are bytes, as in the file system. Unknown fields are ignored, so an older
daemon serves a newer SDK of the same protocol.
"""

import enum
from typing import Annotated, Any, TypeVar

import msgspec

from dropoff.errors import ProtocolError
from dropoff.ids import JobId

PROTOCOL = 1
# The newest format of a save; one that says nothing of artifacts is still of the first, so that any daemon takes it.
ARTIFACT_FORMAT, GROUP_FORMAT = 2, 3
SAVE_FORMAT = GROUP_FORMAT
PRIORITY_MOST = 1_000
# What the spool's database can hold as a number.
_SEQ_MOST = 2**63 - 1


class Category(enum.StrEnum):
    """What part a saved thing plays in its run."""

    CODE = "code"
    INPUT = "input"
    OUTPUT = "output"


class Keep(enum.StrEnum):
    """Whether a newer save of the same name replaces one that is not delivered yet."""

    ALL = "all"
    NEWEST = "newest"


class Kind(enum.StrEnum):
    """What was saved."""

    FILE = "file"
    DIRECTORY = "directory"
    VERSION = "version"


class JobState(enum.StrEnum):
    """Where a job stands; `docs/design.md` has the table of transitions."""

    STAGED = "staged"
    QUEUED = "queued"
    UPLOADING = "uploading"
    WAITING = "waiting"
    HELD = "held"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


FINAL_STATES = frozenset({JobState.DELIVERED, JobState.CANCELLED, JobState.SUPERSEDED})


class Role(enum.StrEnum):
    """What a version is to a run."""

    INPUT = "input"
    OUTPUT = "output"


class Subject(enum.StrEnum):
    """What can be looked for in a store."""

    PROJECT = "project"
    RUN = "run"
    FILE = "file"
    VERSION = "version"


class VersionState(enum.StrEnum):
    """What people said of a version: nothing yet, that others may rely on it, or that it is past."""

    DRAFT = "draft"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class Operator(enum.StrEnum):
    """How a value in metadata compares to another."""

    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="


class Code(enum.StrEnum):
    """Why the daemon refuses."""

    PROTOCOL = "protocol"
    GARBAGE = "garbage"
    UNKNOWN_JOB = "unknown-job"
    NOT_ALLOWED = "not-allowed"
    NOT_REGULAR = "not-regular"
    UNREADABLE = "unreadable"
    UNSTABLE = "unstable"
    SPOOL_FULL = "spool-full"
    STORE = "store"
    STOPPING = "stopping"
    NOT_STORED = "not-stored"
    DAMAGED = "damaged"
    FAILED = "failed"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a save belongs to; travels with each save, so that no call has to come first."""

    project: str
    name: str
    store: str
    created_at: float
    host: str
    user: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What `fstat` says of a file's content: it changes when the content may have changed."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a save is one addition to an artifact: the `position`-th step of making `draft`."""

    draft: str
    artifact: str
    position: int
    overwrite: bool = False


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A step of making an artifact: the file of this path, or all below it, is taken out again."""

    position: int
    path: bytes


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """A step of making an artifact: under this path stands something that lies elsewhere and is not stored.

    With `objects_max` it is a prefix, and below the path stands each object that it has, of no more than so many.
    """

    position: int
    path: bytes
    uri: str
    overwrite: bool = False
    objects_max: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a version has several writers: this save contributes to it, or brings it all together (`finish`).

    `writer` tells the contributions apart; of one writer the later counts. `writers` is how many there have to be.
    """

    name: str
    writer: str = ""
    finish: bool = False
    writers: int = 0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a save makes a version of an artifact out of all `steps` of `draft`.

    The steps not listed here are parts, which are in custody already.
    """

    draft: str
    type: str
    steps: int
    aliases: tuple[str, ...] = ()
    ttl_seconds: float | None = None
    removals: tuple[Removal, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    group: Group | None = None


class Save(msgspec.Struct, frozen=True, kw_only=True, tag="save"):
    """Take this file or directory into custody; its descriptor travels beside the message.

    With `version` it is the version that makes a draft's parts visible, and has no descriptor.
    """

    job: JobId
    run: RunInfo
    kind: Kind
    name: bytes
    category: Category
    source: bytes
    created_at: float
    format: int = 1
    content_type: str | None = None
    prefix: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    priority: Annotated[int, msgspec.Meta(ge=-PRIORITY_MOST, le=PRIORITY_MOST)] = 0
    keep: Keep = Keep.ALL
    part: Part | None = None
    version: Version | None = None
    serializer: str = ""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Open a connection."""

    protocol: int
    client: str


class Status(msgspec.Struct, frozen=True, tag="status"):
    """Ask what is in custody."""


class Jobs(msgspec.Struct, frozen=True, tag="jobs"):
    """List jobs, newest first; `before` is the `seq` to continue below."""

    states: tuple[JobState, ...] = ()
    limit: int = 50
    before: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MOST)] | None = None


class Show(msgspec.Struct, frozen=True, tag="show"):
    """Tell everything about one job; `job` may be a unique beginning of its id."""

    job: str


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """Answer when every one of `jobs` needs no more waiting (final or held), or after the timeout.

    No jobs named means all that are in custody now; `run` narrows that to one run (project, name).
    """

    jobs: tuple[str, ...] = ()
    run: tuple[str, str] | None = None
    timeout_seconds: float | None = None


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """Put held and waiting jobs back in the queue; none named means all held ones."""

    jobs: tuple[str, ...] = ()


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Give jobs up: their content leaves custody without having been delivered."""

    jobs: tuple[str, ...]


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Stop starting deliveries; saves are still taken."""


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """Start deliveries again."""


class Limit(msgspec.Struct, frozen=True, tag="limit"):
    """Let bytes go by this timetable from now on, to one store or (empty) to all together.

    An empty timetable takes back what was changed before; None changes nothing.
    """

    bandwidth: str | None = None
    store: str = ""


class VersionId(msgspec.Struct, frozen=True, kw_only=True, tag="version"):
    """A version in a store; `sha256` is that of its manifest as it was found, empty where that was not read yet."""

    store: str
    project: str
    artifact: str
    number: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MOST)]
    sha256: str = ""


class RecordId(msgspec.Struct, frozen=True, kw_only=True, tag="record"):
    """What one save of a run stored."""

    store: str
    project: str
    run: str
    job: str


class RunId(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """A run in a store."""

    store: str
    project: str
    run: str


Stored = VersionId | RecordId


class FindVersion(msgspec.Struct, frozen=True, kw_only=True, tag="find-version"):
    """Look a version up: `which` is v3, an alias, or "latest". With `user` note that this run uses it."""

    store: str
    project: str
    artifact: str
    which: str
    user: RunInfo | None = None


class FindRun(msgspec.Struct, frozen=True, tag="find-run"):
    """Look a run up."""

    run: RunId


class Records(msgspec.Struct, frozen=True, kw_only=True, tag="records"):
    """List what a run saved, in the order of its calls, `after` a job's id.

    `prefix` is the beginning of names by whole components; all `tags` are wanted.
    """

    run: RunId
    prefix: str = ""
    name: str = ""
    category: Category | None = None
    tags: tuple[str, ...] = ()
    after: str = ""
    limit: int = 500


class Links(msgspec.Struct, frozen=True, tag="links"):
    """Tell the lineage: which versions a run made and used, or which runs made and used a version."""

    of: VersionId | RunId


class Entries(msgspec.Struct, frozen=True, kw_only=True, tag="entries"):
    """List files, by name, `after` one."""

    of: Stored
    after: bytes = b""
    limit: int = 1000


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch"):
    """Bring files, all or those that `paths` name (also directories of them), to this machine.

    Into the directory whose descriptor travels beside the message, or, without one, into the cache. `links` lets
    files of the cache be linked; otherwise they are the caller's own, their modes within `umask`. With `references`
    what those lead to comes into the directory, too.
    """

    of: Stored
    paths: tuple[bytes, ...] = ()
    links: bool = False
    umask: int = 0o077
    references: bool = False


class Stream(msgspec.Struct, frozen=True, kw_only=True, tag="stream"):
    """Write a file's bytes into the pipe whose descriptor travels beside the message; nobody verified them yet."""

    of: Stored
    path: bytes


class Verify(msgspec.Struct, frozen=True, kw_only=True, tag="verify"):
    """Look whether the store has every object with the right size; with `read_data` also hash every byte."""

    of: Stored
    read_data: bool = False


class Audit(msgspec.Struct, frozen=True, kw_only=True, tag="audit"):
    """Do as `Verify` for all that a run or an artifact has, a project, or (empty) the store."""

    store: str
    project: str = ""
    run: str = ""
    artifact: str = ""
    read_data: bool = False


class SetAlias(msgspec.Struct, frozen=True, kw_only=True, tag="set-alias"):
    """Let an alias stand for a version, `which` as for `FindVersion`; for an empty one the alias is taken away."""

    store: str
    project: str
    artifact: str
    alias: str
    which: str = ""


class SetState(msgspec.Struct, frozen=True, kw_only=True, tag="set-state"):
    """Say of a version, `which` as for `FindVersion`, what state it is in."""

    store: str
    project: str
    artifact: str
    which: str
    state: VersionState


class Remove(msgspec.Struct, frozen=True, kw_only=True, tag="remove"):
    """Remove a version (`which` as for `FindVersion`), all versions of an artifact, or a run and what it saved.

    Without `apply` it is only told what that would be.
    """

    store: str
    project: str
    artifact: str = ""
    which: str = ""
    run: str = ""
    apply: bool = False


class Prune(msgspec.Struct, frozen=True, kw_only=True, tag="prune"):
    """Remove the versions that no rule keeps, in all projects or one; without `apply` only tell which.

    Without `rules` those of the setting count.
    """

    store: str
    project: str = ""
    artifact: str = ""
    rules: str = ""
    apply: bool = False


class Collect(msgspec.Struct, frozen=True, kw_only=True, tag="collect"):
    """Find content that nothing has named for `grace_seconds`, and with `apply` remove it."""

    store: str
    project: str
    grace_seconds: float
    apply: bool = False


class Condition(msgspec.Struct, frozen=True):
    """What metadata has at `path` compares so to `value`; what is not there, or of another kind, is unequal."""

    path: tuple[str, ...]
    operator: Operator
    value: str | int | float | bool | None


class Find(msgspec.Struct, frozen=True, kw_only=True, tag="find"):
    """Look for projects, runs, files or versions that are all of this, the newest first.

    `name` is that of the file, run or artifact, or a pattern with `*`, `?` and `[...]`; `prefix` the beginning of
    names by whole components; `job` the id of the job that made it; `states` are those that a version may be in.
    Times are seconds since the epoch. `newest` wants only the newest version of each artifact. `after` goes on where
    an answer said that there is more.
    """

    store: str
    subject: Subject
    project: str = ""
    run: str = ""
    name: str = ""
    artifact_type: str = ""
    prefix: str = ""
    category: Category | None = None
    tags: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    since: float | None = None
    until: float | None = None
    newest: bool = False
    job: str = ""
    states: tuple[VersionState, ...] = ()
    after: str = ""
    limit: int = 500


Reading = FindVersion | FindRun | Records | Links | Entries | Fetch | Stream | Verify | Audit | Find
Curating = SetAlias | SetState | Remove | Prune | Collect
Request = Hello | Save | Status | Jobs | Show | Wait | Retry | Cancel | Pause | Resume | Limit | Reading | Curating


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of delivery: where the content is and what it is.

    `key` and `sha256` are those of the file, for a directory those of its record, which lists its files, for an
    artifact those of its version's manifest. `version` is then the version's number, and `spared_bytes` how much
    of its content the store had already.
    """

    job: JobId
    store: str
    record: str
    key: str
    size_bytes: int
    sha256: str
    files: int
    delivered_at: float
    version: int | None = None
    spared_bytes: int = 0


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """One job as `status`, `jobs`, `show` and deliveries see it."""

    job: JobId
    seq: int
    project: str
    run: str
    name: bytes
    kind: Kind
    state: JobState
    size_bytes: int
    sent_bytes: int
    files: int
    capture: str
    created_at: float
    attempts: int
    priority: int
    reason: str = ""
    hint: str = ""
    retry_at: float | None = None
    receipt: Receipt | None = None
    skipped: tuple[str, ...] = ()


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The daemon is here and speaks our protocol."""

    protocol: int
    daemon: str
    pid: int


class Working(msgspec.Struct, frozen=True, tag="working"):
    """The answer takes longer than a moment; keep waiting.

    `done` tells how far it is, where that is counted: in bytes of a `Fetch`, in objects of anything else.
    """

    done: int = 0


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The job is in custody: its content is frozen and its row is on disk."""

    job: JobId
    capture: str
    files: int
    skipped: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Nothing was done, and why."""

    code: Code
    message: str
    hint: str = ""


class Total(msgspec.Struct, frozen=True):
    """How many jobs are in a state, and how many bytes."""

    jobs: int
    size_bytes: int


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """A store that is left alone for now: why, since when, and when it is tried again (seconds since the epoch)."""

    store: str
    reason: str
    hint: str
    since: float
    retry_at: float
    needs_person: bool


class StatusReport(msgspec.Struct, frozen=True, kw_only=True, tag="status-report"):
    """What the daemon has in custody and how it does."""

    daemon: str
    pid: int
    uptime_seconds: float
    paused: bool
    totals: dict[JobState, Total]
    rate_bytes_per_second: float
    quota_bytes: int
    free_bytes: int
    leases: int
    held: tuple[JobReport, ...] = ()
    active: tuple[JobReport, ...] = ()
    stores: tuple[StoreReport, ...] = ()


class JobList(msgspec.Struct, frozen=True, tag="job-list"):
    """Some jobs; `more` tells that there are older ones."""

    jobs: tuple[JobReport, ...]
    more: bool = False


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled"):
    """What a `Wait` found: how many still want waiting, and the jobs that did not end as delivered."""

    pending: int
    delivered: int
    troubled: tuple[JobReport, ...] = ()


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request took effect on this many jobs."""

    jobs: int = 0


class Rate(msgspec.Struct, frozen=True):
    """A timetable and the bytes per second that it allows now; None is unlimited. An empty store means all."""

    store: str
    bandwidth: str
    bytes_per_second: float | None


class Rates(msgspec.Struct, frozen=True, tag="rates"):
    """How fast bytes may go: to all stores together, and to those that have a timetable of their own."""

    rates: tuple[Rate, ...]


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
Reply = Welcome | Working | Accepted | Refused | StatusReport | JobList | Settled | Done | Rates | Answer

encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_T = TypeVar("_T")


def decode_request(data: bytes) -> Request:
    """Return a request; raises ProtocolError for anything else."""
    return decoded(_requests, data)


def decode_reply(data: bytes) -> Reply:
    """Return an answer; raises ProtocolError for anything else."""
    return decoded(_replies, data)


def decoded(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    """Return what `data` says; raises ProtocolError for whatever the decoder stumbles over."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"unable to read a message of {len(data)} bytes: {error}") from error
