"""Deliver one job: walk its objects through the table, then publish its record.

Every fact is a row before the next step builds on it, so a crash anywhere goes on at the last row.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import anyio.to_thread
import msgspec

from dropoff.content import Content
from dropoff.messages import Receipt
from dropoffd.clock import Clock
from dropoffd.custody import Digest, Held, Job, Source
from dropoffd.errors import VanishedError
from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    Create,
    Mode,
    NoSuchUploadError,
    NotFoundError,
    Overwrite,
    Progress,
    Stat,
    Store,
    UnavailableError,
)
from dropoffd.transfer import parts, plan
from dropoffd.transfer.digest import Digester, digest_of
from dropoffd.transfer.machine import NEXT_STEP, Fact, Step, after, stage_of
from dropoffd.transfer.parts import PartsUpload
from dropoffd.transfer.plan import Object


class Facts(parts.Facts, Protocol):
    """Where facts become rows."""

    async def digested(self, seq: int, sums: Sequence[tuple[int, Digest]]) -> None:
        """Record the digests of contents by ordinal."""

    async def stored(self, seq: int, ordinal: int, key: str) -> None:
        """Record that the store confirmed a content under `key`; for an empty one, that it has it no more."""


class Catalogue(Protocol):
    """Names for content, and the record that makes a job visible."""

    def key(self, job: Job, held: Held) -> str:
        """Return the key of a digested content."""

    async def publish(
        self,
        store: Store,
        job: Job,
        places: Mapping[int, tuple[str, int | None]],
        proven_at: Mapping[str, float],
    ) -> Receipt:
        """Make the job visible; `places` are key and offset by ordinal.

        `proven_at` tells of each object since when it is sure that the store has it, 0 if it was found there. Raises
        VanishedError for what is gone.
        """


# Well within the shortest time for which a collection leaves alone what nobody names.
_OLD_SECONDS = 3600.0

Open = Callable[[str, int, Content], Source]


class _Body:
    """A source whose digests are known."""

    def __init__(self, source: Source, held: Held) -> None:
        self.size_bytes = source.size_bytes
        self.sha256 = held.sha256
        self.crc64nvme = held.crc64nvme
        self.read = source.read
        self.read_cached = source.read_cached

    async def admit(self, size: int) -> None:
        """Let any number of bytes go: limits are for wrappers of the store."""


class Worker:
    """Delivers jobs one after another or at once; holds nothing of them."""

    def __init__(
        self, facts: Facts, catalogue: Catalogue, open_source: Open, digester: Digester, clock: Clock
    ) -> None:
        self._facts = facts
        self._catalogue = catalogue
        self._open = open_source
        self._digester = digester
        self._clock = clock

    async def deliver(self, job: Job, store: Store, progress: Progress) -> Receipt:
        """Bring the whole job into `store`; raises StoreError or SourceChangedError."""
        await store.prepare()
        places: dict[int, tuple[str, int | None]] = {}
        digested: dict[int, Held] = {}
        ordinals: dict[str, int] = {}
        proven_at: dict[str, float] = {}
        for item in plan.objects(job):
            began = self._clock.now()
            held, members, sent = await self._object(job, item, store, progress)
            ordinals[held.key] = held.content.ordinal
            proven_at[held.key] = began if sent else 0.0
            for member in members:
                places[member.content.ordinal] = (held.key, member.content.offset)
            if not members:
                places[held.content.ordinal] = (held.key, None)
            digested |= {one.content.ordinal: one for one in (held, *members)}
        contents = tuple(digested.get(held.content.ordinal, held) for held in job.contents)
        job = msgspec.structs.replace(job, contents=contents)
        try:
            return await self._catalogue.publish(store, job, places, proven_at)
        except VanishedError as error:
            for key in error.keys:
                await self._facts.stored(job.seq, ordinals[key], "")
            raise UnavailableError(f"{error.message}: they are sent again") from error

    async def _object(
        self, job: Job, item: Object, store: Store, progress: Progress
    ) -> tuple[Held, tuple[Held, ...], bool]:
        """Bring an object into the store; return it, its members, and whether it was sent just now."""
        held, members = item.held, item.members
        stage, sent, old = stage_of(held), False, False
        mode: Mode = Create()
        upload: PartsUpload | None = None
        brief = _is_brief(job)
        unasked = brief and store.limits.creates_atomically
        while (step := NEXT_STEP[stage]) is not Step.NOTHING:
            if step is Step.DIGEST:
                held, members = (_digested_at_once(held), ()) if brief else await self._digest(job, item, store)
                fact = Fact.HASHED
            elif step is Step.LOOK and unasked:
                fact = Fact.UNASKED
            elif step is Step.LOOK:
                fact, mode = await self._look(job, held, store)
                if fact is Fact.FOUND and held.content.size_bytes > store.limits.single_max_bytes:
                    # Somebody else's upload of the same content was faster than the one that we may have begun.
                    await PartsUpload(self._facts, store, job.seq, held, self._catalogue.key(job, held)).drop()
            elif step is Step.PUT:
                fact, old = await self._put(job, held, store, mode, progress, unasked=unasked)
                unasked = False
            else:
                key = self._catalogue.key(job, held)
                upload = upload or PartsUpload(self._facts, store, job.seq, held, key)
                fact = await self._in_parts(job, held, store, upload, step, mode, progress)
            # What was there and damaged may have been garbage, of which somebody has just made sure that it goes. And
            # an object that is made of parts is, on S3, as old as the first request for it.
            sent = step is Step.PUT and fact is Fact.CONFIRMED and isinstance(mode, Create) and not old
            stage = after(stage, fact)
        if not held.key:
            held = msgspec.structs.replace(held, key=self._catalogue.key(job, held))
            if not brief:
                await self._facts.stored(job.seq, held.content.ordinal, held.key)
        return held, members, sent

    async def _in_parts(
        self, job: Job, held: Held, store: Store, upload: PartsUpload, step: Step, mode: Mode, progress: Progress
    ) -> Fact:
        try:
            if step is Step.BEGIN:
                await upload.begin(progress)
                return Fact.BEGUN
            source = self._open(job.id, job.seq, held.content)
            try:
                if step is Step.SEND:
                    await upload.send(_Body(source, held), progress)
                    return Fact.SENT
                # What a writer changed meanwhile must not become an object.
                await anyio.to_thread.run_sync(source.check)
                _confirm(await upload.finish(mode), held)
            except CorruptError:
                await anyio.to_thread.run_sync(source.check)  # the likelier culprit
                raise
            finally:
                source.close()
        except NoSuchUploadError:
            await upload.lost()
            return Fact.LOST
        except CorruptError:
            await upload.give_up()
            raise
        except AlreadyExistsError:
            await upload.give_up()
            _confirm(await store.stat(upload.key), held)
            return Fact.FOUND
        return Fact.CONFIRMED

    async def _digest(self, job: Job, item: Object, store: Store) -> tuple[Held, tuple[Held, ...]]:
        helds = (item.held, *item.members)
        sums = await self._digester.digest(
            [partial(self._open, job.id, job.seq, held.content) for held in helds],
            partial(plan.step_bytes, limits=store.limits),
        )
        digested = [digest.of(held) for held, digest in zip(helds, sums, strict=True)]
        ordinals = [held.content.ordinal for held in helds]
        await self._facts.digested(job.seq, list(zip(ordinals, sums, strict=True)))
        return digested[0], tuple(digested[1:])

    async def _look(self, job: Job, held: Held, store: Store) -> tuple[Fact, Mode]:
        size = held.content.size_bytes
        missed = Fact.MISSED if size <= store.limits.single_max_bytes else Fact.MISSED_LARGE
        try:
            found = await store.stat(self._catalogue.key(job, held))
        except NotFoundError:
            return missed, Create()
        if (found.size_bytes, found.sha256) == (size, held.sha256):
            return Fact.FOUND, Create()
        # Somebody damaged it: the key says what belongs there.
        return missed, Overwrite()

    async def _put(
        self, job: Job, held: Held, store: Store, mode: Mode, progress: Progress, *, unasked: bool
    ) -> tuple[Fact, bool]:
        """Send an object; tell besides whether the store says that it has had it for long.

        So it may be where a first try failed and a second found the object there, whosever it is.
        """
        key = self._catalogue.key(job, held)
        source = self._open(job.id, job.seq, held.content)
        fact = Fact.CONFIRMED
        try:
            found = await store.put(key, _Body(source, held), mode, progress)
        except AlreadyExistsError:
            if unasked:
                return Fact.TAKEN, False
            found = await store.stat(key)  # another job with the same content was faster
            fact = Fact.FOUND
        except CorruptError:
            source.check()  # the likelier culprit
            raise
        finally:
            source.close()
        _confirm(found, held)
        return fact, 0 < found.modified_at < self._clock.now() - _OLD_SECONDS


def _is_brief(job: Job) -> bool:
    """Tell whether a job is one small content, whose row has all of it and ends with the job.

    What is found out on the way needs no row of its own then: after a crash it is found out again, for less than the
    rows would have cost each job.
    """
    return len(job.contents) == 1 and job.contents[0].content.inline is not None


def _digested_at_once(held: Held) -> Held:
    digest = digest_of(held.content.inline or b"")
    return msgspec.structs.replace(held, sha256=digest.sha256, crc64nvme=digest.crc64nvme)


def _confirm(found: Stat, held: Held) -> None:
    if (found.size_bytes, found.sha256) != (held.content.size_bytes, held.sha256):
        raise CorruptError(
            f"unable to confirm {found.key}: the store has {found.size_bytes} bytes with sha256 {found.sha256}, "
            f"not {held.content.size_bytes} bytes with {held.sha256}"
        )
