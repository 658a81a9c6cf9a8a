"""Give a content's bytes to whoever reads at the other end of a pipe, as they come.

A few pieces are read ahead of it. Nobody has verified the bytes when they go: their reader hashes them.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import anyio

from dropoffd.fetch.plan import Wanted
from dropoffd.fetch.reading import exactly
from dropoffd.stores.base import Store

_PIECE_BYTES = 1 << 20
_AHEAD = 4


async def stream(store: Store, content: Wanted, pipe: int) -> None:
    """Write all of it into `pipe`; raises BrokenPipeError when nobody reads any more, and what reading raises."""
    os.set_blocking(pipe, False)
    failures: list[Exception] = []
    send, receive = anyio.create_memory_object_stream[bytearray](_AHEAD)
    async with anyio.create_task_group() as group:

        async def fetch() -> None:
            async with send:
                try:
                    async for piece in _read(store, content):
                        await send.send(piece)
                except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                    failures.append(error)

        group.start_soon(fetch)
        async with receive:
            async for piece in receive:
                try:
                    await _write(pipe, piece)
                except OSError as error:
                    failures.append(error)
                    group.cancel_scope.cancel()
                    break
    if failures:
        raise failures[0]


async def _read(store: Store, content: Wanted) -> AsyncIterator[bytearray]:
    for start in range(content.start, content.end, _PIECE_BYTES):
        yield await exactly(store, content.key, start, min(start + _PIECE_BYTES, content.end))


async def _write(pipe: int, piece: bytearray) -> None:
    view = memoryview(piece)
    while view:
        try:
            view = view[os.write(pipe, view) :]
        except BlockingIOError:
            await _writable(pipe)


async def _writable(pipe: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(pipe, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(pipe)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
