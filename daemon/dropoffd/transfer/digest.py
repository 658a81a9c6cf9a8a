"""Compute the digests of content, in a thread, in pieces small enough that the event loop never waits long."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread

from dropoffd import crc
from dropoffd.custody import Digest, Source
from dropoffd.pieces import pieces
from dropoffd.threads import give_way


class Digester:
    """Hashes at most a few sources at once, so that training keeps its cores."""

    def __init__(self, at_once: int) -> None:
        self._limiter = anyio.CapacityLimiter(at_once)

    async def digest(self, sources: Sequence[Callable[[], Source]]) -> list[Digest]:
        """Return the digests of each source, opening one after the other.

        Raises SourceChangedError if some content changed since it was captured.
        """
        return await anyio.to_thread.run_sync(partial(_all, sources), limiter=self._limiter)


def _all(sources: Sequence[Callable[[], Source]]) -> list[Digest]:
    give_way()
    sums = []
    for open_source in sources:
        source = open_source()
        try:
            sums.append(_digest(source))
        finally:
            source.close()
    return sums


def digest_of(data: bytes) -> Digest:
    """Return the digests of what is in memory; for so little that a change of thread would cost more."""
    crc64nvme = crc.crc64nvme()
    crc64nvme.update(data)
    return Digest(hashlib.sha256(data).hexdigest(), crc64nvme.written())


def _digest(source: Source) -> Digest:
    digest = hashlib.sha256()
    crc64nvme = crc.crc64nvme()
    for piece in pieces(source):
        anyio.from_thread.check_cancelled()
        digest.update(piece)
        crc64nvme.update(piece)
    source.check()
    return Digest(digest.hexdigest(), crc64nvme.written())
