"""Fetch what references lead to, for whoever asks for it: it was never stored, so its bytes have no digest here.

What is fetched is what the version refers to as far as anybody can tell: it has the size and the etag that were
recorded, before, while and after it is read. What has another by now is refused, and nothing lands under its name.
"""

import os
from collections.abc import Iterable, Mapping
from functools import partial

import anyio
import anyio.to_thread

from dropoff.errors import DamagedError
from dropoff.names import display
from dropoff.records import Reference
from dropoffd.fetch.below import Below
from dropoffd.fetch.incoming import Incoming, write_all
from dropoffd.fetch.names import INCOMING, check
from dropoffd.fetch.plan import PIECE_BYTES
from dropoffd.stores.base import Progress, RefusedError, StoreError, UnavailableError
from dropoffd.stores.elsewhere.elsewhere import Elsewhere
from dropoffd.stores.elsewhere.seen import Looker

_AT_ONCE = 4


class Referred:
    """Fetches what lies elsewhere."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    async def into_directory(
        self,
        store: str,
        references: Mapping[bytes, Reference],
        beside: Iterable[bytes],
        root: int,
        *,
        umask: int,
        progress: Progress,
    ) -> int:
        """Bring what references of a version in `store` lead to below the open directory `root`; return its size.

        No name may meet another, nor those of files `beside` them. Raises DamagedError for what is not what the
        version refers to any more, and StoreError for what cannot be fetched.
        """
        below = Below(root, umask)
        folds = await anyio.to_thread.run_sync(below.folds)
        check((*references, *beside), folds=folds)
        incoming = await anyio.to_thread.run_sync(Incoming, root, INCOMING)
        looker = await self._elsewhere.open(store)
        fetched, failures, todo = 0, list[Exception](), iter(references.items())

        async def work() -> None:
            nonlocal fetched
            for path, one in todo:
                try:
                    fetched += await _Reading(looker, path, one).into(incoming, below, progress)
                except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                    failures.append(error)
                    group.cancel_scope.cancel()
                    return

        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(_AT_ONCE, len(references))):
                    group.start_soon(work)
        finally:
            with anyio.CancelScope(shield=True):
                await looker.aclose()
            incoming.close()
        if failures:
            raise failures[0]
        return fetched


class _Reading:
    """One thing that is fetched."""

    def __init__(self, looker: Looker, path: bytes, reference: Reference) -> None:
        self._looker = looker
        self._path = path
        self._reference = reference
        kept = reference.uri_version and reference.uri.startswith("s3://")
        # A bucket that keeps versions has that of the time, whatever came after it.
        self._uri = f"{reference.uri}?versionId={reference.uri_version}" if kept else reference.uri

    async def into(self, incoming: Incoming, below: Below, progress: Progress) -> int:
        """Fetch it and give it its name; return its size."""
        try:
            size = await self._look()
            fd, name = await anyio.to_thread.run_sync(incoming.new)
            try:
                count = await self._read(fd, progress)
                await self._look()
                if size is not None and size != count:
                    raise self._changed(f"{count} bytes came of it, and not {size}")
                await anyio.to_thread.run_sync(below.move, incoming.fd, name, self._path, 0o644)
            finally:
                os.close(fd)
                incoming.discard(name)
        except TimeoutError as error:
            raise UnavailableError(f"{self._unable}: it took too long", hint="try it again later") from error
        except StoreError as error:
            raise type(error)(f"{self._unable}: {error.message}", hint=error.hint) from error
        except ValueError as error:  # what yarl and urllib make of odd URLs
            raise RefusedError(f"{self._unable}: {error}") from error
        return count

    async def _look(self) -> int | None:
        """Return its size, if anybody tells; raises DamagedError if it is not what was recorded."""
        seen = await self._looker.look(self._uri)
        self._compare_etag(seen.etag)
        recorded = self._reference.size
        if None not in {recorded, seen.size_bytes} and recorded != seen.size_bytes:
            raise self._changed(f"it has {seen.size_bytes} bytes now, and had {recorded}")
        return seen.size_bytes if recorded is None else recorded

    async def _read(self, fd: int, progress: Progress) -> int:
        buffer = memoryview(bytearray(PIECE_BYTES))
        size = 0
        while True:
            count, etag = await self._looker.read(self._uri, size, buffer)
            self._compare_etag(etag)
            await anyio.to_thread.run_sync(partial(write_all, fd, buffer[:count], size))
            size += count
            progress(count)
            if count < len(buffer):
                return size

    def _compare_etag(self, etag: str) -> None:
        recorded = self._reference.etag
        if recorded and etag and etag != recorded:
            raise self._changed(f"its etag is {etag!r} now, and was {recorded!r}")

    @property
    def _unable(self) -> str:
        return f"unable to fetch {display(self._path)!r} from elsewhere"

    def _changed(self, cause: str) -> DamagedError:
        return DamagedError(
            f"{self._unable}: {cause}", hint="it is not what the version refers to any more; its owner changed it"
        )
