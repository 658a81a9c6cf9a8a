"""Which provider serves which URL."""

import os
from urllib.parse import unquote, urlsplit

from dropoffd.clock import Clock
from dropoffd.stores.base import RefusedError, Store
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.retry import RetryingStore


class Stores:
    """Opens each store once and keeps it for as long as the daemon runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, Store] = {}

    def open(self, url: str) -> Store:
        """Return the store at `url`; raises RefusedError for a URL that no provider serves."""
        if url not in self._open:
            self._open[url] = RetryingStore(provider(url), self._clock)
        return self._open[url]

    async def aclose(self) -> None:
        """Close every store."""
        for store in self._open.values():
            await store.aclose()


def provider(url: str) -> Store:
    """Return the bare provider for `url`; raises RefusedError."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and os.path.isabs(parts.path):
        return DirectoryStore(os.path.normpath(unquote(parts.path)))
    raise RefusedError(
        f"unable to use {url!r} as a store: nothing here serves it",
        hint="use a directory, such as file:///data/artifacts or /data/artifacts",
    )
