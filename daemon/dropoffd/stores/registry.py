"""Which provider serves which URL."""

import logging
import os
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, unquote, urlsplit

import anyio.to_thread

from dropoffd.clock import Clock
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.limits.concurrency import Concurrency
from dropoffd.limits.gate import Gate
from dropoffd.limits.pace import Pace
from dropoffd.stores.base import RefusedError, Store
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.limited import LimitedStore
from dropoffd.stores.retry import RetryingStore
from dropoffd.stores.s3 import address

_log = logging.getLogger(__name__)

_IN_FLIGHT_FIRST = 4

Recall = Callable[[str], Awaitable[str | None]]
Remember = Callable[[str, str], Awaitable[None]]


class Stores:
    """Opens each store once, patient and held back, and keeps it for as long as the daemon runs.

    `recall` and `remember` keep, beyond that, what was found out about stores.
    """

    def __init__(
        self,
        clock: Clock,
        recall: Recall,
        remember: Remember,
        bandwidth: Bandwidth,
        *,
        requests_per_second: float,
        in_flight_max: int,
    ) -> None:
        self._clock = clock
        self._recall = recall
        self._remember = remember
        self._bandwidth = bandwidth
        self._requests_per_second = requests_per_second
        self._in_flight_max = in_flight_max
        self._open: dict[str, Store] = {}

    def check(self, url: str) -> None:
        """Raise RefusedError for a URL that no provider serves."""
        if url not in self._open:
            check(url)

    async def open(self, url: str) -> Store:
        """Return the store at `url`; raises RefusedError for a URL that no provider serves."""
        if url not in self._open:
            inner = await provider(url, self._clock, self._recall, self._remember)
            pace = await self._bandwidth.pace(url)
            if url not in self._open:
                self._open[url] = RetryingStore(self._held_back(inner, pace), self._clock)
        return self._open[url]

    def _held_back(self, inner: Store, pace: Pace) -> Store:
        start = min(_IN_FLIGHT_FIRST, self._in_flight_max)
        gate = Gate(self._clock, Concurrency(1, self._in_flight_max, start), pace)
        return LimitedStore(inner, gate, Pace(self._clock, self._requests_per_second or None, 1), pace)

    async def aclose(self) -> None:
        """Close every store."""
        for store in self._open.values():
            await store.aclose()


def check(url: str) -> None:
    """Raise RefusedError for a URL that no provider serves."""
    parts = _parts(url)
    if parts.scheme == "s3":
        address.parse(url, os.environ)
    elif parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not os.path.isabs(parts.path):
        raise RefusedError(
            f"unable to use {url!r} as a store: nothing here serves it",
            hint="use a bucket, such as s3://bucket/prefix, or a directory, such as /data/artifacts",
        )


async def provider(url: str, clock: Clock, recall: Recall, remember: Remember) -> Store:
    """Return the bare provider for `url`; raises RefusedError."""
    check(url)
    parts = _parts(url)
    if parts.scheme == "file":
        return DirectoryStore(unquote(parts.path))
    # In a thread: its libraries take a tenth of a second to load, and a daemon without such a store needs none.
    return await anyio.to_thread.run_sync(_s3, url, clock, recall, remember)


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _s3(url: str, clock: Clock, recall: Recall, remember: Remember) -> Store:
    from dropoffd.stores.http import Http  # noqa: PLC0415
    from dropoffd.stores.s3 import credentials  # noqa: PLC0415
    from dropoffd.stores.s3.client import Client  # noqa: PLC0415
    from dropoffd.stores.s3.store import S3Store  # noqa: PLC0415

    place = address.parse(url, os.environ)
    if not place.shielded:
        _log.warning(
            "store without TLS url=%s: whoever is on the way can read what is sent; use an https endpoint",
            address.bare(url),
        )
    http = Http(os.environ.get("AWS_CA_BUNDLE", ""))
    client = Client(place, http, credentials.source(place.credentials), clock)
    return S3Store(url, client, recall, remember)
