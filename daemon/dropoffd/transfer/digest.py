"""Compute the digests of content, in a thread, in pieces small enough that the event loop never waits long."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.from_thread
import anyio.to_thread

from dropoffd import crc
from dropoffd.custody import Digest, PartSums, Source
from dropoffd.pieces import pieces
from dropoffd.threads import give_way


class Digester:
    """Hashes at most a few sources at once, so that training keeps its cores."""

    def __init__(self, at_once: int) -> None:
        self._limiter = anyio.CapacityLimiter(at_once)

    async def digest(
        self, sources: Sequence[Callable[[], Source]], part_bytes: Callable[[int], int] = lambda size: size
    ) -> list[Digest]:
        """Return the digests of each source, opening one after the other.

        `part_bytes` tells for a content of some size in what parts it would be sent. Raises SourceChangedError if
        some content changed since it was captured.
        """
        return await anyio.to_thread.run_sync(partial(_all, sources, part_bytes), limiter=self._limiter)


def _all(sources: Sequence[Callable[[], Source]], part_bytes: Callable[[int], int]) -> list[Digest]:
    give_way()
    sums = []
    for open_source in sources:
        source = open_source()
        try:
            sums.append(_digest(source, part_bytes(source.size_bytes)))
        finally:
            source.close()
    return sums


def digest_of(data: bytes) -> Digest:
    """Return the digests of what is in memory; for so little that a change of thread would cost more."""
    crc64nvme = crc.crc64nvme()
    crc64nvme.update(data)
    return Digest(hashlib.sha256(data).hexdigest(), crc64nvme.written())


def _digest(source: Source, part_bytes: int) -> Digest:
    digest, parts = hashlib.sha256(), _Parts(part_bytes)
    for piece in pieces(source):
        anyio.from_thread.check_cancelled()
        digest.update(piece)
        parts.update(memoryview(piece))
    source.check()
    return Digest(digest.hexdigest(), parts.combined(), parts.sums())


class _Parts:
    """The CRCs of parts, of which that of the whole follows: the bytes are looked at once for both."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._ended: list[tuple[str, int]] = []
        self._crc = crc.crc64nvme()
        self._taken_bytes = 0

    def update(self, piece: memoryview) -> None:
        while piece:
            room = self._part_bytes - self._taken_bytes
            self._crc.update(piece[:room])
            self._taken_bytes += len(piece[:room])
            if self._taken_bytes == self._part_bytes:
                self._end()
            piece = piece[room:]

    def _end(self) -> None:
        self._ended.append((self._crc.written(), self._taken_bytes))
        self._crc, self._taken_bytes = crc.crc64nvme(), 0

    def _all(self) -> list[tuple[str, int]]:
        return [*self._ended, (self._crc.written(), self._taken_bytes)] if self._taken_bytes else self._ended

    def combined(self) -> str:
        return crc.combined(self._all())

    def sums(self) -> PartSums:
        return PartSums(self._part_bytes, tuple(written for written, _ in self._all()))
