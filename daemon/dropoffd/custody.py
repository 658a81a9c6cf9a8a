"""The records that the daemon's rooms hand to each other."""

from typing import Protocol

import msgspec

from dropoff.content import Content
from dropoff.ids import JobId
from dropoff.messages import JobState, Save


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


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One content in custody and what is known of its delivery so far."""

    content: Content
    sha256: str = ""
    key: str = ""


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
    """Content held open for reading; `read` and `check` may block, so only in threads."""

    size_bytes: int

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""

    def check(self) -> None:
        """Raise SourceChangedError if the content may have changed since it was captured."""

    def close(self) -> None:
        """Give it back."""
