"""An artifact in the making: files are captured as they are added, and become one version when it is logged.

Each addition is a job in custody of its own, so what was added may change or vanish at once. Nothing of it leaves
the host before `Run.log_artifact` names the run, and with it the store. What is never logged is given up after
`unlogged_keep_seconds`.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any

from dropoff import arguments, references
from dropoff.arguments import Source
from dropoff.errors import UsageError
from dropoff.handover import HandOver
from dropoff.ids import new_job_id
from dropoff.messages import decode_request
from dropoff.names import check_name, display
from dropoff.saves import (
    ARTIFACT_FORMAT,
    GROUP_FORMAT,
    Category,
    Group,
    Kind,
    Part,
    Pointer,
    Removal,
    RunInfo,
    Save,
    Version,
)
from dropoff.scratch import finish, scratch
from dropoff.settings import Settings, load

if TYPE_CHECKING:
    from dropoff.serializers import Serializer

_NUMBER = re.compile(r"v\d+")
# An alias is known by its key alone, which tells all of one that is no longer, whatever it is written in.
_ALIAS_MAX_BYTES = 80
# Additions have no run yet, and need none: they are not delivered before the version that has one.
_NO_RUN = RunInfo(project="", name="", store="", created_at=0, host="", user="")


class Artifact:
    """Files and references under one name and type; `Run.log_artifact` makes a version of it.

    `name` is unique within its project, whatever the type. `ttl` (a timedelta or seconds) is recorded for the
    retention rules. With `offline` everything goes to the inbox, as for `init`.
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002  # the word of every user of artifacts
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | float | None = None,
        *,
        settings: Settings | None = None,
        offline: bool = False,
    ) -> None:
        self.name = artifact_name(name)
        self.type = arguments.label(type, "type")
        self.description = description
        self.metadata = arguments.plain(metadata)
        """May be changed until the artifact is logged."""
        self.ttl_seconds = _ttl_seconds(ttl)
        self.skipped: list[str] = []
        """What added directories held that could not be saved, and why."""
        self.settings = settings or load()
        self._offline = offline
        self._hand_over = _shared(self.settings, offline=offline)
        self._draft = new_job_id()
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._steps = 0
        self._names: set[bytes] = set()
        self._has_directories = False
        self._removals: list[Removal] = []
        self._pointers: list[Pointer] = []
        self._logged = False

    def __repr__(self) -> str:
        return f"<Artifact {self.name} ({self.type})>"

    def __reduce__(self) -> str:
        raise UsageError(
            f"unable to send {self!r} to another process: it is being made in this one",
            hint="make an artifact in each process and bring them together with run.upsert_artifact",
        )

    def add_file(self, local_path: Source, name: str | bytes | None = None, *, overwrite: bool = False) -> None:
        """Add the file's present content under `name`, its own if not given.

        Raises as `Run.save_file`; UsageError if the name is taken and `overwrite` is not set.
        """
        raw = arguments.path(local_path)
        path = check_name(name if name is not None else os.path.basename(os.path.abspath(raw)))
        with self._step() as position:
            self._claim(path, overwrite=overwrite)
            self._add(Kind.FILE, raw, path, position, overwrite=overwrite)
            self._names.add(path)

    def add_dir(self, local_path: Source, name: str | bytes | None = None, *, overwrite: bool = False) -> None:
        """Add every file below the directory; below `name`, or at the artifact's top if that is not given.

        Links are followed inside the directory only; what is passed over is in `skipped`. Names that are taken are
        found when the artifact is logged, and refused then unless `overwrite` is set.
        """
        path = check_name(name) if name else b""
        with self._step() as position:
            self._add(Kind.DIRECTORY, arguments.path(local_path), path, position, overwrite=overwrite)
            self._has_directories = True

    def add(
        self,
        obj: Any,
        name: str | bytes,
        *,
        overwrite: bool = False,
        serializer: "Serializer | str | None" = None,
        allow_pickle: bool = False,
    ) -> None:
        """Add an object as it is now; `StoredVersion.get` returns it.

        Its kind decides how it is written, and the ending of `name` where there is a choice; a name without an ending
        gets one, and `get` finds it without, too. Raises UsageError for what nothing holds exactly; with
        `allow_pickle` that is pickled.
        """
        from dropoff.objects import write  # noqa: PLC0415  # most of what is added are files
        from dropoff.serializers.choosing import ways  # noqa: PLC0415  # same

        found = ways(obj, check_name(name), serializer, allow_pickle=allow_pickle)
        with self._lock:
            self._claim(found[0].name, overwrite=overwrite)
        with scratch(self.settings) as fd:
            way = write(self.settings, obj, found, fd)
            self._add_made(fd, way.name, overwrite=overwrite, serializer=way.serializer)

    @contextlib.contextmanager
    def new_file(
        self, name: str | bytes, mode: str = "w", encoding: str | None = None, *, overwrite: bool = False
    ) -> Iterator[IO[Any]]:
        """Open a new file, "w" or "wb", that is added under `name` when the block ends without an error."""
        path = check_name(name)
        if mode not in {"w", "wb", "x", "xb"}:
            raise UsageError(f"unable to make a new file with mode {mode!r}", hint="use 'w' for text, 'wb' for bytes")
        with self._lock:
            self._claim(path, overwrite=overwrite)
        with scratch(self.settings) as fd:
            with open(fd, mode, encoding=encoding, closefd=False) as file:
                yield file
            self._add_made(fd, path, overwrite=overwrite)

    def add_reference(
        self,
        uri: str,
        name: str | bytes | None = None,
        *,
        overwrite: bool = False,
        max_objects: int = 10_000,
    ) -> None:
        """Record that something lies at `uri`; it is neither fetched nor stored.

        `name` is the last component of the URI's path if not given. Its size, etag and version are recorded when the
        version is made, so that one that has changed makes a new version; what cannot be looked at then is recorded
        without. A prefix in a bucket, which ends in '/', and a local directory stand for each object below them,
        under `name`; more than `max_objects` are refused, at once for a directory, else with the version. Raises
        UsageError for schemes other than http, https, s3, gs, az and file, and for a URI with a password in it.
        """
        path = check_name(name if name is not None else references.last_component(uri))
        most = references.objects_max(uri, max_objects)
        with self._step() as position:
            self._claim(path, overwrite=overwrite)
            self._pointers.append(
                Pointer(position=position, path=path, uri=uri, overwrite=overwrite, objects_max=most)
            )
            self._names.add(path)

    def remove(self, name: str | bytes) -> None:
        """Take out what was added under `name`, a file or all below a directory."""
        path = check_name(name)
        below = {one for one in self._names if one == path or one.startswith(path + b"/")}
        if not below and not self._has_directories:
            raise UsageError(
                f"unable to remove {display(path)!r} from {self!r}: it was not added", hint="check the name"
            )
        with self._step() as position:
            self._removals.append(Removal(position=position, path=path))
            self._names -= below

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added to it."""
        return self._steps == 0

    def emptied(self) -> "Artifact":
        """Return another with the same name and all that was said of it, and no files."""
        return Artifact(
            self.name, self.type, self.description, self.metadata, self.ttl_seconds, settings=self.settings,
            offline=self._offline,
        )  # fmt: skip

    def close_with(
        self, run: RunInfo, aliases: Iterable[str], tags: Iterable[str], priority: int, group: Group | None = None
    ) -> Save:
        """Return the save that makes the version, and hand it over; nothing can be added afterwards."""
        with self._step(counted=False):
            save = Save(
                job=new_job_id(),
                run=run,
                kind=Kind.VERSION,
                name=self.name.encode(),
                category=Category.OUTPUT,
                source=b"",
                created_at=time.time(),
                format=GROUP_FORMAT if group else ARTIFACT_FORMAT,
                description=self.description,
                tags=arguments.tags(tags),
                metadata=arguments.plain(self.metadata),
                priority=priority,
                version=Version(
                    draft=self._draft,
                    type=self.type,
                    steps=self._steps,
                    aliases=tuple(aliases),
                    ttl_seconds=self.ttl_seconds,
                    removals=tuple(self._removals),
                    pointers=tuple(self._pointers),
                    group=group,
                ),
            )
            arguments.check_sound(save, decode_request)
            self._hand_over.give(save, None)
            self._logged = True
        return save

    @contextlib.contextmanager
    def _step(self, *, counted: bool = True) -> Iterator[int]:
        """Give out the next position; it is used up only if the step succeeds, so that none is ever missing."""
        if os.getpid() != self._owner:
            raise UsageError(
                f"unable to add to {self!r}: it was made in another process",
                hint="make an artifact in each process and bring them together with run.upsert_artifact",
            )
        with self._lock:
            if self._logged:
                raise UsageError(
                    f"unable to change {self!r}: it was logged",
                    hint="make a new one; it becomes the next version",
                )
            yield self._steps
            self._steps += counted

    def _claim(self, path: bytes, *, overwrite: bool) -> None:
        if path in self._names and not overwrite:
            raise UsageError(
                f"unable to add {display(path)!r} to {self!r}: it has that already",
                hint="give another name=, overwrite=True, or remove it first",
            )

    def _add_made(self, fd: int, name: bytes, *, overwrite: bool, serializer: "Serializer | None" = None) -> None:
        """Add a scratch file."""
        finish(fd)
        with self._step() as position:
            self._claim(name, overwrite=overwrite)
            part = Part(draft=self._draft, artifact=self.name, position=position, overwrite=overwrite)
            self._hand_over.give(_addition(Kind.FILE, name, b"", part, serializer), fd)
            self._names.add(name)

    def _add(self, kind: Kind, raw: bytes, name: bytes, position: int, *, overwrite: bool) -> None:
        source = arguments.opened(raw, kind)
        try:
            part = Part(draft=self._draft, artifact=self.name, position=position, overwrite=overwrite)
            self.skipped += self._hand_over.give(_addition(kind, name, os.path.abspath(raw), part), source)
        finally:
            os.close(source)


def _addition(kind: Kind, name: bytes, source: bytes, part: Part, serializer: "Serializer | None" = None) -> Save:
    return Save(
        job=new_job_id(),
        run=_NO_RUN,
        kind=kind,
        name=name,
        category=Category.OUTPUT,
        source=source,
        created_at=time.time(),
        format=ARTIFACT_FORMAT,
        content_type=(serializer and serializer.content_type) or None,
        part=part,
        serializer=serializer.name if serializer else "",
    )


_shared_by: dict[tuple[str, str, bool], HandOver] = {}


def _shared(settings: Settings, *, offline: bool) -> HandOver:
    """Return one hand-over for all artifacts of a daemon: a loop may make thousands of them."""
    key = (settings.runtime_dir, settings.state_dir, offline)
    return _shared_by.setdefault(key, HandOver(settings, offline=offline))


def artifact_name(name: str) -> str:
    """Check an artifact's name: a label without the ':' that comes before an alias."""
    if ":" in arguments.label(name, "name of an artifact"):
        raise UsageError(f"unable to use {name!r} as the name of an artifact", hint="':' comes before an alias")
    return name


def alias_names(aliases: Iterable[str]) -> tuple[str, ...]:
    """Check aliases."""
    if isinstance(aliases, str):
        raise UsageError(
            f"unable to use {aliases!r} as aliases: it is one string", hint=f"write aliases=[{aliases!r}]"
        )
    return tuple(dict.fromkeys(alias_name(alias) for alias in aliases))


def alias_name(alias: str) -> str:
    """Check an alias: a label that is not a version's number."""
    if ":" in arguments.label(alias, "alias") or _NUMBER.fullmatch(alias):
        raise UsageError(f"unable to use {alias!r} as an alias", hint="v0, v1, ... are versions; an alias has no ':'")
    if len(alias.encode()) > _ALIAS_MAX_BYTES:
        raise UsageError(f"unable to use {alias!r} as an alias", hint=f"it has {_ALIAS_MAX_BYTES} bytes at most")
    return alias


def _ttl_seconds(ttl: timedelta | float | None) -> float | None:
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if seconds is not None and not seconds > 0:
        raise UsageError(f"unable to use {ttl!r} as a time to live", hint="give a timedelta or seconds, more than 0")
    return seconds
