"""What the server holds: objects and unfinished uploads. Bytes lie in files, everything else in memory.

An object is a row of files, so that completing an upload moves no bytes and is one assignment.
"""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from support.fault_server.behaviour import Verified

_READ_BYTES = 256 << 10


class Piece(msgspec.Struct, frozen=True):
    """A file of bytes."""

    path: str
    size_bytes: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an unfinished upload; `checksum` is of the upload's algorithm."""

    number: int
    piece: Piece
    etag: str
    checksum: str
    modified: datetime


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """An object; `headers` are those it was stored with and is served with."""

    key: str
    pieces: tuple[Piece, ...]
    etag: str
    headers: dict[str, str]
    algorithm: Verified | None
    checksum: str
    checksum_type: str
    modified: datetime

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return sum(piece.size_bytes for piece in self.pieces)


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """An unfinished upload; its parts come and go."""

    upload: str
    key: str
    headers: dict[str, str]
    algorithm: Verified | None
    stated_algorithm: bool
    checksum_type: str
    begun: datetime
    parts: dict[int, Part]


class Bucket:
    """Objects by key, and uploads by id."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}


def read(pieces: Sequence[Piece], start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes from `start` up to `end`."""
    left = (sum(piece.size_bytes for piece in pieces) if end is None else end) - start
    for piece in pieces:
        if start >= piece.size_bytes:
            start -= piece.size_bytes
            continue
        fd = os.open(piece.path, os.O_RDONLY)
        try:
            while left and (data := os.pread(fd, min(_READ_BYTES, left, piece.size_bytes - start), start)):
                start += len(data)
                left -= len(data)
                yield data
        finally:
            os.close(fd)
        start = 0


def now() -> datetime:
    """Return the time, as S3 keeps it: to the second."""
    return datetime.now(UTC).replace(microsecond=0)
