"""A run: what training code holds on to, and the calls that save.

A save opens the file, hands its descriptor to the daemon and returns when the content is frozen and the job
is on disk. What can be wrong with the call is raised here, at once; what happens later is on the `Delivery`.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from dropoff.client import Client
from dropoff.delivery import Delivery, settle
from dropoff.errors import MissingSourceError, ProtocolError, UnavailableError, UsageError
from dropoff.ids import new_job_id
from dropoff.messages import (
    PRIORITY_MOST,
    Accepted,
    Category,
    Keep,
    Kind,
    RunInfo,
    Save,
    Settled,
    Wait,
    decode_request,
    encode,
)
from dropoff.names import check_name, display
from dropoff.settings import OnUnavailable, Settings, load, store_url

Source = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_runs = msgspec.msgpack.Decoder(RunInfo)
_Choice = TypeVar("_Choice", Category, Keep)


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
        project=_label(project, "project"),
        name=_label(name, "run name") if name is not None else _made_up(started),
        store=store_url(store or settings.store),
        created_at=started,
        host=os.uname().nodename,
        user=os.environ.get("USER") or str(os.geteuid()),
        tags=_tags(tags),
        metadata=_plain(metadata),
    )
    _check_sound(info, _runs.decode)
    return Run(info, settings, offline=offline)


class Run:
    """One run of a training script. Made by `init`."""

    def __init__(self, info: RunInfo, settings: Settings, *, offline: bool = False) -> None:
        self.info = info
        self._settings = settings
        self._offline = offline
        self._client = Client(settings)
        # A fifth of the SDK's import, so not at its top; and not in a save, which may be one in a signal handler that
        # interrupted this very import.
        from dropoff.inbox import deposit  # noqa: PLC0415

        self._deposit = deposit

    def __reduce__(self) -> tuple[Callable[..., "Run"], tuple[RunInfo, Settings, bool]]:
        # Spawned workers are handed the run; each has a connection of its own.
        return _reopened, (self.info, self._settings, self._offline)

    def __repr__(self) -> str:
        return f"<Run {self.info.project}/{self.info.name} -> {self.info.store}>"

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
        try:
            raw = os.fsencode(path)
        except UnicodeEncodeError:
            raise UsageError(f"unable to save {path!r}: no file can have that name", hint="check the path") from None
        if not -PRIORITY_MOST <= priority <= PRIORITY_MOST:
            raise UsageError(
                f"unable to use priority {priority}", hint=f"it goes from {-PRIORITY_MOST} to {PRIORITY_MOST}"
            )
        source = _open(raw, kind)
        try:
            save = Save(
                job=new_job_id(),
                run=self.info,
                kind=kind,
                name=check_name(name) if name is not None else _name(raw, preserve_path=preserve_path),
                category=_choice(Category, category, "category"),
                source=os.path.abspath(raw),
                created_at=time.time(),
                content_type=content_type,
                prefix=_prefix(prefix),
                description=description,
                tags=_tags(tags),
                metadata=_plain(metadata),
                priority=priority,
                keep=_choice(Keep, keep, "keep"),
            )
            _check_sound(save, decode_request)
            skipped = self._hand_over(save, source)
        finally:
            os.close(source)
        return Delivery(self._settings, save.job, skipped)

    def _hand_over(self, save: Save, source: int) -> tuple[str, ...]:
        if not self._offline:
            try:
                reply = self._client.call(save, fd=source)
            except UnavailableError:
                if self._settings.on_unavailable is OnUnavailable.ERROR:
                    raise
            else:
                return reply.skipped if isinstance(reply, Accepted) else ()
        return self._deposit(self._settings, save, source).skipped


def _reopened(info: RunInfo, settings: Settings, offline: bool) -> Run:  # called by pickle
    return Run(info, settings, offline=offline)


def _open(path: bytes, kind: Kind) -> int:
    shown = display(path)
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingSourceError(
            f"unable to save {shown}: no such file or directory", hint="check the path; it is relative to "
            + os.getcwd()
        ) from None  # fmt: skip
    except ValueError as error:
        raise UsageError(f"unable to save {shown}: {error}", hint="check the path") from None
    except OSError as error:
        raise UsageError(
            f"unable to save {shown}: {error.strerror}", hint="check the path and its permissions"
        ) from error
    mode = os.fstat(fd).st_mode
    wanted = stat.S_ISDIR if kind is Kind.DIRECTORY else stat.S_ISREG
    if wanted(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise UsageError(f"unable to save {shown} as a file: it is a directory", hint="use save_directory")
    if stat.S_ISREG(mode):
        raise UsageError(f"unable to save {shown} as a directory: it is a file", hint="use save_file")
    raise UsageError(f"unable to save {shown}: it is neither a file nor a directory", hint="save a regular file")


def _name(path: bytes, *, preserve_path: bool) -> bytes:
    whole = os.path.normpath(path).lstrip(b"/")
    if preserve_path:
        return check_name(whole)
    # "." and ".." have no name of their own, but the directory they stand for has.
    return check_name(os.path.basename(os.path.abspath(path)) or b"root")


def _label(text: str, what: str) -> str:
    """Check a project's or run's name: one path component that is also fine to read and type."""
    try:
        raw = check_name(text)
    except UsageError as error:
        raise UsageError(f"unable to use {text!r} as a {what}: {error.message}", hint=error.hint) from None
    if b"/" in raw or display(raw) != text:
        raise UsageError(
            f"unable to use {text!r} as a {what}",
            hint="use letters, digits, spaces, '-', '_' and '.', no '/'",
        )
    return text


def _made_up(now: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + "-" + os.urandom(2).hex()


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise UsageError(f"unable to use {tags!r} as tags: it is one string", hint=f"write tags=[{tags!r}]")
    made = tuple(tags)
    if not all(isinstance(tag, str) and tag for tag in made):
        raise UsageError(f"unable to use {made!r} as tags", hint="tags are non-empty strings")
    return made


def _plain(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if not metadata:
        return {}
    try:
        plain = msgspec.json.decode(msgspec.json.encode(dict(metadata)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"unable to use the metadata: {error}",
            hint="use what JSON has: str, int, float, bool, None, lists and dicts with str keys; "
            "for a NumPy or torch scalar, call .item()",
        ) from None
    if not isinstance(plain, dict):
        raise UsageError(f"unable to use {metadata!r} as metadata", hint="give a dict")
    return plain


def _prefix(prefix: str) -> str:
    if not prefix:
        return ""
    try:
        return check_name(prefix.rstrip("/")).decode()
    except UnicodeDecodeError:
        raise UsageError(f"unable to use {prefix!r} as a prefix: it is not text", hint="use UTF-8") from None


def _check_sound(message: Save | RunInfo, decode: Callable[[bytes], object]) -> None:
    """Find out here, and not in the daemon's log, that an argument is of the wrong type or out of range."""
    try:
        decode(encode(message))
    except (ProtocolError, msgspec.DecodeError, OverflowError, UnicodeError, TypeError) as error:
        cause = error.message if isinstance(error, ProtocolError) else error
        raise UsageError(
            f"unable to use these arguments: {cause}", hint="see `help(dropoff.Run.save_file)`"
        ) from None


def _choice(kind: type[_Choice], value: _Choice | str, what: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"unable to use {value!r} as {what}", hint="choose one of: " + ", ".join(kind)) from None
