"""Stores opened in a command's own process: for what needs no daemon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dropoff.settings import Settings
from dropoffd.clock import SystemClock
from dropoffd.limits.bandwidth import Bandwidth
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
