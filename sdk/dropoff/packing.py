"""Packs: many small files in one ZIP archive, stored without compression.

A pack is written once, front to back, and is a valid ZIP (PKWARE APPNOTE 6.3.10) that any tool opens; because
its members are stored, each can also be read by range with nothing but its offset. Written by hand rather than
with `zipfile`, which takes four times as long per member while a training script waits.
"""

import os
import struct
import zlib

from dropoff.content import write_all
from dropoff.names import display

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_VERSION, _VERSION_64 = 20, 45
_UTF8 = 1 << 11
_STORED = 0
_DATE_1980 = 0x21  # the member's true time is in the record; one fixed date keeps equal packs equal
_REGULAR = 0o100644 << 16
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_FLUSH_BYTES = 4 << 20


class PackWriter:
    """Appends members to the open, empty file `fd`; `finish` makes it a ZIP."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._directory: list[bytes] = []
        self._position = 0

    @property
    def members(self) -> int:
        """How many files the pack holds."""
        return len(self._directory)

    def add(self, path: bytes, data: bytes) -> int:
        """Append one file and return the offset of its first byte in the pack."""
        name = display(path).encode()[:_U16]  # the record has the whole name
        crc = zlib.crc32(data)
        size = len(data)
        at = self._position
        self._directory.append(_central(name, crc, size, at))
        header = _LOCAL.pack(b"PK\3\4", _VERSION, _UTF8, _STORED, 0, _DATE_1980, crc, size, size, len(name), 0)
        for piece in (header, name, data):
            self._write(piece)
        return at + len(header) + len(name)

    def finish(self) -> int:
        """Write the central directory and return the pack's size in bytes; the file is not yet synced."""
        start = self._position
        for entry in self._directory:
            self._write(entry)
        size = self._position - start
        count = len(self._directory)
        if count >= _U16 or start + size >= _U32:
            at = self._position
            self._write(_END64.pack(b"PK\6\6", 44, _VERSION_64, _VERSION_64, 0, 0, count, count, size, start))
            self._write(_LOCATOR64.pack(b"PK\6\7", 0, at, 1))
        few = min(count, _U16)
        self._write(_END.pack(b"PK\5\6", 0, 0, few, few, min(size, _U32), min(start, _U32), 0))
        self._flush()
        return self._position

    def _write(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        self._position += len(piece)
        if self._pending_bytes >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        write_all(self._fd, b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0


def _central(name: bytes, crc: int, size: int, at: int) -> bytes:
    extra = struct.pack("<2HQ", 1, 8, at) if at >= _U32 else b""
    made_by_unix = 3 << 8 | _VERSION
    lengths = (size, size, len(name), len(extra), 0, 0, 0)
    fixed = (b"PK\1\2", made_by_unix, _VERSION, _UTF8, _STORED, 0, _DATE_1980, crc)
    return _CENTRAL.pack(*fixed, *lengths, _REGULAR, min(at, _U32)) + name + extra


def new_file(directory: int, name: str) -> int:
    """Create `name` (0600, which must not exist) in the open `directory` and return its descriptor."""
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
