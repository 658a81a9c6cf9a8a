"""The records that the daemon's rooms hand to each other."""

from typing import Protocol

import msgspec

from dropoff.content import Content
from dropoff.ids import JobId
from dropoff.messages import JobState
from dropoff.records import Entry
from dropoff.saves import Save


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job in custody, as its row tells it."""

    seq: int
    run: int
    save: Save
    state: JobState
    size_bytes: int
    attempts: int
    skipped: tuple[str, ...] = ()
    contents: tuple["Held", ...] = ()

    @property
    def id(self) -> JobId:
        """The id that the caller made."""
        return self.save.job


class PartSums(msgspec.Struct, frozen=True):
    """The CRC-64/NVMEs of a content's parts of so many bytes, in order."""

    part_bytes: int
    crc64nvmes: tuple[str, ...]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One content in custody and what is known of its delivery so far.

    Its row has all of that but `parts`, which are taken again where somebody needs them after a restart.
    """

    content: Content
    sha256: str = ""
    crc64nvme: str = ""
    key: str = ""
    parts: PartSums | None = None


class Digest(msgspec.Struct, frozen=True):
    """What one pass over a content yields: the sha256 in hex, the CRC-64/NVME as S3 writes it, and those of parts."""

    sha256: str
    crc64nvme: str
    parts: PartSums | None = None

    def of(self, held: Held) -> Held:
        """Return a content with these digests."""
        return msgspec.structs.replace(held, sha256=self.sha256, crc64nvme=self.crc64nvme, parts=self.parts)


class UploadBegun(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in parts of one content; `upload` is empty while the store's answer has not come."""

    store: str
    key: str
    part_bytes: int
    upload: str = ""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that nobody will finish."""

    seq: int
    ordinal: int
    store: str
    key: str
    upload: str


class Addition(msgspec.Struct, frozen=True, kw_only=True):
    """One addition to an artifact: what it brings under which names; `entries` only once all of it is stored.

    `proven_at` tells for each entry since when it is sure that the store has its object (seconds since the epoch).
    """

    seq: int
    position: int
    overwrite: bool
    paths: tuple[bytes, ...] = ()
    entries: tuple[Entry, ...] = ()
    proven_at: tuple[float, ...] = ()
    skipped: tuple[str, ...] = ()
    spared_bytes: int = 0


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's delivery was about to do, so that the next try knows whether it was done.

    `number` is that of the manifest; `aliases` tells for each what was to be replaced ("" for nothing).
    """

    number: int | None = None
    aliases: dict[str, str] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler knows of a job that could be next."""

    seq: int
    run: int
    priority: int
    size_bytes: int
    tried: bool


class Room(Protocol):
    """The space that custody may use."""

    def reserve(self, size: int) -> None:
        """Count `size` more bytes; raises SpoolFullError when they do not fit."""

    def release(self, size: int) -> None:
        """Count `size` bytes less."""

    def allows_copy(self, size: int) -> bool:
        """Tell whether a copy of content already counted would leave the floor of free space alone."""


class Source(Protocol):
    """Content held open for reading; `read` and `check` may block, so they are for threads."""

    size_bytes: int

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` as far as that waits for nothing; return how many bytes that was."""

    def check(self) -> None:
        """Raise SourceChangedError if the content may have changed since it was captured."""

    def close(self) -> None:
        """Give it back."""
