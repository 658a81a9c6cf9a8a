"""A local directory as a store, for one machine or a shared mount.

An object is a file under its key. It is written under `.incoming/`, hashed as it is written, synced, and then
linked to its place: `link` never replaces anything, so `Create` is atomic, and a reader sees a whole object or
none. Its sha256 is kept as an extended attribute where the file system has them, else computed when asked for.
Everything here blocks, so everything runs in threads.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from io import FileIO
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread
import msgspec

from dropoff.settings import directory_url
from dropoffd.filesystem import sync
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    CorruptError,
    Create,
    DeniedError,
    Folder,
    Limits,
    Mode,
    NotFoundError,
    PreconditionFailedError,
    Progress,
    RefusedError,
    Replace,
    Stat,
    StoreError,
    UnavailableError,
)
from dropoffd.stores.directory.listing import INCOMING, changes, etag, folders, listed, told
from dropoffd.threads import give_way
from dropoffd.writeback import write_back

T = TypeVar("T")

PIECE_BYTES = 1 << 20
# What each of several deliveries has in the disk's queue, before the commit of a save that comes now.
_QUEUED_BYTES = 256 << 10
_SHA256 = "user.dropoff.sha256"
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_REFUSED = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR})


class DirectoryStore:
    """Objects as files below `root`."""

    limits = Limits(
        object_max_bytes=1 << 62,
        key_max_bytes=3500,
        component_max_bytes=255,
        creates_atomically=True,
        replaces_atomically=True,
        verifies="sha256",
        single_max_bytes=1 << 62,
    )
    multipart = None

    def __init__(self, root: str) -> None:
        root = os.path.normpath(root)
        self.url = directory_url(root)
        self._root = root
        self._known: set[str] = set()

    async def prepare(self) -> None:
        """Every directory can do the same."""

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body` under `key`."""
        return await self._in_thread(self._put, key, body, mode, progress)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return some of an object's bytes."""
        return await self._in_thread(self._get, key, start, end)

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill a buffer with an object's bytes."""
        return await self._in_thread(self._read, key, start, buffer)

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`."""
        return await self._in_thread(self._stat, key)

    async def head(self, key: str) -> Stat:
        """Return what is known of `key`."""
        return await self._in_thread(partial(self._stat, key, hashed=False))

    async def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix."""
        for found in await self._in_thread(listed, self._root, prefix):
            yield found

    async def folders(self, prefix: str) -> AsyncIterator[str]:
        """Yield the directories that come next in keys."""
        for folder in await self._in_thread(folders, self._root, prefix):
            yield folder

    async def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """Yield the folders below a prefix, without the objects of those that are as they were."""
        for folder in await self._in_thread(changes, self._root, prefix, known):
            yield folder

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._in_thread(self._delete, key)

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        try:
            return await anyio.to_thread.run_sync(partial(work, *args))
        except OSError as error:
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> StoreError:
        cause = f"unable to use the store {self.url}: {error.strerror or error}"
        if error.errno == errno.ELOOP:
            return RefusedError(f"{cause}: {error.filename}", hint="remove this link: it leads to itself")
        if error.errno in _DENIED:
            return DeniedError(cause, hint=f"give this user write access to {self._root}, then `dropoff retry`")
        if error.errno in _REFUSED:
            return RefusedError(cause, hint="save it under a shorter or different name")
        if error.errno == errno.ENOENT:
            return NotFoundError(cause)
        return UnavailableError(cause, hint=f"free space, or repair the disk of {self._root}")

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or any(part in {"", ".", "..", INCOMING} or "\0" in part for part in parts):
            raise RefusedError(f"unable to use {key!r} as a key: it is not a plain relative path")
        return os.path.join(self._root, key)

    def _put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        give_way()
        path = self._path(key)
        incoming = os.path.join(self._root, INCOMING)
        self._make_directory(incoming)
        temporary = os.path.join(incoming, secrets.token_hex(16))
        try:
            _write(temporary, body, progress)
            self._make_directory(os.path.dirname(path))
            self._place(temporary, path, mode)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync(os.path.dirname(path))
        return self._stat(key)

    def _place(self, temporary: str, path: str, mode: Mode) -> None:
        if isinstance(mode, Create):
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise AlreadyExistsError(f"unable to create {path}: it exists") from None
        elif isinstance(mode, Replace):
            with self._locked():
                if not os.path.isfile(path) or etag(os.stat(path)) != mode.etag:
                    raise PreconditionFailedError(f"unable to replace {path}: it changed")
                os.rename(temporary, path)
        else:
            with self._locked():  # else it could vanish between another's look at the etag and its rename
                os.rename(temporary, path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(os.path.join(self._root, INCOMING, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make_directory(self, path: str) -> None:
        """Make a directory and those above it, and sync what names the new ones."""
        if path in self._known and os.path.isdir(path):
            return
        above = os.path.dirname(path)
        try:
            os.mkdir(path)
        except FileNotFoundError:
            self._make_directory(above)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        sync(above)
        # Bounded: it only spares a sync per object of the directories in use.
        if len(self._known) > 10_000:
            self._known.clear()
        self._known.add(path)

    def _get(self, key: str, start: int, end: int | None) -> bytes:
        with os.fdopen(_open(self._path(key)), "rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else max(0, end - start))

    def _read(self, key: str, start: int, buffer: memoryview) -> int:
        fd = _open(self._path(key))
        try:
            filled = 0
            while filled < len(buffer) and (count := os.preadv(fd, [buffer[filled:]], start + filled)):
                filled += count
            return filled
        finally:
            os.close(fd)

    def _stat(self, key: str, *, hashed: bool = True) -> Stat:
        path = self._path(key)
        fd = _open(path)
        try:
            sha256 = _known_sha256(fd) or (_hash(fd) if hashed else "")
            return msgspec.structs.replace(told(key, os.stat(path)), sha256=sha256)
        finally:
            os.close(fd)

    def _delete(self, key: str) -> None:
        # A prefix of keys is a directory here, and no object.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            os.unlink(self._path(key))


def _write(path: str, body: Body, progress: Progress) -> None:
    digest = hashlib.sha256()
    with open(path, "xb", buffering=0) as file:
        offset = 0
        while offset < body.size_bytes:
            anyio.from_thread.check_cancelled()
            piece = body.read(min(PIECE_BYTES, body.size_bytes - offset), offset)
            if not piece:
                break
            anyio.from_thread.run(body.admit, len(piece))
            digest.update(piece)
            for start in range(0, len(piece), _QUEUED_BYTES):
                _write_through(file, memoryview(piece)[start : start + _QUEUED_BYTES], offset + start)
            offset += len(piece)
            progress(len(piece))
        if digest.hexdigest() != body.sha256 or offset != body.size_bytes:
            raise CorruptError(f"unable to store {path}: its content differs from the digest taken before")
        with contextlib.suppress(OSError):  # not every file system has extended attributes
            os.setxattr(file.fileno(), _SHA256, body.sha256.encode())
        os.fsync(file.fileno())


def _write_through(file: FileIO, data: memoryview, offset: int) -> None:
    view = data
    while view:
        view = view[file.write(view) :]
    write_back(file.fileno(), offset, len(data))


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError:
        raise NotFoundError(f"unable to open {path}: there is no such object") from None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise NotFoundError(f"unable to open {path}: it is a prefix, not an object")


def _known_sha256(fd: int) -> str:
    try:
        return os.getxattr(fd, _SHA256).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _hash(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
