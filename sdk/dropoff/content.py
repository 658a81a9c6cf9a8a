"""Content in custody: where the bytes of one file lie, and how to tell that they are still the same.

A `Content` describes one file of a job. Its bytes are in the spool's database (`inline`), in a payload file,
or inside a pack of small files. `place` is relative to the state directory wherever it can be, so that a
spool may be carried to another machine.
"""

import enum
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

import msgspec

from dropoff.errors import UnstableSourceError
from dropoff.names import display
from dropoff.saves import Stamp

SMALL_MAX_BYTES = 1 << 20
PAYLOADS = "payloads"
_FICLONE = 0x40049409
_SENDFILE_BYTES = 64 << 20
_STABLE_TRIES = 3
_NO_REFLINK = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)


class Capture(enum.StrEnum):
    """How content was frozen: the rungs of `docs/design.md`, and what the spool makes of them."""

    INLINE = "inline"
    LINK = "link"
    REFLINK = "reflink"
    COPY = "copy"
    PACK = "pack"
    PACKED = "packed"


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a job, or the pack that holds its small files (`Capture.PACK`, with an empty path)."""

    ordinal: int
    path: bytes
    size_bytes: int
    mode: int
    mtime_ns: int
    capture: Capture
    place: bytes = b""
    offset: int = 0
    inline: bytes | None = None
    stamp: Stamp | None = None
    synced: bool = True
    """Whether the bytes are known to be on disk, and not only in the page cache."""


def payload_name(job: str, ordinal: int) -> str:
    """Return the file name of a job's content, the same in the inbox and in custody."""
    return f"{job}-{ordinal}"


def payload_place(job: str, ordinal: int) -> bytes:
    """Return where that content lies, relative to the state directory."""
    return os.fsencode(os.path.join(PAYLOADS, payload_name(job, ordinal)))


def stamp_of(found: os.stat_result) -> Stamp:
    """Return the part of `found` that changes with a file's content."""
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def stamp(fd: int) -> Stamp:
    """Return the stamp of the open file `fd`."""
    return stamp_of(os.fstat(fd))


def reflink(source: int, target: int) -> bool:
    """Share `source`'s blocks with `target`; False where the file system cannot (ioctl_ficlone(2)).

    May take seconds on a file with many dirty pages, so never on an event loop.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_REFLINK:
            return False
        raise
    return True


def copy(source: int, target: int, size: int, between: Callable[[], None] | None = None) -> None:
    """Copy the first `size` bytes, keeping holes; `target` is empty and ends with exactly that size.

    `between` is called between pieces and may end it all by raising.
    """
    os.ftruncate(target, size)
    for start, end in _data_ranges(source, size):
        os.lseek(target, start, os.SEEK_SET)
        position = start
        while position < end:
            if between:
                between()
            # sendfile, not copy_file_range: on ext4 it is two to three times as fast.
            sent = os.sendfile(target, source, position, min(end - position, _SENDFILE_BYTES))
            if sent == 0:  # the source shrank: the caller's stamps will differ
                return
            position += sent


def _data_ranges(source: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            yield position, size  # no hole information here: all is data
            return
        if start >= size:
            return
        yield start, min(end, size)
        position = end


def copy_frozen(source: int, target: int, name: bytes, *, written_by_others: bool = False) -> Stamp:
    """Copy the file as it was at one moment and return the source's stamp of that moment.

    A file that grows meanwhile is fine as long as what was copied did not change: the copy is compared with a
    second reading. So it is, always, where others are known to have it open for writing: a write sets the file's
    time when it begins, and a long one may go on between two equal stamps. Raises UnstableSourceError when the
    file never holds still.
    """
    for _ in range(_STABLE_TRIES):
        before = stamp(source)
        os.ftruncate(target, 0)
        copy(source, target, before.size_bytes)
        unmoved = stamp(source) == before and not written_by_others
        if unmoved or _same(source, target, before.size_bytes):
            return before
    raise _unstable(name)


def read_frozen(source: int, name: bytes) -> tuple[bytes, os.stat_result]:
    """Read a small file as it was at one moment: twice, with one result; errors as of `copy_frozen`."""
    for _ in range(_STABLE_TRIES):
        before = os.fstat(source)
        data = pread_all(source, before.st_size)
        if len(data) != before.st_size:
            continue
        if pread_all(source, before.st_size) == data:
            return data, before
    raise _unstable(name)


def pread_all(fd: int, size: int, offset: int = 0) -> bytes:
    """Read `size` bytes from `offset`; fewer only at the end of the file."""
    data = os.pread(fd, size, offset)
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _same(left: int, right: int, size: int) -> bool:
    position = 0
    while position < size:
        piece = min(SMALL_MAX_BYTES, size - position)
        data = os.pread(left, piece, position)
        if not data or data != pread_all(right, len(data), position):
            return False
        position += len(data)
    return True


def _unstable(name: bytes) -> UnstableSourceError:
    return UnstableSourceError(
        f"unable to capture {display(name)}: another process keeps writing to it",
        hint="save it when the writer is done, or have the writer write a new file and rename it",
    )
