"""A wrapper that holds back: so many requests a second, so many transfers at once, so many bytes a second.

Files and parts alike hold a place while they are under way; the files take turns, so that the one part of a small
file does not wait behind the thousand of a large one. How many places there are follows from what comes of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from dropoffd.limits.gate import Gate
from dropoffd.limits.pace import Pace
from dropoffd.stores.base import (
    Body,
    Folder,
    Limits,
    Mode,
    Multipart,
    Part,
    Progress,
    Stat,
    Store,
    ThrottledError,
    Upload,
)

T = TypeVar("T")


class LimitedStore:
    """The same store, held back."""

    def __init__(self, inner: Store, gate: Gate, requests: Pace, bandwidth: Pace) -> None:
        self.url = inner.url
        self._inner = inner
        self._brake = Brake(gate, requests, bandwidth)

    @property
    def limits(self) -> Limits:
        """What the store within can do."""
        return self._inner.limits

    @property
    def multipart(self) -> Multipart | None:
        """Its uploads in parts, held back by the same brake."""
        return LimitedMultipart(self._inner.multipart, self._brake) if self._inner.multipart else None

    async def prepare(self) -> None:
        """Find out what the store can do."""
        await self._inner.prepare()

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body`, when there is a place."""
        return await self._brake.transfer(
            key, body, progress, lambda paced, told: self._inner.put(key, paced, mode, told)
        )

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return some of an object's bytes."""
        return await self._brake.request(lambda: self._inner.get(key, start, end))

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill a buffer with an object's bytes."""
        return await self._brake.request(lambda: self._inner.read(key, start, buffer))

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`."""
        return await self._brake.request(lambda: self._inner.stat(key))

    async def head(self, key: str) -> Stat:
        """Return what the store says of `key`."""
        return await self._brake.request(lambda: self._inner.head(key))

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix."""
        return self._inner.list(prefix)

    def folders(self, prefix: str) -> AsyncIterator[str]:
        """Yield what comes next in keys."""
        return self._inner.folders(prefix)

    def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """Yield the folders below a prefix."""
        return self._inner.changes(prefix, known)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await self._brake.request(lambda: self._inner.delete(key))

    async def aclose(self) -> None:
        """Close the store within."""
        await self._inner.aclose()


class LimitedMultipart:
    """The same uploads, held back."""

    def __init__(self, inner: Multipart, brake: "Brake") -> None:
        self._inner = inner
        self._brake = brake

    async def begin(self, key: str, sha256: str) -> str:
        """Begin an upload."""
        return await self._brake.request(lambda: self._inner.begin(key, sha256))

    async def put_part(self, key: str, upload: str, number: int, body: Body, progress: Progress) -> Part:
        """Store a part, when there is a place."""
        return await self._brake.transfer(
            key, body, progress, lambda paced, told: self._inner.put_part(key, upload, number, paced, told)
        )

    async def parts(self, key: str, upload: str) -> list[Part]:
        """Return the parts that the store has."""
        return await self._brake.request(lambda: self._inner.parts(key, upload))

    async def finish(self, key: str, upload: str, parts: Sequence[Part], sha256: str, mode: Mode) -> Stat:
        """Make the object of its parts."""
        return await self._brake.request(lambda: self._inner.finish(key, upload, parts, sha256, mode))

    async def abandon(self, key: str, upload: str) -> None:
        """End an upload."""
        await self._brake.request(lambda: self._inner.abandon(key, upload))

    def uploads(self, prefix: str) -> AsyncIterator[Upload]:
        """Yield the unfinished uploads."""
        return self._inner.uploads(prefix)


class Brake:
    """What holds one store back."""

    def __init__(self, gate: Gate, requests: Pace, bandwidth: Pace) -> None:
        self._gate = gate
        self._requests = requests
        self._bandwidth = bandwidth

    async def request(self, once: Callable[[], Awaitable[T]]) -> T:
        """Make a request when it may go."""
        await self._requests.take(1)
        try:
            return await once()
        except ThrottledError:
            self._gate.throttled()
            raise

    async def transfer(
        self, key: str, body: Body, progress: Progress, send: Callable[[Body, Progress], Awaitable[T]]
    ) -> T:
        """Send a body when there is a place, no faster than its bytes may go."""

        def told(size: int) -> None:
            self._gate.finished(size)
            progress(size)

        async with self._gate.place(key):
            return await self.request(lambda: send(_Paced(body, self._bandwidth), told))


class _Paced:
    """The same body, at a pace."""

    def __init__(self, body: Body, pace: Pace) -> None:
        self.size_bytes = body.size_bytes
        self.sha256 = body.sha256
        self.crc64nvme = body.crc64nvme
        self.read = body.read
        self.read_cached = body.read_cached
        self.admit = pace.take
