"""What the SDK and the command line ask of stores, through the daemon or in its place."""

import enum
from typing import Annotated

import msgspec

from dropoff.messages import JobRequest, decoded
from dropoff.saves import Category, RunInfo

# What the spool's database can hold as a number.
_SEQ_MOST = 2**63 - 1


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
Request = JobRequest | Reading | Curating

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


def decode_any_request(data: bytes) -> Request:
    """Return a request, about jobs or stores; raises ProtocolError for anything else."""
    return decoded(_requests, data)
