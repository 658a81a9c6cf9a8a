"""Which provider serves which URL."""

import logging
import os
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

from dropoffd.clock import Clock
from dropoffd.stores.base import RefusedError, Store
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.retry import RetryingStore

_log = logging.getLogger(__name__)

Recall = Callable[[str], Awaitable[str | None]]
Remember = Callable[[str, str], Awaitable[None]]


class Stores:
    """Opens each store once and keeps it for as long as the daemon runs.

    `recall` and `remember` keep, beyond that, what was found out about stores.
    """

    def __init__(self, clock: Clock, recall: Recall, remember: Remember) -> None:
        self._clock = clock
        self._recall = recall
        self._remember = remember
        self._open: dict[str, Store] = {}

    def open(self, url: str) -> Store:
        """Return the store at `url`; raises RefusedError for a URL that no provider serves."""
        if url not in self._open:
            inner = provider(url, self._clock, self._recall, self._remember)
            self._open[url] = RetryingStore(inner, self._clock)
        return self._open[url]

    async def aclose(self) -> None:
        """Close every store."""
        for store in self._open.values():
            await store.aclose()


def provider(url: str, clock: Clock, recall: Recall, remember: Remember) -> Store:
    """Return the bare provider for `url`; raises RefusedError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and os.path.isabs(parts.path):
        return DirectoryStore(os.path.normpath(unquote(parts.path)))
    if parts.scheme == "s3":
        return _s3(url, clock, recall, remember)
    raise RefusedError(
        f"unable to use {url!r} as a store: nothing here serves it",
        hint="use a bucket, such as s3://bucket/prefix, or a directory, such as /data/artifacts",
    )


def _s3(url: str, clock: Clock, recall: Recall, remember: Remember) -> Store:
    # 60 MB that a daemon without such a store does without.
    from dropoffd.stores.http import Http  # noqa: PLC0415
    from dropoffd.stores.s3 import address, credentials  # noqa: PLC0415
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
