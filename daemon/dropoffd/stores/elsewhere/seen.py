"""What was seen of things that lie elsewhere: records, without what it takes to look."""

from typing import NamedTuple, Protocol

import msgspec

from dropoff.errors import DropoffError


class TooManyError(DropoffError):
    """More lies below a prefix than was foreseen."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of something; `name` is that below the prefix that was looked at, if one was."""

    uri: str
    size_bytes: int | None = None
    etag: str = ""
    version: str = ""
    name: bytes = b""


class Below(NamedTuple):
    """What lies below a prefix, by name, and what was passed over there."""

    found: list[Seen]
    skipped: list[str]


class Looker(Protocol):
    """Whoever looks; to be closed."""

    async def look(self, uri: str) -> Seen:
        """Return what is known of one thing; raises StoreError, OSError, ValueError and TimeoutError."""

    async def below(self, uri: str, most: int) -> Below:
        """Return what is known of all below a prefix; raises TooManyError, and what `look` raises."""

    async def read(self, uri: str, start: int, buffer: memoryview) -> tuple[int, str]:
        """Fill a buffer with bytes from `start` on; return how many there were, and the etag, where that is told.

        Raises as `look`, but for the time: it may take as long as bytes come.
        """

    async def aclose(self) -> None:
        """Close every connection."""
