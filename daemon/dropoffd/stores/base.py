"""A store: somewhere bytes can live, under keys.

One interface for every provider and every wrapper; one conformance suite (`tests/contract/`) runs on all of
them. A failure is one of the closed set below: the provider translates once, at its edge, and says by the type
what may be tried again. Nobody else sees a status code or an errno.
"""

from collections.abc import AsyncIterator, Callable
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


class UnavailableError(StoreError):
    """The store cannot now; it may later. The only kind that is tried again."""


class Overwrite(msgspec.Struct, frozen=True):
    """Put whether or not there is an object already."""


class Create(msgspec.Struct, frozen=True):
    """Put only if there is no object; of several at once exactly one succeeds."""


class Replace(msgspec.Struct, frozen=True):
    """Put only if the object still has this etag."""

    etag: str


Mode = Overwrite | Create | Replace


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """An object as the store tells it; `sha256` is empty where the store does not know it."""

    key: str
    size_bytes: int
    etag: str
    sha256: str = ""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a store can do, as plain data."""

    object_max_bytes: int
    key_max_bytes: int
    component_max_bytes: int
    creates_atomically: bool
    verifies: str


class Body(Protocol):
    """Bytes to store: of known length and digest, readable from any offset, again and again."""

    @property
    def size_bytes(self) -> int:
        """How many bytes."""

    @property
    def sha256(self) -> str:
        """Their digest, in hex."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; may block, so only in threads.

        Raises SourceChangedError when these are not the bytes of the digest any more.
        """


Progress = Callable[[int], None]


class Store(Protocol):
    """The interface. Every method may raise UnavailableError, DeniedError or RefusedError."""

    url: str
    limits: Limits

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body` under `key`, whole or not at all; return what the store then has.

        `progress` is told of bytes as they are sent. Raises AlreadyExistsError, PreconditionFailedError,
        and CorruptError when what arrived has another digest.
        """

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `start` up to `end`; raises NotFoundError. For records and small ranges."""

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`; raises NotFoundError."""

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield every object whose key begins with `prefix`, in the order of keys."""

    async def delete(self, key: str) -> None:
        """Remove the object; none there is fine."""

    async def aclose(self) -> None:
        """Give back what is held open."""


class Bytes:
    """A body in memory."""

    def __init__(self, data: bytes, sha256: str) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.sha256 = sha256

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return self._data[offset : offset + size]


def ignore_progress(_: int) -> None:
    """Serve as `progress` where nobody looks."""
