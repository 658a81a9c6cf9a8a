"""Send one large object in parts, so that whatever interrupts it costs the parts in flight and no more.

Each part that the store confirms is a row before anything builds on it. Whoever comes back later, this delivery or
that of a daemon after a crash, asks the store which of them it has and sends the others.
"""

import logging
from typing import Protocol

import anyio

from dropoffd import crc
from dropoffd.custody import Held, UploadBegun
from dropoffd.stores.base import (
    Body,
    CorruptError,
    Mode,
    Multipart,
    NoSuchUploadError,
    Part,
    Progress,
    Span,
    Stat,
    Store,
    UnavailableError,
)
from dropoffd.stores.leftovers import end_nameless
from dropoffd.transfer.plan import part_bytes, spans

_log = logging.getLogger(__name__)

# How many parts of one object may be under way; how many really are is for the store's limits.
PARTS_AT_ONCE = 64
# A store that ends uploads as often as they are begun is asked again later, and not with all parts once more at once.
_LOSSES_MOST = 2
_CORRUPT_TRIES = 3


class Facts(Protocol):
    """Where facts of uploads become rows."""

    async def upload_begun(self, seq: int, ordinal: int, upload: UploadBegun) -> None:
        """Record that an upload in parts is being begun, or was."""

    async def upload(self, seq: int, ordinal: int) -> UploadBegun | None:
        """Return the upload of a content, if one was begun."""

    async def part_stored(self, seq: int, ordinal: int, part: Part) -> None:
        """Record that the store confirmed a part."""

    async def parts(self, seq: int, ordinal: int) -> list[Part]:
        """Return the parts that the store confirmed, in order."""

    async def forget_upload(self, seq: int, ordinal: int) -> None:
        """Forget an upload that is gone."""


class PartsUpload:
    """The upload of one content of a job to a store that takes parts."""

    def __init__(self, facts: Facts, store: Store, seq: int, held: Held, key: str) -> None:
        if store.multipart is None:
            raise ValueError(f"{store.url} takes no parts")
        self._facts = facts
        self._store = store
        self._multipart: Multipart = store.multipart
        self._id = (seq, held.content.ordinal)
        self._held = held
        self.key = key
        self._upload = UploadBegun(store=store.url, key=key, part_bytes=0)
        self._parts: dict[int, Part] = {}
        self._losses = 0

    async def begin(self, progress: Progress) -> None:
        """Go on with the upload that rows tell of, or begin one.

        The row comes first, so that one whose answer was lost in a crash can be found again.
        """
        known = await self._facts.upload(*self._id)
        if known is not None and (known.store, known.key) == (self._store.url, self.key):
            if known.upload and await self._go_on(known, progress):
                return
            if not known.upload:
                await end_nameless(self._multipart, self.key)
        size = part_bytes(self._held.content.size_bytes, self._store.limits)
        intended = UploadBegun(store=self._store.url, key=self.key, part_bytes=size)
        await self._facts.upload_begun(*self._id, intended)
        upload = await self._multipart.begin(self.key, self._held.sha256)
        self._upload = UploadBegun(store=self._store.url, key=self.key, part_bytes=size, upload=upload)
        self._parts = {}
        await self._facts.upload_begun(*self._id, self._upload)

    async def _go_on(self, known: UploadBegun, progress: Progress) -> bool:
        """Take up an earlier upload with the parts that both sides know of; False if the store ended it."""
        ours = {part.number: part for part in await self._facts.parts(*self._id)}
        try:
            theirs = await self._multipart.parts(self.key, known.upload)
        except NoSuchUploadError:
            return False
        both = {(part.number, part.size_bytes, part.etag) for part in theirs}
        self._parts = {n: part for n, part in ours.items() if (n, part.size_bytes, part.etag) in both}
        self._upload = known
        progress(sum(part.size_bytes for part in self._parts.values()))
        _log.info("upload goes on key=%s parts=%d", self.key, len(self._parts))
        return True

    async def send(self, body: Body, progress: Progress) -> None:
        """Send the parts that the store does not have; raises what the first part that failed raised."""
        missing = [span for span in spans(body.size_bytes, self._upload.part_bytes) if span[0] not in self._parts]
        todo = iter(missing)
        failures: list[Exception] = []
        async with anyio.create_task_group() as group:

            async def sender() -> None:
                for number, start, size in todo:
                    try:
                        part = Span(body, start, size, self._crc64nvme(number))
                        await self._send_one(number, part, progress)
                    except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
                        failures.append(error)
                        group.cancel_scope.cancel()

            for _ in range(min(PARTS_AT_ONCE, len(missing))):
                group.start_soon(sender)
        if failures:
            raise failures[0]

    def _crc64nvme(self, number: int) -> str:
        known = self._held.parts
        return known.crc64nvmes[number - 1] if known and known.part_bytes == self._upload.part_bytes else ""

    async def _send_one(self, number: int, body: Body, progress: Progress) -> None:
        part = await self._sent(number, body, progress)
        # A confirmed part must not be sent again because another one failed just now.
        with anyio.CancelScope(shield=True):
            await self._facts.part_stored(*self._id, part)
        self._parts[number] = part

    async def _sent(self, number: int, body: Body, progress: Progress) -> Part:
        """Store a part, once more if it arrived as something else: a wire's mistake must not cost the other parts."""
        for _ in range(_CORRUPT_TRIES - 1):
            try:
                return await self._multipart.put_part(self.key, self._upload.upload, number, body, progress)
            except CorruptError as error:
                _log.warning("part is sent again key=%s part=%d cause=%s", self.key, number, error.message)
        return await self._multipart.put_part(self.key, self._upload.upload, number, body, progress)

    async def finish(self, mode: Mode) -> Stat:
        """Have the store make the object; raises CorruptError if the parts are not the content that was digested."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        found = crc.combined((part.crc64nvme, part.size_bytes) for part in parts)
        if self._held.crc64nvme and found != self._held.crc64nvme:
            raise CorruptError(f"unable to finish {self.key}: its parts are not the content that was digested")
        return await self._multipart.finish(self.key, self._upload.upload, parts, self._held.sha256, mode)

    async def drop(self) -> None:
        """End an upload that rows tell of, if there is one: it is not wanted any more."""
        known = await self._facts.upload(*self._id)
        if known is not None:
            if known.upload:
                await self._multipart.abandon(known.key, known.upload)
            await self._facts.forget_upload(*self._id)

    async def give_up(self) -> None:
        """End the upload at the store and forget it."""
        await self._multipart.abandon(self.key, self._upload.upload)
        await self._facts.forget_upload(*self._id)
        self._parts = {}

    async def lost(self) -> None:
        """Forget the upload, of which the store lost parts, or all. Raises UnavailableError if that goes on."""
        await self.give_up()
        self._losses += 1
        if self._losses >= _LOSSES_MOST:
            raise UnavailableError(f"unable to put {self.key}: the store lost {self._losses} uploads of it")
