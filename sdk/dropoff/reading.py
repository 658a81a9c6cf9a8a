"""Read back what a store has: runs, what they saved, versions of artifacts.

The daemon does the work and has the credentials; without one `UnavailableError` is raised, and `dropoff get` works
by itself. Everything here raises NotStoredError for what is not there, DamagedError for content that is not what was
stored, and RefusedError for trouble with the store.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec

from dropoff import arguments
from dropoff.answers import (
    Changed,
    EntryList,
    EntryReport,
    Fetched,
    Link,
    LinkList,
    RecordList,
    RecordReport,
    RunReport,
    Verified,
    VersionReport,
    decode_any_reply,
)
from dropoff.artifact import alias_name, artifact_name
from dropoff.client import Connection, checked
from dropoff.delivery import SILENCE_SECONDS
from dropoff.errors import DamagedError, ProtocolError, UnavailableError, UsageError
from dropoff.names import check_name
from dropoff.questions import (
    Curating,
    Entries,
    Fetch,
    FindRun,
    FindVersion,
    Links,
    Reading,
    Records,
    Role,
    RunId,
    SetAlias,
    Stored,
    Stream,
    Verify,
    VersionId,
)
from dropoff.saves import Category, Kind, RunInfo
from dropoff.settings import Settings, load, store_url

if TYPE_CHECKING:
    from dropoff.models import StoredModel

_Answer = TypeVar("_Answer")
_WHICH = re.compile(r"(?:(?P<project>[^/:]+)/)?(?P<name>[^/:]+)(?::(?P<which>[^/:]+))?")
_PAGE = 1000
_STREAM_BUFFER_BYTES = 256 << 10
_UMASK = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)


def open_run(project: str, name: str, *, store: str | None = None, settings: Settings | None = None) -> "StoredRun":
    """Look a run up in a store, by default that of the settings; raises NotStoredError."""
    settings = settings or load()
    run = RunId(store=store_url(store or settings.store), project=project, run=name)
    return StoredRun(settings, ask(settings, FindRun(run), RunReport))


def open_version(
    artifact: str,
    *,
    project: str = "default",
    store: str | None = None,
    settings: Settings | None = None,
    user: RunInfo | None = None,
) -> "StoredVersion":
    """Look a version up: "name:v3", "name:alias", "name" for the latest, each also after "project/".

    With `user` it is noted that this run uses it.
    """
    settings = settings or load()
    asked = version_named(artifact, project, store_url(store or settings.store))
    asked = msgspec.structs.replace(asked, user=user)
    return stored_version(settings, ask(settings, asked, VersionReport))


def stored_version(settings: Settings, report: VersionReport) -> "StoredVersion":
    """Return what a report tells of, a model as such."""
    from dropoff.models import MODEL, StoredModel  # noqa: PLC0415  # which is made of what is here

    return (StoredModel if report.artifact_type == MODEL else StoredVersion)(settings, report)


def version_named(text: str, project: str, store: str) -> FindVersion:
    """Return the question for what a person names as "name:v3", "name" or "project/name:alias"."""
    found = _WHICH.fullmatch(text)
    if found is None:
        raise UsageError(f"unable to use {text!r} as a version", hint="write it as name:v3, or project/name:alias")
    return FindVersion(
        store=store, project=found["project"] or project, artifact=artifact_name(found["name"]),
        which=found["which"] or "latest",
    )  # fmt: skip


class StoredRun:
    """A run in a store, as its own record tells it. Made by `open_run`."""

    def __init__(self, settings: Settings, report: RunReport) -> None:
        self._settings = settings
        self._id = report.id
        self.project = report.id.project
        self.name = report.id.run
        self.created = _time(report.created)
        self.finished = _time(report.finished) if report.finished else None
        self.host = report.host
        self.user = report.user
        self.tags = report.tags
        self.metadata = report.metadata

    def __repr__(self) -> str:
        return f"<StoredRun {self.project}/{self.name}>"

    def files(
        self,
        prefix: str = "",
        *,
        name: str = "",
        category: Category | str | None = None,
        tags: Iterable[str] = (),
    ) -> "list[StoredFile]":
        """Return what it saved, in the order of the calls; `prefix` is the beginning of names by whole folders."""
        asked = Records(
            run=self._id, prefix=prefix, name=name, tags=arguments.tags(tags), limit=_PAGE,
            category=None if category is None else arguments.choice(Category, category, "category"),
        )  # fmt: skip
        return [StoredFile(self._settings, report) for report in _records(self._settings, asked)]

    @property
    def artifacts(self) -> "dict[str, StoredVersion]":
        """The newest version of each artifact that it logged, by name."""
        return artifacts_of(self._settings, self._id)

    @property
    def models(self) -> "dict[str, list[StoredModel]]":
        """The models that it used, under "input", and made, under "output", in the order of their making."""
        from dropoff.models import models_of  # noqa: PLC0415  # which is made of what is here

        return models_of(self._settings, self._id)

    @property
    def links(self) -> tuple[Link, ...]:
        """Its lineage: which versions it made (`role` "output") and used ("input")."""
        return ask(self._settings, Links(self._id), LinkList).links


def run_id(run: RunInfo) -> RunId:
    """Return how a run that is going on is asked for."""
    return RunId(store=run.store, project=run.project, run=run.name)


def artifacts_of(settings: Settings, run: RunId) -> "dict[str, StoredVersion]":
    """Return the newest version of each artifact that a run logged, by name."""
    newest: dict[str, int] = {}
    for link in ask(settings, Links(run), LinkList).links:
        if link.role is Role.OUTPUT:
            newest[link.artifact] = max(link.version, newest.get(link.artifact, 0))
    return {
        name: open_version(f"{name}:v{number}", project=run.project, store=run.store, settings=settings)
        for name, number in newest.items()
    }


class _Holding:
    """Files in a store under names, which a version has, and what one save stored."""

    def __init__(self, settings: Settings, stored: Stored) -> None:
        self._settings = settings
        self._id = stored

    @property
    def entries(self) -> tuple[EntryReport, ...]:
        """Its files and references, by name."""
        return tuple(self._entries())

    def _entries(self, after: bytes = b"") -> Iterator[EntryReport]:
        while True:
            page = ask(self._settings, Entries(of=self._id, after=after, limit=_PAGE), EntryList)
            yield from page.entries
            if not page.more or not page.entries:
                return
            after = page.entries[-1].path

    def download(
        self,
        root: str | os.PathLike[str],
        paths: str | bytes | Iterable[str | bytes] = (),
        *,
        links: bool = False,
        references: bool = False,
    ) -> str:
        """Write its files, or those of these paths (also directories of them), below the directory `root`.

        A file appears under its name when its sha256 is verified. After an interruption the same call goes on where
        that left off; a file that is there with the right content is not fetched. The files are yours to change,
        copied or cloned from the cache where that has them; with `links` they are read-only links into it, and what
        it lacks is fetched there first. With `references` what those lead to is fetched from where it lies, anew each
        time, and DamagedError raised for what has another etag or size than was recorded. Raises UsageError for what
        is in the way below `root`. Returns `root`.
        """
        root = os.path.abspath(root)
        os.makedirs(root, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            asked = Fetch(of=self._id, paths=_paths(paths), links=links, umask=umask(), references=references)
            ask(self._settings, asked, Fetched, fd)
        finally:
            os.close(fd)
        return root

    def get_local_copy(self) -> str:
        """Return a directory in the cache that has its files, read-only, fetched if need be.

        It is the cache's: what was not used for longest goes when the cache is full. `download` is for keeps.
        """
        return ask(self._settings, Fetch(of=self._id), Fetched).place

    def path(self, name: str | bytes) -> str:
        """Return the path of one of its files in the cache, fetched if need be; as for `get_local_copy`."""
        path = check_name(name)
        place = ask(self._settings, Fetch(of=self._id, paths=(path,)), Fetched).place
        return os.path.join(place, os.fsdecode(path))

    def open(self, name: str | bytes, mode: str = "r", encoding: str | None = None) -> IO[Any]:
        """Open one of its files for reading, "r" or "rb", as a stream that is fetched while you read.

        It cannot seek. At its end its sha256 is verified: a read that reaches the end raises DamagedError if the
        bytes were not those that were stored.
        """
        if mode not in {"r", "rb"}:
            raise UsageError(f"unable to open with mode {mode!r}", hint="use 'r' for text, 'rb' for bytes")
        streamed = _Streamed(self._settings, Stream(of=self._id, path=check_name(name)))
        raw = io.BufferedReader(streamed, _STREAM_BUFFER_BYTES)
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding or "utf-8")

    def verify(self, *, read_data: bool = False) -> Verified:
        """Look whether the store has every object in the right size; with `read_data` also hash every byte.

        Damage is in the answer, file by file; nothing is raised for it.
        """
        return ask(self._settings, Verify(of=self._id, read_data=read_data), Verified)

    def _object(self, name: str | bytes | None, *, allow_pickle: bool) -> Any:
        from dropoff.objects import find, reader  # noqa: PLC0415  # most of what is read are files

        entry = find(self._entries, name)
        read = reader(entry, allow_pickle=allow_pickle)
        return read(self.path(entry.path))


class StoredVersion(_Holding):
    """A version of an artifact. Made by `Run.use_artifact` and `open_version`."""

    _id: VersionId

    def __init__(self, settings: Settings, report: VersionReport) -> None:
        super().__init__(settings, report.id)
        self.project = report.id.project
        self.name = report.id.artifact
        self.version = report.id.number
        self.type = report.artifact_type
        self.digest = report.digest
        self.size_bytes = report.size_bytes
        self.created = _time(report.created)
        self.run = report.run
        self.description = report.description
        self.tags = report.tags
        self.metadata = report.metadata
        self.ttl_seconds = report.ttl_seconds
        self.skipped = report.skipped
        self.aliases = report.aliases
        """Those that stood for it when it was found; empty where nobody looked them up."""
        self.unrecorded = report.unrecorded
        """Why its use could not be noted, such as credentials that may only read; empty if it was."""

    def __repr__(self) -> str:
        return f"<StoredVersion {self.project}/{self.name}:v{self.version} ({self.type})>"

    def get(self, name: str | bytes | None = None, *, allow_pickle: bool = False) -> Any:
        """Return the object that was added under `name`, with or without its ending; without a name, the only one.

        It is made by what wrote it; of a file that was added as such, by what its ending stands for. Nothing that is
        read is run, but for a pickle with `allow_pickle`. Raises UsageError for what is no object.
        """
        return self._object(name, allow_pickle=allow_pickle)

    @property
    def links(self) -> tuple[Link, ...]:
        """Its lineage: which run made it (`role` "output") and which used it ("input")."""
        return ask(self._settings, Links(self._id), LinkList).links

    def set_alias(self, alias: str) -> None:
        """Let an alias stand for this version from now on; `latest` cannot be set."""
        self._set_alias(alias, f"v{self.version}")

    def remove_alias(self, alias: str) -> None:
        """Take an alias of this artifact away, whichever version it stands for; raises NotStoredError."""
        self._set_alias(alias, "")

    def _set_alias(self, alias: str, which: str) -> None:
        asked = SetAlias(
            store=self._id.store, project=self.project, artifact=self.name, alias=alias_name(alias), which=which
        )
        ask(self._settings, asked, Changed)


class StoredFile(_Holding):
    """What one save of a run stored: a file, or a directory of them."""

    def __init__(self, settings: Settings, report: RecordReport) -> None:
        super().__init__(settings, report.id)
        self.project = report.id.project
        self.run = report.id.run
        self.name = report.name
        self.kind = report.kind
        self.category = report.category
        self.created = _time(report.created)
        self.description = report.description
        self.tags = report.tags
        self.metadata = report.metadata
        self.size_bytes = report.size_bytes
        self.files = report.files
        self.sha256 = report.sha256
        """Empty for a directory; its entries have theirs."""

    def __repr__(self) -> str:
        return f"<StoredFile {self.name}>"

    def get_local_copy(self) -> str:
        """Return the path in the cache of the file, or of the directory that holds it under its name; read-only.

        It is the cache's: what was not used for longest goes when the cache is full. `download` is for keeps.
        """
        place = super().get_local_copy()
        # Not the name, which is for people: that of the file need not be text.
        return os.path.join(place, os.fsdecode(self.entries[0].path)) if self.kind is Kind.FILE else place

    def get(self, *, allow_pickle: bool = False) -> Any:
        """Return the object that was saved; as for a version's `get`."""
        if self.kind is not Kind.FILE:
            raise UsageError(
                f"unable to get {self!r}: it is a directory", hint="take a local copy, or open its files"
            )
        return self._object(None, allow_pickle=allow_pickle)


