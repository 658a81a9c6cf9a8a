"""Freeze the content of a call, before it is answered.

The rungs, cheapest first: a small file is read into the job's row; a large one gets a hard link and a read
lease, whatever its size; where a lease is refused (somebody has the file open for writing), a reflink; where there
is none, a copy. `docs/design.md` tells why each holds. A directory is walked, its small files go into one
pack and its large ones through the same rungs.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from functools import partial

from dropoff.content import (
    SMALL_MAX_BYTES,
    Capture,
    Content,
    copy_frozen,
    payload_name,
    read_frozen,
    reflink,
    stamp,
    stamp_of,
    write_all,
)
from dropoff.errors import UsageError
from dropoff.names import display
from dropoff.saves import Kind, Save, Stamp
from dropoff.snapshot import snapshot
from dropoffd.capture import lease
from dropoffd.capture.guard import Guard
from dropoffd.capture.holding import Holding
from dropoffd.capture.homes import Homes
from dropoffd.custody import Room
from dropoffd.threads import promptly

# Up to here the bytes travel with the job's row: one sync for both.
INLINE_MAX_BYTES = 64 << 10


class Frozen:
    """What a freeze made; either it becomes a job's, or `undo` takes it back."""

    def __init__(self, room: Room, guard: Guard) -> None:
        self.contents: list[Content] = []
        self.skipped: list[str] = []
        self.holdings: dict[int, Holding] = {}
        self.reserved_bytes = 0
        self._room = room
        self._guard = guard
        self._made: list[str] = []

    def reserve(self, size: int) -> None:
        """Count bytes against the quota; raises SpoolFullError."""
        self._room.reserve(size)
        self.reserved_bytes += size

    def made(self, path: str) -> None:
        """Note a file to remove if this comes to nothing."""
        self._made.append(path)

    def undo(self) -> None:
        """Remove what was made and give back what was held."""
        for path in self._made:
            self._guard.drop(os.path.basename(path))
        for holding in self.holdings.values():
            holding.close()
        for path in self._made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._room.release(self.reserved_bytes)
        self.reserved_bytes = 0


