"""Verified contents on this machine, under their sha256: bounded, and safe to delete at any time.

    <cache_dir>/fetched/content/<sha256>       read-only
    <cache_dir>/fetched/trees/<id>/...         hard links to contents, under names
    <cache_dir>/fetched/incoming/              what is not verified yet

A content keeps one moment as its time of change. A program that writes to it in place all the same gives it another,
and it is fetched anew: what was verified is not hashed at every use. Several processes may share the cache: what is
there was renamed there whole, and what is deleted meanwhile is fetched again.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator

from dropoffd.fetch.below import Below, duplicate
from dropoffd.fetch.incoming import Incoming
from dropoffd.filesystem import private_directory

_MOMENT_NS = 10**9
_CONTENT, _TREES, _INCOMING = "content", "trees", "incoming"
# Below the bound by so much, so that not every content that comes looks for one to go.
_ROOM = 0.9


class Cache:
    """The cache in `directory`, of at most `most_bytes`. Its methods block."""

    def __init__(self, directory: str, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._top = os.path.join(directory, "fetched")
        self._lock = threading.Lock()
        self._bytes: int | None = None
        self._folds: bool | None = None

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Yield where contents lie until they are verified."""
        self._make()
        top = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            incoming = Incoming(top, _INCOMING)
            try:
                yield incoming
            finally:
                incoming.close()
        finally:
            os.close(top)

    def _make(self) -> None:
        os.makedirs(os.path.dirname(self._top), exist_ok=True)
        for path in (self._top, os.path.join(self._top, _CONTENT), os.path.join(self._top, _TREES)):
            private_directory(path)

    def path(self, sha256: str) -> str:
        """Return where a content is, if it is there."""
        return os.path.join(self._top, _CONTENT, sha256)

    def find(self, sha256: str, size: int) -> str | None:
        """Return where a content is, and note that it was used; None if it is not there, or was written to."""
        path = self.path(sha256)
        try:
            found = os.stat(path, follow_symlinks=False)
            if (found.st_mtime_ns, found.st_size) == (_MOMENT_NS, size):
                os.utime(path, ns=(time.time_ns(), _MOMENT_NS), follow_symlinks=False)
                return path
            os.unlink(path)
        except FileNotFoundError:
            pass
        return None

    def admit(self, sha256: str, incoming: Incoming, name: str) -> None:
        """Take in a verified file; it is on disk before it has its name, since nobody hashes it again."""
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=incoming.fd)
        try:
            os.fchmod(fd, 0o444)
            os.utime(fd, ns=(time.time_ns(), _MOMENT_NS))
            os.fsync(fd)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        os.rename(name, self.path(sha256), src_dir_fd=incoming.fd)
        with self._lock:
            if self._bytes is not None:
                self._bytes += size

    def folds(self) -> bool:
        """Tell whether the file system there takes letters of either case for one."""
        if self._folds is None:
            self._make()
            top = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._folds = Below(top).folds()
            finally:
                os.close(top)
        return self._folds

    def tree(self, name: str, files: Iterable[tuple[bytes, str]]) -> str:
        """Return a directory that has contents, by sha256, under names; made unless it is there as it should be.

        Raises FileNotFoundError if a content is not there, or was deleted just now.
        """
        path = os.path.join(self._top, _TREES, name)
        files = list(files)
        if not os.path.isdir(path) or not all(_intact(os.path.join(os.fsencode(path), file)) for file, _ in files):
            self._build(path, files)
        os.utime(path)
        return path

    def _build(self, path: str, files: Iterable[tuple[bytes, str]]) -> None:
        new = f"{path}.{secrets.token_hex(8)}"
        os.mkdir(new, 0o700)
        try:
            fd = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                below = Below(fd)
                for file, sha256 in files:
                    if not below.link(self.path(sha256), file):
                        self._copy(sha256, below, file)
            finally:
                os.close(fd)
            while not _took_its_place(new, path):
                _remove_tree(path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _copy(self, sha256: str, below: Below, file: bytes) -> None:
        """Stand in for a link where a content has as many names as the file system allows."""
        with self.incoming() as incoming:
            target, name = incoming.new()
            source = os.open(self.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
            try:
                duplicate(source, target)
                os.utime(target, ns=(time.time_ns(), _MOMENT_NS))
            finally:
                os.close(source)
                os.close(target)
            below.move(incoming.fd, name, file, 0o600)

    def trim(self) -> None:
        """Delete what was not used for longest until the rest is within the bound."""
        with self._lock:
            if self._bytes is not None and self._bytes <= self.most_bytes:
                return
            self._bytes = self._delete_oldest()

    def _delete_oldest(self) -> int:
        held = _Held(os.path.join(self._top, _CONTENT), os.path.join(self._top, _TREES))
        total = sum(held.size.values())
        if total <= self.most_bytes:
            return total
        for inode in sorted(held.size, key=lambda inode: held.used_ns[inode]):
            for tree in held.trees.get(inode, ()):
                _remove_tree(tree)
            if inode in held.content:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(held.content[inode])
            total -= held.size[inode]
            if total <= _ROOM * self.most_bytes:
                break
        return total


class _Held:
    """What is in the cache, by inode: a content and its names in trees take their space once."""

    def __init__(self, content: str, trees: str) -> None:
        self.size: dict[int, int] = {}
        self.used_ns: dict[int, int] = {}
        self.content: dict[int, str] = {}
        self.trees: dict[int, set[str]] = {}
        for path, found in _entries(content):
            self.content[found.st_ino] = path
            self._note(found.st_ino, found.st_size, found.st_atime_ns)
        for tree, used in _entries(trees):
            for directory, _, _ in os.walk(tree):
                for _, found in _entries(directory):
                    if stat.S_ISREG(found.st_mode):
                        self.trees.setdefault(found.st_ino, set()).add(tree)
                        self._note(found.st_ino, found.st_size, used.st_mtime_ns)

    def _note(self, inode: int, size: int, used_ns: int) -> None:
        self.size[inode] = size
        self.used_ns[inode] = max(used_ns, self.used_ns.get(inode, 0))


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a directory; what vanishes meanwhile, or all of it, does not count."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry.path, entry.stat(follow_symlinks=False)


def _took_its_place(new: str, path: str) -> bool:
    try:
        os.rename(new, path)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _intact(path: bytes) -> bool:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns == _MOMENT_NS
    except OSError:
        return False


def _remove_tree(path: str) -> None:
    gone = f"{path}.{secrets.token_hex(8)}.gone"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)
