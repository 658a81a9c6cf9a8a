"""S3 stores as the daemon opens them, on any of the servers, with credentials that a test has in hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import anyio.to_thread

from dropoffd.clock import Clock, SystemClock
from dropoffd.stores.http import Http
from dropoffd.stores.s3 import address
from dropoffd.stores.s3.client import Client
from dropoffd.stores.s3.sign import Credentials
from dropoffd.stores.s3.store import S3Store
from support.servers.address import Address


class Static:
    """Credentials that stay as they are; `refreshed` counts how often others were wanted."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.refreshed = 0

    async def get(self) -> Credentials:
        """Return them."""
        return self._credentials

    def refresh(self) -> None:
        """Count that they were no good."""
        self.refreshed += 1


class Memory:
    """What stores have a daemon remember, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    async def recall(self, key: str) -> str | None:
        """Return what was remembered."""
        return self.rows.get(key)

    async def remember(self, key: str, value: str) -> None:
        """Remember it."""
        self.rows[key] = value


def url(server: Address, prefix: str = "") -> str:
    """Return a server's bucket, or a prefix in it, as the URL of a store."""
    return f"s3://{server.bucket}/{quote(prefix)}?endpoint={server.endpoint}&region={server.region}"


def environment(server: Address) -> dict[str, str]:
    """Return the credentials of a server as a process's environment has them."""
    found = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return found | ({"AWS_SESSION_TOKEN": server.session_token} if server.session_token else {})


def credentials(server: Address) -> Credentials:
    """Return the credentials of a server."""
    return Credentials(server.access_key, server.secret_key, server.session_token)


@asynccontextmanager
async def client(server: Address, prefix: str = "", clock: Clock | None = None) -> AsyncIterator[Client]:
    """Open a client of a server's bucket."""
    http = await anyio.to_thread.run_sync(Http)
    place = address.parse(url(server, prefix), {})
    opened = Client(place, http, Static(credentials(server)), clock or SystemClock())
    try:
        yield opened
    finally:
        await opened.aclose()


@asynccontextmanager
async def s3_store(server: Address, prefix: str = "", memory: Memory | None = None) -> AsyncIterator[S3Store]:
    """Open the bare provider on a server's bucket, ready to be used."""
    kept = memory or Memory()
    async with client(server, prefix) as opened:
        store = S3Store(url(server, prefix), opened, kept.recall, kept.remember)
        await store.prepare()
        yield store
