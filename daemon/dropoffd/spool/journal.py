"""A journal of a few megabytes that is made before it is used: a record in it is on disk with one write.

A record begins at a block of its own, so that writing it touches no other, and the blocks are written over, so that
a write changes no metadata of the file system: nothing has to be on disk but the record (O_DSYNC, and O_DIRECT where
there is such). Whoever has all records elsewhere begins again at the start. Old ones stay behind the new, so each
has a number, larger than all before: what follows with a smaller one is old, and so is what another owner wrote.
"""

import contextlib
import errno
import mmap
import os
import struct
import zlib

from dropoff.content import write_all
from dropoffd.filesystem import sync

JOURNAL_BYTES = 8 << 20
BLOCK_BYTES = 4096
RECORD_MAX_BYTES = 256 << 10

_MAGIC = b"DJ01"
# The magic, a CRC-32 of all that follows, the owner, the record's number, and the length of what it says.
_HEADER = struct.Struct("<4sIQQI")
_CHECKED_FROM = 8


class Journal:
    """The journal at `path`, of the owner with this id; made, or opened for more."""

    def __init__(self, path: str, owner: int) -> None:
        """Open it; raises OSError."""
        self._path = path
        self._owner = owner
        self._offset = 0
        # Memory that begins where a page does: O_DIRECT takes no other.
        self._buffer = mmap.mmap(-1, RECORD_MAX_BYTES)
        _make(path)
        self._fd = self._opened(os.O_DIRECT)

    def _opened(self, how: int) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC | how)
            try:
                os.preadv(fd, [memoryview(self._buffer)[:BLOCK_BYTES]], 0)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            if how and error.errno == errno.EINVAL:  # a file system, or a disk, that takes it otherwise or not at all
                return self._opened(0)
            raise
        return fd

    def read(self) -> list[tuple[int, bytes]]:
        """Return the number and the bytes of every record since the start was last written; more go behind them."""
        with open(self._path, "rb") as file:
            data = file.read(JOURNAL_BYTES)
        records: list[tuple[int, bytes]] = []
        self._offset = 0
        while (found := self._record(data, self._offset)) and (not records or found[0] > records[-1][0]):
            records.append(found)
            self._offset += _blocks(len(found[1]))
        return records

    def _record(self, data: bytes, offset: int) -> tuple[int, bytes] | None:
        begin = offset + _HEADER.size
        if begin > len(data):
            return None
        magic, checksum, owner, number, length = _HEADER.unpack_from(data, offset)
        if (magic, owner) != (_MAGIC, self._owner) or begin + length > len(data):
            return None
        if zlib.crc32(memoryview(data)[offset + _CHECKED_FROM : begin + length]) != checksum:
            return None
        return number, data[begin : begin + length]

    def fits(self, length: int) -> bool:
        """Tell whether there is room for a record that says so much."""
        size = _blocks(length)
        return size <= RECORD_MAX_BYTES and self._offset + size <= JOURNAL_BYTES

    def append(self, number: int, said: bytes) -> None:
        """Write a record that fits, and return when it is on disk; raises OSError, and then nobody knows."""
        size = _blocks(len(said))
        end = _HEADER.size + len(said)
        _HEADER.pack_into(self._buffer, 0, _MAGIC, 0, self._owner, number, len(said))
        self._buffer[_HEADER.size : end] = said
        with memoryview(self._buffer) as view:
            struct.pack_into("<I", self._buffer, len(_MAGIC), zlib.crc32(view[_CHECKED_FROM:end]))
            written = os.pwritev(self._fd, [view[:size]], self._offset)
        if written != size:
            raise OSError(errno.ENOSPC, f"{written} of {size} bytes were written")
        self._offset += size

    def begin_again(self) -> None:
        """Write the next record at the start: all that are there are elsewhere."""
        self._offset = 0

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)
        self._buffer.close()


def _blocks(length: int) -> int:
    return -(-(_HEADER.size + length) // BLOCK_BYTES) * BLOCK_BYTES


def _make(path: str) -> None:
    """Make a journal of written blocks, under its name only once it is whole."""
    if not os.path.exists(path):
        _write(path)
    # Also of one that is there: whoever made it may have been killed before this.
    sync(os.path.dirname(path))


def _write(path: str) -> None:
    part = f"{path}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, bytes(JOURNAL_BYTES))
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    finally:
        os.close(fd)
    os.rename(part, path)
