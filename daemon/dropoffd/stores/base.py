"""A store: somewhere bytes can live, under keys.

One interface for every provider and every wrapper; one conformance suite (`tests/contract/`) runs on all of
them. A failure is one of the closed set below: the provider translates once, at its edge, and says by the type
what may be tried again. Nobody else sees a status code or an errno.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from dropoff.errors import DropoffError


class StoreError(DropoffError):
    """Base of what can go wrong in a store."""


class NotFoundError(StoreError):
    """There is no such object."""


class AlreadyExistsError(StoreError):
    """`Create` found an object under that key."""


class PreconditionFailedError(StoreError):
    """`Replace` found another object than the one named."""


class DeniedError(StoreError):
    """The store does not let us; a person has to act."""


class RefusedError(StoreError):
    """The store will never take this request as it is."""


class CorruptError(StoreError):
    """What the store has is not what was sent."""


class NoSuchUploadError(StoreError):
    """The store does not know this upload (any more), or lost some of its parts; it has to be begun anew."""


class UnavailableError(StoreError):
    """The store cannot now; it may later. The only kind that is tried again."""


class ThrottledError(UnavailableError):
    """The store wants less of us; it said to wait `after_seconds`, or nothing (0)."""

    def __init__(self, message: str, *, hint: str = "", after_seconds: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.after_seconds = after_seconds


class BrokenError(UnavailableError):
    """The connection ended, or made no sense, before an answer was there. Whoever comes next may fare better."""


class UnreachableError(UnavailableError):
    """Nobody answers: no route, no name, no connection, or silence. Whoever comes next would meet the same."""


class StalledError(UnreachableError):
    """Somebody is there, and neither takes bytes nor answers. Whoever comes next may fare better."""


class Overwrite(msgspec.Struct, frozen=True):
    """Put whether or not there is an object already."""


class Create(msgspec.Struct, frozen=True):
    """Put only if there is no object; of several at once exactly one succeeds."""


class Replace(msgspec.Struct, frozen=True):
    """Put only if the object still has this etag."""

    etag: str


Mode = Overwrite | Create | Replace


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """An object as the store tells it; `sha256` is empty where the store does not know it, as in a listing.

    `modified_at` is when it was stored, in seconds since the epoch by the store's clock; 0 where that is not told.
    """

    key: str
    size_bytes: int
    etag: str
    sha256: str = ""
    modified_at: float = 0.0


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """The objects whose keys are `prefix`, which ends in '/', and one more component.

    `etag` is another once an object came, went or was replaced, and empty where the store does not tell. `objects` is
    None for a folder that has the etag that the asker knew.
    """

    prefix: str
    etag: str
    objects: Sequence[Stat] | None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a store can do, as plain data.

    `verifies` names what it checks of the bytes it is sent; empty if nothing. An object over `single_max_bytes` is
    sent in parts, of which each but the last has at least `part_min_bytes`.
    """

    object_max_bytes: int
    key_max_bytes: int
    component_max_bytes: int
    creates_atomically: bool
    replaces_atomically: bool
    verifies: str
    single_max_bytes: int
    part_min_bytes: int = 0
    part_max_bytes: int = 0
    parts_max: int = 0


def check_key(key: str, limits: Limits) -> None:
    """Raise RefusedError for a key that is no plain relative path, or too long."""
    parts = key.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise RefusedError(f"unable to use {key!r} as a key: it is not a plain relative path")
    if len(key.encode()) > limits.key_max_bytes or any(
        len(part.encode()) > limits.component_max_bytes for part in parts
    ):
        raise RefusedError(f"unable to use {key!r} as a key: it is too long", hint="save it under a shorter name")


