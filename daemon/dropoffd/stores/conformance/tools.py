"""What checks are made of: lists of them, bodies that go wrong, and short words for what they do."""

import asyncio
import hashlib
import secrets
import threading
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from dropoff.errors import UnstableSourceError
from dropoffd.stores.base import (
    Bytes,
    Create,
    Mode,
    Stat,
    Store,
    ignore_progress,
)

Check = Callable[[Store], Awaitable[None]]

WRITERS = 8
LARGE_BYTES = 32 << 20
NOWHERE = "0" * 64


class Suite(list[Check]):
    """Checks, each added by decorating it."""

    def __call__(self, check: Check) -> Check:
        """Add a check."""
        self.append(check)
        return check


class OnDisk(Bytes):
    """A body of which nothing is in memory."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:  # noqa: ARG002  # the interface's
        """Have nothing."""
        return 0


class Failing(OnDisk):
    """A body that breaks after its first half."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, in small pieces, until half of all is read."""
        if offset >= self.size_bytes // 2:
            raise UnstableSourceError("unable to read the body: it breaks here")
        return super().read(min(size, 64 << 10), offset)


class Short(OnDisk):
    """A body that ends before its length."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, none beyond half of all."""
        return super().read(max(0, min(size, self.size_bytes // 2 - offset)), offset)


class Halting(OnDisk):
    """A body whose reading stands still at its half, once it is being sent, until it is let go."""

    def __init__(self, data: bytes, sha256: str) -> None:
        super().__init__(data, sha256)
        self.halted = asyncio.Event()
        self._sent = False
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, in small pieces, at the half when it may go on."""
        if self._sent and offset >= self.size_bytes // 2:
            self._loop.call_soon_threadsafe(self.halted.set)
            self._go.wait()
        return super().read(min(size, 64 << 10), offset)

    def progress(self, _: int) -> None:
        """Take note that it is being sent."""
        self._sent = True

    def let_go(self) -> None:
        """Let the reading go on."""
        self._go.set()


async def cancel_at_half(halting: Halting, attempt: Awaitable[object]) -> None:
    """Await the sending of a body until half of it is sent, and cancel that."""

    async def send() -> None:
        await attempt

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await halting.halted.wait()
        group.cancel_scope.cancel()
        halting.let_go()


def body(data: bytes) -> Bytes:
    """Return `data` as a body that is what it says."""
    return Bytes(data, sha256(data))


def sha256(data: bytes) -> str:
    """Return the digest of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def somewhere() -> str:
    """Return a prefix that nobody else uses."""
    return f"conformance/{secrets.token_hex(8)}"


async def put(store: Store, key: str, data: bytes, mode: Mode | None = None) -> Stat:
    """Store `data`, by default only if nothing is there."""
    return timeless(await store.put(key, body(data), mode or Create(), ignore_progress))


async def what_is_there(store: Store, key: str) -> Stat:
    """Return what `stat` tells, but for when it was stored, which an answer to `put` need not tell."""
    return timeless(await store.stat(key))


def timeless(stat: Stat) -> Stat:
    """Return it without when the object was stored."""
    return msgspec.structs.replace(stat, modified_at=0.0)


async def keys(store: Store, prefix: str) -> list[str]:
    """Return the keys below a prefix in the order of the listing."""
    return [found.key async for found in store.list(prefix)]


async def expect(kind: type[Exception], attempt: Awaitable[object]) -> None:
    """Await what must fail in just this way."""
    try:
        await attempt
    except kind:
        return
    raise AssertionError(f"nothing was raised where {kind.__name__} was due")


async def absent(store: Store, prefix: str) -> None:
    """Assert that nothing is visible below a prefix."""
    assert await keys(store, prefix) == []
