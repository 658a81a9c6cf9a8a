"""A run: what training code holds on to, and the calls that save.

A save opens the file, hands its descriptor to the daemon and returns when the content is frozen and the job
is on disk. What can be wrong with the call is raised here, at once; what happens later is on the `Delivery`.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dropoff import arguments
from dropoff.arguments import Source
from dropoff.artifact import Artifact, alias_names
from dropoff.delivery import Delivery, settle
from dropoff.errors import UsageError
from dropoff.handover import HandOver
from dropoff.ids import new_job_id
from dropoff.messages import Settled, Wait, decode_request
from dropoff.names import check_name, display
from dropoff.saves import Category, Group, Keep, Kind, RunInfo, Save
from dropoff.scratch import finish, scratch
from dropoff.settings import Settings, load, store_url

if TYPE_CHECKING:
    from dropoff.models import StoredModel
    from dropoff.reading import StoredVersion
    from dropoff.serializers import Serializer

_runs = msgspec.msgpack.Decoder(RunInfo)


def init(
    project: str = "default",
    name: str | None = None,
    *,
    store: str | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    offline: bool = False,
    settings: Settings | None = None,
) -> "Run":
    """Open a run; no daemon is asked for until the first save.

    `name` is made up if not given; processes that give the same project and name share the run. `store` is a
    URL or a directory, by default the setting `store`. With `offline` everything goes to the inbox.
    """
    settings = settings or load()
    started = time.time()
    info = RunInfo(
        project=arguments.label(project, "project"),
        name=arguments.label(name, "run name") if name is not None else _made_up(started),
        store=store_url(store or settings.store),
        created_at=started,
        host=os.uname().nodename,
        user=os.environ.get("USER") or str(os.geteuid()),
        tags=arguments.tags(tags),
        metadata=arguments.plain(metadata),
    )
    arguments.check_sound(info, _runs.decode)
    return Run(info, settings, offline=offline)


class Run:
    """One run of a training script. Made by `init`."""

    def __init__(self, info: RunInfo, settings: Settings, *, offline: bool = False) -> None:
        self.info = info
        self._settings = settings
        self._offline = offline
        self._hand_over = HandOver(settings, offline=offline)

    def __reduce__(self) -> tuple[Callable[..., "Run"], tuple[RunInfo, Settings, bool]]:
        # Spawned workers are handed the run; each has a connection of its own.
        return _reopened, (self.info, self._settings, self._offline)

    def __repr__(self) -> str:
        return f"<Run {self.info.project}/{self.info.name} -> {self.info.store}>"

    @property
    def settings(self) -> Settings:
        """The settings that it was opened with."""
        return self._settings

    @property
    def project(self) -> str:
        """The project's name."""
        return self.info.project

    @property
    def name(self) -> str:
        """The run's name."""
        return self.info.name

    def save_file(
        self,
        path: Source,
        category: Category | str = Category.OUTPUT,
        content_type: str | None = None,
        *,
        preserve_path: bool = False,
        name: str | bytes | None = None,
        prefix: str = "",
        description: str = "",
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep: Keep | str = Keep.ALL,
    ) -> Delivery:
        """Save the file's present content; it may be overwritten or deleted as soon as this returns.

        `name` is the file's own unless given; `preserve_path` makes it the whole path. `keep="newest"` lets
        this save replace an undelivered one of the same name. Raises UsageError, MissingSourceError,
        SpoolFullError or UnstableSourceError; trouble with delivery is never raised here.
        """
        return self._save(
            Kind.FILE, path, category, preserve_path=preserve_path, name=name, content_type=content_type,
            prefix=prefix, description=description, tags=tags, metadata=metadata, priority=priority, keep=keep,
        )  # fmt: skip

    def save_object(
        self,
        obj: Any,
        category: Category | str = Category.OUTPUT,
        name: str | bytes | None = None,
        *,
        prefix: str = "",
        description: str = "",
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep: Keep | str = Keep.ALL,
        serializer: "Serializer | str | None" = None,
        allow_pickle: bool = False,
    ) -> Delivery:
        """Save an object as it is now; `StoredFile.get` returns it. Other arguments and errors as for `save_file`.

        Its kind decides how it is written, and the ending of `name` where there is a choice; a name without an ending
        gets one, and an object without a name that of its type. Raises UsageError for what nothing holds exactly;
        with `allow_pickle` that is pickled.
        """
        from dropoff.objects import write  # noqa: PLC0415  # most of what is saved are files
        from dropoff.serializers.choosing import ways  # noqa: PLC0415  # same

        raw = check_name(type(obj).__name__.lower() if name is None else name)
        found = ways(obj, raw, serializer, allow_pickle=allow_pickle)
        with scratch(self._settings) as fd:
            way = write(self._settings, obj, found, fd)
            finish(fd)
            return self._give(
                Kind.FILE, fd, way.name, category, source=b"", content_type=way.serializer.content_type or None,
                prefix=prefix, description=description, tags=tags, metadata=metadata, priority=priority, keep=keep,
                serializer=way.serializer.name,
            )  # fmt: skip

    def save_directory(
        self,
        path: Source,
        category: Category | str = Category.OUTPUT,
        content_type: str | None = None,
        *,
        preserve_path: bool = False,
        name: str | bytes | None = None,
        prefix: str = "",
        description: str = "",
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep: Keep | str = Keep.ALL,
    ) -> Delivery:
        """Save every file below the directory as one job; arguments and errors as for `save_file`.

        Symbolic links are followed inside the directory only; what is passed over is in `Delivery.skipped`.
        """
        return self._save(
            Kind.DIRECTORY, path, category, preserve_path=preserve_path, name=name, content_type=content_type,
            prefix=prefix, description=description, tags=tags, metadata=metadata, priority=priority, keep=keep,
        )  # fmt: skip

    def save_all(
        self,
        paths: Iterable[Source],
        category: Category | str = Category.OUTPUT,
        content_type: str | None = None,
        *,
        preserve_path: bool = False,
        prefix: str = "",
        description: str = "",
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        keep: Keep | str = Keep.ALL,
    ) -> list[Delivery]:
        """Save files and directories, one job each; arguments and errors as for `save_file`."""
        return [
            self._save(
                Kind.DIRECTORY if os.path.isdir(path) else Kind.FILE, path, category, name=None,
                preserve_path=preserve_path, content_type=content_type, prefix=prefix, description=description,
                tags=tags, metadata=metadata, priority=priority, keep=keep,
            )
            for path in paths
        ]  # fmt: skip

    def log_artifact(
        self,
        artifact_or_path: Artifact | Source,
        name: str | None = None,
        type: str | None = None,  # noqa: A002  # the word of every user of artifacts
        aliases: Iterable[str] = (),
        tags: Iterable[str] = (),
        *,
        priority: int = 0,
    ) -> Delivery:
        """Make what was added to an artifact its next version, or a file's or directory's present content.

        Versions of one artifact are numbered in the order of these calls, whatever is stored first; content equal
        to the newest version's makes no new one. The version becomes visible, whole, once all of it is stored;
        then `latest` and `aliases` stand for it. `name` and `type` are those of the artifact; a path's are its
        own and "unspecified". The receipt tells the version's number. Raises UsageError for an artifact that
        contradicts itself, or that is in custody under another type.
        """
        aliases, tags = alias_names(aliases), arguments.tags(tags)
        artifact = artifact_or_path
        if not isinstance(artifact, Artifact):
            artifact = self._artifact_of(artifact, name, type)
        elif (name or artifact.name, type or artifact.type) != (artifact.name, artifact.type):
            raise UsageError(
                f"unable to log {artifact!r} under another name or type", hint="leave name= and type= out"
            )
        return self._close(artifact, aliases, tags, priority)

    def log_model(
        self,
        path: Source,
        name: str | None = None,
        framework: str = "",
        aliases: Iterable[str] = (),
        tags: Iterable[str] = (),
        *,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
    ) -> Delivery:
        """Make a file's or directory's present content the next version of a model, as `log_artifact` does.

        `framework` is kept in the metadata, under that name.
        """
        aliases, tags = alias_names(aliases), arguments.tags(tags)
        said = arguments.plain(metadata) | ({"framework": framework} if framework else {})
        artifact = self._artifact_of(path, name, "model")
        artifact.description, artifact.metadata = description, said
        return self._close(artifact, aliases, tags, priority)

    def upsert_artifact(
        self, artifact: Artifact, group: str, *, writer: str | None = None, priority: int = 0
    ) -> Delivery:
        """Contribute to a version that many writers make together, from any process or host, in any order.

        It becomes visible when `finish_artifact` is called for the group. Tried again, the same files are no
        conflict; with a `writer` of its own, such as its rank, the later contribution takes the place of the earlier.
        The delivery is held, and says so, where the group was finished without it.
        """
        name = writer or f"{self.info.host}-{new_job_id()}"
        made = Group(name=arguments.label(group, "group"), writer=arguments.label(name, "writer"))
        return self._close(artifact, (), (), priority, made)

    def finish_artifact(
        self,
        artifact: Artifact,
        group: str,
        aliases: Iterable[str] = (),
        tags: Iterable[str] = (),
        *,
        writers: int = 0,
        priority: int = 0,
    ) -> Delivery:
        """Make one version of what was contributed to a group, once all of it is stored.

        What this host contributed before is waited for; what others did, only if `writers` says how many there have
        to be. What `artifact` holds is contributed, too; its description, metadata and time to live are those of the
        version. Called again, it is the same version. It is held where writers brought different content under one
        name.
        """
        named, aliases, tags = arguments.label(group, "group"), alias_names(aliases), arguments.tags(tags)
        if not artifact.is_empty:
            self.upsert_artifact(artifact, named, priority=priority)
            artifact = artifact.emptied()
        made = Group(name=named, finish=True, writers=writers)
        return self._close(artifact, aliases, tags, priority, made)

    def _close(
        self,
        artifact: Artifact,
        aliases: Iterable[str],
        tags: Iterable[str],
        priority: int,
        group: Group | None = None,
    ) -> Delivery:
        if artifact.settings.state_dir != self._settings.state_dir:
            raise UsageError(
                f"unable to log {artifact!r}: its files are with another daemon",
                hint="make it with the same settings: Artifact(..., settings=run.settings)",
            )
        save = artifact.close_with(self.info, aliases, tags, arguments.priority(priority), group)
        return Delivery(self._settings, save.job, artifact.skipped)

    def _artifact_of(self, path: Source, name: str | None, kind: str | None) -> Artifact:
        raw = arguments.path(path)
        own = display(os.path.basename(os.path.abspath(raw)))
        artifact = Artifact(name or own, kind or "unspecified", settings=self._settings, offline=self._offline)
        if os.path.isdir(raw):
            artifact.add_dir(raw)
        else:
            artifact.add_file(raw)
        return artifact

    def use_artifact(self, artifact: str) -> "StoredVersion":
        """Return a version, and note that this run uses it.

        It is named as "name:v3", "name:alias" or "name" (the latest), of this project, or "project/name:...".
        Raises NotStoredError if it is not in the run's store, UnavailableError without a daemon.
        """
        from dropoff.reading import open_version  # noqa: PLC0415  # training that only saves need not load it

        return open_version(
            artifact, project=self.project, store=self.info.store, settings=self._settings, user=self.info
        )

    @property
    def artifacts(self) -> "dict[str, StoredVersion]":
        """The newest version of each artifact that this run logged and that is delivered, by name."""
        from dropoff.reading import artifacts_of, run_id  # noqa: PLC0415  # same

        return artifacts_of(self._settings, run_id(self.info))

    @property
    def models(self) -> "dict[str, list[StoredModel]]":
        """The models that are delivered: those that this run used, under "input", and made, under "output"."""
        from dropoff.models import models_of  # noqa: PLC0415  # same
        from dropoff.reading import run_id  # noqa: PLC0415  # same

        return models_of(self._settings, run_id(self.info))

    def flush(self, timeout: float | None = None) -> Settled:
        """Wait, at most `timeout` seconds, until all that this run saved is delivered.

        Never raises for trouble: the answer tells how many are pending and which are held or were given up.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        return settle(self._settings, Wait(run=(self.info.project, self.info.name)), deadline)

    def _save(
        self,
        kind: Kind,
        path: Source,
        category: Category | str,
        *,
        preserve_path: bool,
        name: str | bytes | None,
        content_type: str | None,
        prefix: str,
        description: str,
        tags: Iterable[str],
        metadata: Mapping[str, Any] | None,
        priority: int,
        keep: Keep | str,
    ) -> Delivery:
        raw = arguments.path(path)
        whole = os.path.abspath(raw)
        opened = arguments.opened(raw, kind)
        try:
            own = name if name is not None else _name(raw, whole, preserve_path=preserve_path)
            return self._give(
                kind, opened, check_name(own), category, source=whole, content_type=content_type, prefix=prefix,
                description=description, tags=tags, metadata=metadata, priority=priority, keep=keep,
            )  # fmt: skip
        finally:
            os.close(opened)

    def _give(
        self,
        kind: Kind,
        opened: int,
        name: bytes,
        category: Category | str,
        *,
        source: bytes,
        content_type: str | None,
        prefix: str,
        description: str,
        tags: Iterable[str],
        metadata: Mapping[str, Any] | None,
        priority: int,
        keep: Keep | str,
        serializer: str = "",
    ) -> Delivery:
        save = Save(
            job=new_job_id(),
            run=self.info,
            kind=kind,
            name=name,
            category=arguments.choice(Category, category, "category"),
            source=source,
            created_at=time.time(),
            content_type=content_type,
            prefix=_prefix(prefix),
            description=description,
            tags=arguments.tags(tags),
            metadata=arguments.plain(metadata),
            priority=arguments.priority(priority),
            keep=arguments.choice(Keep, keep, "keep"),
            serializer=serializer,
        )
        arguments.check_sound(save, decode_request)
        skipped = self._hand_over.give(save, opened)
        return Delivery(self._settings, save.job, skipped)


def _reopened(info: RunInfo, settings: Settings, offline: bool) -> Run:  # called by pickle
    return Run(info, settings, offline=offline)


def _name(path: bytes, whole: bytes, *, preserve_path: bool) -> bytes:
    if preserve_path:
        return os.path.normpath(path).lstrip(b"/")
    # "." and ".." have no name of their own, but the directory they stand for has.
    return os.path.basename(whole) or b"root"


def _made_up(now: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + "-" + os.urandom(2).hex()


def _prefix(prefix: str) -> str:
    if not prefix:
        return ""
    try:
        return check_name(prefix.rstrip("/")).decode()
    except UnicodeDecodeError:
        raise UsageError(f"unable to use {prefix!r} as a prefix: it is not text", hint="use UTF-8") from None