class Freezer:
    """Freezes files and directories for the spool of `homes`."""

    def __init__(self, homes: Homes, room: Room, guard: Guard, may_lease: Callable[[], bool]) -> None:
        self._homes = homes
        self._room = room
        self._guard = guard
        self._may_lease = may_lease

    def at_once(self, save: Save, fd: int) -> Frozen | None:
        """Freeze a file by the rungs that never wait for a disk; None if it takes another rung."""
        found = os.fstat(fd)
        if save.kind is not Kind.FILE or not stat.S_ISREG(found.st_mode):
            return None
        frozen = Frozen(self._room, self._guard)
        try:
            content = self._quickly(save, fd, found, frozen)
        except BaseException:
            frozen.undo()
            raise
        if content is None:
            frozen.undo()
            return None
        frozen.contents.append(content)
        return frozen

    def _quickly(self, save: Save, fd: int, found: os.stat_result, frozen: Frozen) -> Content | None:
        if found.st_size <= INLINE_MAX_BYTES:
            frozen.reserve(found.st_size)
            return _read_cached(fd, save.name, found)
        home = self._homes.known(found.st_dev)
        if found.st_size <= SMALL_MAX_BYTES or home is None:
            return None
        frozen.reserve(found.st_size)
        return self._link(fd, 1, save.name, save.job, home, frozen)

    async def freeze(self, save: Save, fd: int) -> Frozen:
        """Freeze by whatever rung holds; raises UsageError, UnstableSourceError or SpoolFullError."""
        frozen = Frozen(self._room, self._guard)
        try:
            await promptly(partial(self._freeze, save, fd, frozen))
        except BaseException:
            frozen.undo()
            raise
        return frozen

    def _freeze(self, save: Save, fd: int, frozen: Frozen) -> None:
        mode = os.fstat(fd).st_mode
        if save.kind is Kind.DIRECTORY and stat.S_ISDIR(mode):
            self._directory(save, fd, frozen)
        elif save.kind is Kind.FILE and stat.S_ISREG(mode):
            frozen.reserve(os.fstat(fd).st_size)
            frozen.contents.append(self._file(fd, 1, save.name, save.job, frozen))
        else:
            raise UsageError(f"unable to capture {display(save.source)}: it is not a {save.kind}")

    def _directory(self, save: Save, fd: int, frozen: Frozen) -> None:
        name = payload_name(save.job, 0)
        home = os.open(self._homes.payloads, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            frozen.contents, frozen.skipped = snapshot(
                fd,
                home,
                name,
                self._homes.place(self._homes.payloads, name),
                lambda child, ordinal, path: self._file(child, ordinal, path, save.job, frozen),
                frozen.reserve,
            )
            # Only now is it ours to undo: of that name there may be one that an earlier call of this job made.
            frozen.made(os.path.join(self._homes.payloads, name))
            os.fsync(home)
        finally:
            os.close(home)

    def _file(self, fd: int, ordinal: int, path: bytes, job: str, frozen: Frozen) -> Content:
        size = os.fstat(fd).st_size
        if size <= SMALL_MAX_BYTES:
            return self._small(fd, ordinal, path, job, frozen)
        home = self._homes.find(fd)
        linked = self._link(fd, ordinal, path, job, home, frozen) if home else None
        if linked:
            return linked
        return self._clone(fd, ordinal, path, job, home or self._homes.payloads, frozen)

    def _link(self, fd: int, ordinal: int, path: bytes, job: str, home: str, frozen: Frozen) -> Content | None:
        """Lease first, then look, then link: from the lease on nobody can write."""
        if not self._may_lease():
            return None
        own = lease.reopen(fd)
        if own is None:
            return None
        name = payload_name(job, ordinal)
        target = os.path.join(home, name)
        try:
            if not lease.take(own):
                os.close(own)
                return None
            found = os.fstat(own)
            # A src_dir_fd, any, makes Python call linkat with AT_SYMLINK_FOLLOW; without it this is EXDEV.
            os.link(f"/proc/self/fd/{own}", target, src_dir_fd=own)
        except FileExistsError:
            os.close(own)
            raise
        except OSError:  # deleted, another mount of the same file system, a protected hard link: next rung
            os.close(own)
            return None
        frozen.made(target)
        content = _content(
            ordinal, path, found, Capture.LINK, self._homes.place(home, name), stamp_of(found), synced=False
        )
        holding = Holding(own, content, content.stamp)
        holding.leased = True
        frozen.holdings[ordinal] = holding
        self._guard.hold(name, own, content.size_bytes, self._homes.own_path(name))
        return content

    def _clone(self, fd: int, ordinal: int, path: bytes, job: str, home: str, frozen: Frozen) -> Content:
        capture, directory, kept, found = Capture.REFLINK, home, None, os.fstat(fd)
        target = _new(home, payload_name(job, ordinal), frozen)
        try:
            if reflink(fd, target):
                kept = stamp(target)
        finally:
            os.close(target)
        if kept is None:
            # Copies belong on the spool's own disk: the file's may be a small tmpfs.
            os.unlink(os.path.join(home, payload_name(job, ordinal)))
            capture, directory = Capture.COPY, self._homes.payloads
            target = _new(directory, payload_name(job, ordinal), frozen)
            try:
                copy_frozen(fd, target, path, written_by_others=True)
                kept = stamp(target)
            finally:
                os.close(target)
        place = self._homes.place(directory, payload_name(job, ordinal))
        return _content(ordinal, path, found, capture, place, kept, synced=False)

    def _small(self, fd: int, ordinal: int, path: bytes, job: str, frozen: Frozen) -> Content:
        data, found = read_frozen(fd, path)
        if len(data) <= INLINE_MAX_BYTES:
            return _inline(ordinal, path, found, data)
        name = payload_name(job, ordinal)
        target = _new(self._homes.payloads, name, frozen)
        try:
            write_all(target, data)
            os.fsync(target)
            kept = stamp(target)
        finally:
            os.close(target)
        place = self._homes.place(self._homes.payloads, name)
        return _content(ordinal, path, found, Capture.COPY, place, kept, synced=True)


def _new(home: str, name: str, frozen: Frozen) -> int:
    path = os.path.join(home, name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    frozen.made(path)
    return fd


def _read_cached(fd: int, path: bytes, found: os.stat_result) -> Content | None:
    """Read a small file from the page cache, without ever waiting for a disk (preadv2(2), RWF_NOWAIT)."""
    first, second = bytearray(found.st_size), bytearray(found.st_size)
    try:
        read = os.preadv(fd, [first], 0, os.RWF_NOWAIT) if first else 0
        again = os.preadv(fd, [second], 0, os.RWF_NOWAIT) if second else 0
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL}:
            return None
        raise
    if not read == again == found.st_size or first != second:
        return None
    return _inline(1, path, found, bytes(first))


def _inline(ordinal: int, path: bytes, found: os.stat_result, data: bytes) -> Content:
    return Content(
        ordinal=ordinal, path=path, size_bytes=len(data), mode=found.st_mode & 0o777, mtime_ns=found.st_mtime_ns,
        capture=Capture.INLINE, inline=data,
    )  # fmt: skip


def _content(
    ordinal: int,
    path: bytes,
    found: os.stat_result,
    capture: Capture,
    place: bytes,
    kept: Stamp,
    *,
    synced: bool,
) -> Content:
    return Content(
        ordinal=ordinal, path=path, size_bytes=kept.size_bytes, mode=found.st_mode & 0o777,
        mtime_ns=found.st_mtime_ns, capture=capture, place=place, stamp=kept, synced=synced,
    )  # fmt: skip
