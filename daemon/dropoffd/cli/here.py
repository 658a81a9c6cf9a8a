"""Stores opened in a command's own process: for what needs no daemon. Only those commands pay for its imports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dropoff.answers import Answer
from dropoff.errors import UsageError
from dropoff.questions import Curating, Reading
from dropoff.settings import Settings
from dropoffd.clock import SystemClock
from dropoffd.curator import Curator
from dropoffd.fetch.cache import Cache
from dropoffd.index.index import Indexes
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.reader import Reader
from dropoffd.stores.elsewhere.elsewhere import Elsewhere
from dropoffd.stores.registry import Stores


@asynccontextmanager
async def stores_here(settings: Settings) -> AsyncIterator[Stores]:
    """Open stores as the daemon does, held back by the same settings; nothing of them is remembered."""
    found: dict[str, str] = {}

    async def recall(key: str) -> str | None:
        return found.get(key)

    async def remember(key: str, value: str) -> None:
        found[key] = value

    clock = SystemClock()
    bandwidth = Bandwidth(clock, settings.bandwidth, recall, remember)
    stores = Stores(
        clock, recall, remember, bandwidth,
        requests_per_second=settings.requests_per_second, in_flight_max=settings.in_flight_max,
    )  # fmt: skip
    # No task group: it would wrap what is raised while the stores are used.
    keeping = asyncio.create_task(bandwidth.run())
    try:
        yield stores
    finally:
        keeping.cancel()
        await stores.aclose()


def answer_here(
    settings: Settings, asked: Reading | Curating, fd: int | None, progress: Callable[[int], None]
) -> Answer:
    """Answer what a daemon would; raises DropoffError."""
    return asyncio.run(_answer(settings, asked, fd, progress))


async def _answer(
    settings: Settings, asked: Reading | Curating, fd: int | None, progress: Callable[[int], None]
) -> Answer:
    clock = SystemClock()
    try:
        async with stores_here(settings) as stores:
            cache, indexes = Cache(settings.cache_dir, settings.cache_max_bytes), Indexes(settings.cache_dir)
            if isinstance(asked, Curating):
                return await Curator(stores, indexes, clock, settings.retention).answer(asked, progress)
            elsewhere = Elsewhere(clock, allow_private=settings.allow_private_references)
            return await Reader(stores, cache, indexes, clock, elsewhere).answer(asked, fd, progress)
    except OSError as error:
        raise UsageError(
            f"unable to read or write on this machine: {error}", hint="check permissions and the room on the disk"
        ) from error
