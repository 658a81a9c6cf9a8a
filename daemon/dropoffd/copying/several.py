"""Do one thing with many, several at once."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")


async def several(items: AsyncIterable[T], work: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Do `work` with every item, no more than are at work being held; raises what the first that failed raised."""
    failures: list[Exception] = []
    send, receive = anyio.create_memory_object_stream[T](0)
    async with anyio.create_task_group() as group:

        async def worker(todo: MemoryObjectReceiveStream[T]) -> None:
            async with todo:
                async for item in todo:
                    try:
                        await work(item)
                    except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                        failures.append(error)
                        group.cancel_scope.cancel()

        for _ in range(at_once):
            group.start_soon(worker, receive.clone())
        receive.close()
        async with send:
            try:
                async for item in items:
                    await send.send(item)
            except Exception as error:  # noqa: BLE001  # same
                failures.append(error)
                group.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def each(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield what is at hand."""
    for item in items:
        yield item