class _Streamed(io.RawIOBase):
    """The end of a pipe that the daemon writes a file into, hashed as it is read."""

    def __init__(self, settings: Settings, asked: Stream) -> None:
        super().__init__()
        self._settings = settings
        self._digest = hashlib.sha256()
        self._ended = False
        self._fd, end = os.pipe2(os.O_CLOEXEC)
        try:
            self._connection = _connected(settings)
            self._connection.send(asked, end)
        except BaseException:
            os.close(self._fd)
            super().close()
            raise
        finally:
            os.close(end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some; raises what the daemon's refusal stands for, and DamagedError at the end of other bytes."""
        count = os.readv(self._fd, [buffer])
        if count:
            self._digest.update(memoryview(buffer)[:count])
        elif not self._ended:
            # The pipe ends whatever happened; the daemon's answer tells what.
            try:
                answer = checked(self._connection.receive())
            except OSError as error:
                raise _away(self._settings) from error
            self._ended = True
            if not isinstance(answer, Fetched) or answer.sha256 != self._digest.hexdigest():
                raise DamagedError(
                    "unable to read the file: its bytes are not those of its sha256",
                    hint="the store damaged it, or somebody replaced it; use nothing of what was read",
                )
        return count

    def close(self) -> None:
        """End it; what was not read yet is not fetched."""
        if not self.closed:
            self._connection.close()
            os.close(self._fd)
        super().close()


def ask(settings: Settings, asked: Reading | Curating, kind: type[_Answer], fd: int | None = None) -> _Answer:
    """Return the daemon's answer, which is to be of that kind; raises what a refusal stands for."""
    connection = _connected(settings)
    try:
        answer = checked(connection.ask(asked, fd))
    except OSError as error:
        raise _away(settings) from error
    finally:
        connection.close()
    if not isinstance(answer, kind):
        raise ProtocolError(f"unable to understand the daemon: it answered {type(answer).__name__}")
    return answer


def _connected(settings: Settings) -> Connection:
    try:
        return Connection(settings, SILENCE_SECONDS, decode_any_reply)
    except OSError as error:
        raise _away(settings) from error


def _away(settings: Settings) -> UnavailableError:
    return UnavailableError(
        f"unable to read: no daemon answers at {settings.runtime_dir}",
        hint="start it with `dropoff serve`; `dropoff get` works without one",
    )


def _records(settings: Settings, asked: Records) -> Iterator[RecordReport]:
    while True:
        page = ask(settings, asked, RecordList)
        yield from page.records
        if not page.more:
            return
        asked = msgspec.structs.replace(asked, after=page.more)


def _paths(paths: str | bytes | Iterable[str | bytes]) -> tuple[bytes, ...]:
    if isinstance(paths, str | bytes):
        paths = (paths,)
    return tuple(check_name(os.fsencode(path).rstrip(b"/")) for path in paths)


def umask() -> int:
    """Return this process's umask."""
    # os.umask would have to change it, for all threads, to tell it.
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        found = _UMASK.search(file.read())
    return int(found[1], 8) if found else 0o077


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DamagedError(f"unable to use {text!r} as a time", hint="somebody changed the store by hand") from None
