"""What the SDK and the command line say to the daemon about jobs, and what it answers.

Every connection opens with `Hello`; the daemon answers `Welcome`, or `Refused` if it does not speak that
protocol. Then each request has one answer; a `Working` may come any number of times before it, and says that
the daemon is alive and at it. Unknown fields are ignored, so an older daemon serves a newer SDK of the same
protocol. What is asked about stores is in `questions`: training that only saves need not load it.
"""

import enum
from typing import Annotated, TypeVar

import msgspec

from dropoff.errors import ProtocolError
from dropoff.ids import JobId
from dropoff.saves import Kind, Save

PROTOCOL = 1
# What the spool's database can hold as a number.
_SEQ_MOST = 2**63 - 1


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


JobRequest = Hello | Save | Status | Jobs | Show | Wait | Retry | Cancel | Pause | Resume | Limit
JobReply = Welcome | Working | Accepted | Refused | StatusReport | JobList | Settled | Done | Rates

encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[JobRequest] = msgspec.msgpack.Decoder(JobRequest)
_replies: msgspec.msgpack.Decoder[JobReply] = msgspec.msgpack.Decoder(JobReply)
_T = TypeVar("_T")


def decode_request(data: bytes) -> JobRequest:
    """Return a request about jobs; raises ProtocolError for anything else."""
    return decoded(_requests, data)


def decode_reply(data: bytes) -> JobReply:
    """Return an answer to one; raises ProtocolError for anything else."""
    return decoded(_replies, data)


def decoded(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    """Return what `data` says; raises ProtocolError for whatever the decoder stumbles over."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"unable to read a message of {len(data)} bytes: {error}") from error
