"""Fetch contents: several requests at once, verified before anything else sees them.

What a store gives is not believed: a content that has another sha256 than it should is fetched once more, since the
way may have damaged it, and refused then. A store that stumbles is waited for, for a while; what is there by then is
kept for the next try.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from dropoffd.clock import Clock
from dropoffd.fetch.incoming import Incoming, PartFile
from dropoffd.fetch.plan import PIECE_BYTES, Span, Wanted, plan
from dropoffd.fetch.reading import damaged, fill
from dropoffd.stores.base import Progress, Store, UnavailableError, ignore_progress

# As many pieces are in memory at most, for all fetches together.
REQUESTS_AT_ONCE = 8
PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
# Hashing and writing leave training a core where there are two.
_THREADS = max(3, (os.cpu_count() or 2) // 2)

T = TypeVar("T")

Land = Callable[[Wanted, str], None]
"""Bring a verified file of the incoming directory to its goal; in a thread."""

Step = Callable[[], Awaitable[None]]


class Fetcher:
    """Fetches for everybody in this process, so that all together stay within bounds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._places = anyio.Semaphore(REQUESTS_AT_ONCE)
        self._buffers: list[bytearray] = []
        self._fetching = 0
        self._threads = anyio.CapacityLimiter(_THREADS)

    async def fetch(
        self, store: Store, wanted: Iterable[Wanted], incoming: Incoming, land: Land, progress: Progress
    ) -> None:
        """Fetch every content into `incoming` and have it landed as soon as it is verified.

        Raises DamagedError for what is not what it should be, or not there, and StoreError; then parts of large
        contents stay for the next try.
        """
        self._fetching += 1
        try:
            await self._fetch(store, wanted, incoming, land, progress)
        finally:
            self._fetching -= 1
            if not self._fetching:
                self._buffers.clear()

    async def _fetch(
        self, store: Store, wanted: Iterable[Wanted], incoming: Incoming, land: Land, progress: Progress
    ) -> None:
        spans, large = plan(wanted)
        failures: list[Exception] = []
        send, receive = anyio.create_memory_object_stream[Step](0)
        async with anyio.create_task_group() as group:

            async def work(steps: MemoryObjectReceiveStream[Step]) -> None:
                async with steps:
                    async for step in steps:
                        try:
                            await step()
                        except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                            failures.append(error)
                            group.cancel_scope.cancel()

            for _ in range(REQUESTS_AT_ONCE):
                group.start_soon(work, receive.clone())
            receive.close()
            async with send:
                for span in spans:
                    await send.send(partial(self._span, store, span, incoming, land, progress))
                for content in large:
                    await send.send(partial(self._large, store, content, incoming, land, progress))
        if failures:
            raise failures[0]

    async def _span(self, store: Store, span: Span, incoming: Incoming, land: Land, progress: Progress) -> None:
        use = partial(_land_all, span, incoming, land)
        bad = await self._take(store, span.key, span.start, span.end, use)
        if bad is not None:
            bad = await self._take(store, span.key, span.start, span.end, use)
        if bad is not None:
            raise damaged(bad)
        progress(sum(one.size_bytes for one in span.contents))

    async def _large(self, store: Store, content: Wanted, incoming: Incoming, land: Land, progress: Progress) -> None:
        part = await self._in_thread(partial(incoming.part, content))
        try:
            missing = part.missing()
            progress(content.size_bytes - sum(end - start for start, end in map(part.span, missing)))
            await self._pieces(store, part, missing, progress)
            good = await self._in_thread(part.check)
            if not good:
                await self._pieces(store, part, part.missing(), ignore_progress)
                good = await self._in_thread(part.check)
            if not good:
                raise damaged(content)
            await self._in_thread(partial(_land_part, part, land))
        finally:
            part.close()

    async def _pieces(self, store: Store, part: PartFile, missing: Iterable[int], progress: Progress) -> None:
        failures: list[Exception] = []
        todo = iter(missing)
        async with anyio.create_task_group() as group:

            async def work() -> None:
                for index in todo:
                    start, end = part.span(index)
                    first = part.content.start
                    try:
                        await self._take(
                            store, part.content.key, first + start, first + end, partial(part.put, index)
                        )
                    except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                        failures.append(error)
                        group.cancel_scope.cancel()
                        return
                    progress(end - start)

            for _ in range(REQUESTS_AT_ONCE):
                group.start_soon(work)
        if failures:
            raise failures[0]

    async def _take(self, store: Store, key: str, start: int, end: int, use: Callable[[memoryview], T]) -> T:
        """Return what `use`, in a thread, makes of exactly these bytes; patient with a store that stumbles.

        A place is held until the bytes are used, so that no more of them are in memory.
        """
        give_up = self._clock.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                async with self._places:
                    buffer = self._buffers.pop() if self._buffers else bytearray(PIECE_BYTES)
                    try:
                        piece = memoryview(buffer)[: end - start]
                        await fill(store, key, start, piece)
                        return await self._in_thread(partial(use, piece))
                    finally:
                        self._buffers.append(buffer)
            except UnavailableError:
                if self._clock.monotonic() + _PAUSE_SECONDS > give_up:
                    raise
            await self._clock.sleep(_PAUSE_SECONDS)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


def _land_all(span: Span, incoming: Incoming, land: Land, data: memoryview) -> Wanted | None:
    """Verify and land what a span holds; return the first content that is damaged, then nothing is landed."""
    cut = {one: data[one.start - span.start : one.end - span.start] for one in span.contents}
    for one, piece in cut.items():
        if hashlib.sha256(piece).hexdigest() != one.sha256:
            return one
    for one, piece in cut.items():
        name = incoming.write(piece)
        try:
            land(one, name)
        finally:
            incoming.discard(name)
    return None


def _land_part(part: PartFile, land: Land) -> None:
    land(part.content, part.name)
    part.finish()