class Body(Protocol):
    """Bytes to store: of known length and digest, readable from any offset, again and again."""

    @property
    def size_bytes(self) -> int:
        """How many bytes."""

    @property
    def sha256(self) -> str:
        """Their digest, in hex; empty for a part."""

    @property
    def crc64nvme(self) -> str:
        """Their CRC-64/NVME as S3 writes it; empty where it was not computed."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; may block, so only in threads.

        Raises SourceChangedError when these are not the bytes of the digest any more.
        """

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` as far as that waits for no disk; return how many bytes that was."""

    async def admit(self, size: int) -> None:
        """Return when so many bytes may be sent."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part as the store confirmed it.

    `crc64nvme` is that of the bytes that were sent (empty in what a store lists), `checksum` what the store needs to
    hear again at the end, if anything.
    """

    number: int
    size_bytes: int
    etag: str
    crc64nvme: str = ""
    checksum: str = ""


class Upload(msgspec.Struct, frozen=True):
    """An upload in parts that is not finished."""

    key: str
    upload: str
    begun_at: float


Progress = Callable[[int], None]


class Store(Protocol):
    """The interface. Every method may raise UnavailableError, DeniedError or RefusedError."""

    @property
    def url(self) -> str:
        """Where it is, without secrets."""

    @property
    def limits(self) -> Limits:
        """What it can do."""

    @property
    def multipart(self) -> "Multipart | None":
        """Its way to take large objects in parts; None where one request takes any size."""

    async def prepare(self) -> None:
        """Find out what the store can do; `limits` are true from then on. Reading needs none of it; all else does."""

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body` under `key`, whole or not at all; return what the store then has.

        `progress` is told of bytes as they are sent. Raises AlreadyExistsError, PreconditionFailedError,
        and CorruptError when what arrived has another digest.
        """

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `start` up to `end`; raises NotFoundError. For records and small ranges."""

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes from `start` on; return how many there were. Raises NotFoundError.

        For large ranges, whose bytes are received where they are wanted; a try that failed may have left some there.
        """

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`; raises NotFoundError."""

    async def head(self, key: str) -> Stat:
        """Return what the store says of `key` without looking at its bytes; raises NotFoundError."""

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield every object whose key begins with `prefix`, in the order of keys."""

    def folders(self, prefix: str) -> AsyncIterator[str]:
        """Yield the beginnings of keys, from `prefix` to the next '/', in order; some may have no object any more."""

    def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """Yield the folders at and below `prefix`, in no order; one without objects may be left out.

        `known` has etags by prefix, as they were yielded before; so following a store costs less
        than listing it, where the store can tell which folders changed.
        """

    async def delete(self, key: str) -> None:
        """Remove the object; none there is fine."""

    async def aclose(self) -> None:
        """Give back what is held open."""


class Multipart(Protocol):
    """What a store that takes large objects in parts can do besides. Errors as for `Store`."""

    async def begin(self, key: str, sha256: str) -> str:
        """Begin the upload of an object of that digest and return its id."""

    async def put_part(self, key: str, upload: str, number: int, body: Body, progress: Progress) -> Part:
        """Store part `number` (from 1), once more if it is there already; raises NoSuchUploadError."""

    async def parts(self, key: str, upload: str) -> list[Part]:
        """Return the parts that the store has; raises NoSuchUploadError."""

    async def finish(self, key: str, upload: str, parts: Sequence[Part], sha256: str, mode: Mode) -> Stat:
        """Make the object of its parts, in order of number; return what the store then has.

        `sha256` is that of the whole. Raises NoSuchUploadError, and what `put` raises. An answer that was lost is
        settled by a look at the object.
        """

    async def abandon(self, key: str, upload: str) -> None:
        """End the upload and drop its parts; none there is fine."""

    def uploads(self, prefix: str) -> AsyncIterator[Upload]:
        """Yield the unfinished uploads of objects whose key begins with `prefix`."""


class Bytes:
    """A body in memory."""

    def __init__(self, data: bytes, sha256: str) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.sha256 = sha256
        self.crc64nvme = ""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return self._data[offset : offset + size]

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`."""
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    async def admit(self, size: int) -> None:
        """Let any number of bytes go at once."""


class Span:
    """Some of another body's bytes, as a body: a part, with its CRC-64/NVME where that is known."""

    def __init__(self, whole: Body, start: int, size: int, crc64nvme: str = "") -> None:
        self._whole = whole
        self._start = start
        self.size_bytes = size
        self.sha256 = ""
        self.crc64nvme = crc64nvme
        self.admit = whole.admit

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return self._whole.read(min(size, self.size_bytes - offset), self._start + offset)

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` as far as that waits for no disk."""
        return self._whole.read_cached(buffer[: self.size_bytes - offset], self._start + offset)


def ignore_progress(_: int) -> None:
    """Serve as `progress` where nobody looks."""
