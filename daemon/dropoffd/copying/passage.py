"""Carry one content from a store to another: fetched into a file of its own, verified, and sent from there.

So it may be of any size, goes on where it was after an interruption, on both sides, and what is sent is what was
verified. Two large ones at once: while one is fetched, the other is sent.
"""

import hashlib
import os

import anyio
import anyio.to_thread

from dropoff.content import Capture, Content
from dropoff.errors import UsageError
from dropoffd.capture.holding import Holding
from dropoffd.copying.tally import Tally
from dropoffd.copying.uploads import UploadNotes, upload_number
from dropoffd.custody import Digest, Held
from dropoffd.fetch.fetcher import Fetcher
from dropoffd.fetch.incoming import Incoming
from dropoffd.fetch.plan import PIECE_BYTES, Wanted
from dropoffd.fetch.reading import damaged
from dropoffd.filesystem import free_bytes
from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    Create,
    Mode,
    NoSuchUploadError,
    Stat,
    Store,
)
from dropoffd.transfer.digest import Digester
from dropoffd.transfer.parts import PartsUpload

SMALL_AT_ONCE, _LARGE_AT_ONCE = 8, 2
_ORDINAL = 1


class Passage:
    """The way from `source` to `target`; `incoming` has what is on it."""

    def __init__(
        self, source: Store, target: Store, incoming: Incoming, fetcher: Fetcher, digester: Digester, tally: Tally
    ) -> None:
        self._source = source
        self._target = target
        self._incoming = incoming
        self._fetcher = fetcher
        self._digester = digester
        self._tally = tally
        self._notes = UploadNotes(incoming)
        self._small = anyio.Semaphore(SMALL_AT_ONCE)
        self._large = anyio.Semaphore(_LARGE_AT_ONCE)

    async def carry(self, wanted: Wanted, mode: Mode) -> bool:
        """Carry a content over; tell whether it is surely new there. Raises as `Contents.name`."""
        self._tally.expect(wanted.size_bytes)
        async with self._large if wanted.size_bytes > PIECE_BYTES else self._small:
            digest = await self._stage(wanted)
            sent = await self._send(wanted, digest, mode)
        await self.tidy(wanted.key, wanted.size_bytes)
        self._tally.copied(wanted.size_bytes)
        return sent

    async def tidy(self, key: str, size: int) -> None:
        """Remove what lies here of a content that the target has, also if a crash came between."""
        self._incoming.discard(_name(key))
        if size > self._target.limits.single_max_bytes:
            await self._notes.forget_upload(upload_number(self._target.url, key), _ORDINAL)

    async def _stage(self, wanted: Wanted) -> Digest:
        """Have a content in its file; return its digests, of a small one the sha256 alone."""
        if wanted.size_bytes <= PIECE_BYTES:
            await self._fetch(wanted)
            return Digest(wanted.sha256, "")
        if self._is_staged(wanted):  # by a try that was interrupted, perhaps by a power cut
            digest = await self._digest(wanted)
            if digest.sha256 == wanted.sha256:
                self._tally.fetched(wanted.size_bytes)
                return digest
        await anyio.to_thread.run_sync(self._check_room, wanted)
        await self._fetch(wanted)
        digest = await self._digest(wanted)
        if digest.sha256 != wanted.sha256:
            raise damaged(wanted)
        return digest

    def _is_staged(self, wanted: Wanted) -> bool:
        try:
            return os.stat(_name(wanted.key), dir_fd=self._incoming.fd).st_size == wanted.size_bytes
        except FileNotFoundError:
            return False

    def _check_room(self, wanted: Wanted) -> None:
        free = free_bytes(self._incoming.fd)
        if wanted.size_bytes > free + self._incoming.held_bytes():
            raise UsageError(
                f"unable to copy {wanted.key}: it passes through the cache with {wanted.size_bytes} bytes, and the "
                f"disk there has {free} left",
                hint="free space, or set cache_dir to a larger disk",
            )

    async def _fetch(self, wanted: Wanted) -> None:
        directory = self._incoming.fd

        def land(_: Wanted, name: str) -> None:
            os.rename(name, _name(wanted.key), src_dir_fd=directory, dst_dir_fd=directory)

        await self._fetcher.fetch(self._source, [wanted], self._incoming, land, self._tally.fetched)

    async def _digest(self, wanted: Wanted) -> Digest:
        (digest,) = await self._digester.digest([lambda: self._open(wanted)])
        return digest

    def _open(self, wanted: Wanted) -> Holding:
        fd = os.open(_name(wanted.key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._incoming.fd)
        return Holding(fd, _content(wanted), None)

    async def _send(self, wanted: Wanted, digest: Digest, mode: Mode) -> bool:
        file, sent = self._open(wanted), isinstance(mode, Create)
        try:
            body = _Body(file, digest)
            if body.size_bytes > self._target.limits.single_max_bytes:
                # What is made of parts is, on S3, as old as the first request for it.
                found, sent = await self._send_parts(wanted, body, mode), False
            else:
                found = await self._target.put(wanted.key, body, mode, self._tally.sent)
        except AlreadyExistsError:
            found, sent = await self._target.stat(wanted.key), False
        finally:
            file.close()
        if (found.size_bytes, found.sha256) != (wanted.size_bytes, wanted.sha256):
            raise CorruptError(f"unable to copy {wanted.key}: {self._target.url} has something else under that key")
        return sent

    async def _send_parts(self, wanted: Wanted, body: "_Body", mode: Mode) -> Stat:
        held = Held(content=_content(wanted), sha256=body.sha256, crc64nvme=body.crc64nvme)
        number = upload_number(self._target.url, wanted.key)
        upload = PartsUpload(self._notes, self._target, number, held, wanted.key)
        while True:
            try:
                await upload.begin(self._tally.sent)
                await upload.send(body, self._tally.sent)
                found = await upload.finish(mode)
            except NoSuchUploadError:
                await upload.lost()
            except (AlreadyExistsError, CorruptError):
                await upload.give_up()
                raise
            else:
                return found


class _Body:
    """A file whose digests are known."""

    def __init__(self, file: Holding, digest: Digest) -> None:
        self.size_bytes = file.size_bytes
        self.sha256 = digest.sha256
        self.crc64nvme = digest.crc64nvme
        self.read = file.read
        self.read_cached = file.read_cached

    async def admit(self, size: int) -> None:
        """Let any number of bytes go: limits are for wrappers of the store."""


def _name(key: str) -> str:
    # Not by its digest: the same content may be on its way to several keys.
    return f"{hashlib.sha256(key.encode()).hexdigest()}.whole"


def _content(wanted: Wanted) -> Content:
    return Content(
        ordinal=_ORDINAL, path=os.fsencode(wanted.key), size_bytes=wanted.size_bytes, mode=0o600, mtime_ns=0,
        capture=Capture.COPY,
    )  # fmt: skip
