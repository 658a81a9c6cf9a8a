"""Deliver an artifact's additions: a file that the newest version has is named again, and not sent again.

What is left is delivered as any job is. Of a pack of small files of which some are known, a smaller one is made, or,
where few are left, no pack at all.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
import msgspec

from dropoff.content import Capture, Content, payload_name, payload_place, stamp
from dropoff.messages import Receipt
from dropoff.packing import PackWriter
from dropoffd.catalogue.catalogue import Catalogue
from dropoffd.catalogue.newest import newest_version
from dropoffd.clock import Clock
from dropoffd.custody import Digest, Held, Job, Source
from dropoffd.stores.base import NotFoundError, Progress, Store, StoreError
from dropoffd.transfer.digest import Digester
from dropoffd.transfer.plan import PACK_MEMBERS_MIN, step_bytes

# Asked of the store at once: whether what the newest version names is still there.
_STATS_AT_ONCE = 16
# No content of a job has this ordinal: a directory has no more files than a million.
_REPACKED = 1 << 30
# An artifact of many additions asks once what its newest version has; whether it still has it is asked each time.
_NEWEST_SECONDS, _NEWEST_MOST = 30.0, 4

Place = tuple[str, int | None]


class Deliverer(Protocol):
    """Whoever brings a job into a store."""

    async def deliver(self, job: Job, store: Store, progress: Progress) -> Receipt:
        """Bring the whole job into `store`; raises StoreError or SourceChangedError."""


class Digested(Protocol):
    """Where digests become rows."""

    async def digested(self, seq: int, sums: Sequence[tuple[int, Digest]]) -> None:
        """Record the digests of contents by ordinal."""


class Reuse:
    """Delivers what `worker` delivers, and less of an artifact's additions."""

    def __init__(
        self,
        worker: Deliverer,
        catalogue: Catalogue,
        facts: Digested,
        open_source: Callable[[str, int, Content], Source],
        digester: Digester,
        payloads: str,
        clock: Clock,
    ) -> None:
        self._worker = worker
        self._catalogue = catalogue
        self._facts = facts
        self._open = open_source
        self._digester = digester
        self._payloads = payloads
        self._clock = clock
        self._newest: dict[tuple[str, str, str], tuple[float, dict[tuple[str, int], Place]]] = {}

    async def deliver(self, job: Job, store: Store, progress: Progress) -> Receipt:
        """Bring the whole job into `store`; raises StoreError or SourceChangedError."""
        if job.save.version is not None:
            self._newest.clear()
        if job.save.part is None:
            return await self._worker.deliver(job, store, progress)
        await store.prepare()
        sent_bytes = 0

        def count(size: int) -> None:
            nonlocal sent_bytes
            sent_bytes += size
            progress(size)

        earlier_bytes = _stored_bytes(job)
        known = await self._known(job, store)
        if known:
            job = await self._digest(job, store)
        places = _places(job, known) if known else {}
        places = await self._still_there(store, places)
        spared_bytes = sum(held.content.size_bytes for held in job.contents if held.content.ordinal in places)
        if places:
            await self._catalogue.record(store, job, places)
        rest, repacked = await anyio.to_thread.run_sync(partial(self._rest, job, places))
        try:
            receipt = await self._worker.deliver(rest, store, count)
        finally:
            if repacked:
                os.unlink(repacked)
        found_bytes = job.size_bytes - spared_bytes - sent_bytes - earlier_bytes
        return msgspec.structs.replace(
            receipt, files=receipt.files + len(places), spared_bytes=spared_bytes + max(0, found_bytes)
        )

    async def _known(self, job: Job, store: Store) -> dict[tuple[str, int], Place]:
        """Return where the newest version has content, by sha256 and size."""
        assert job.save.part is not None, "only additions come here"  # noqa: S101  # a programming error
        artifact = (store.url, job.save.run.project, job.save.part.artifact)
        found = self._newest.get(artifact)
        if found is None or self._clock.monotonic() - found[0] > _NEWEST_SECONDS:
            newest = await newest_version(store, *artifact[1:])
            entries = newest.manifest.entries if newest.manifest else ()
            if len(self._newest) >= _NEWEST_MOST:
                self._newest.clear()
            known = {(entry.sha256, entry.size): (entry.key, entry.offset) for entry in entries}
            found = self._newest[artifact] = (self._clock.monotonic(), known)
        return found[1]

    async def _digest(self, job: Job, store: Store) -> Job:
        missing = [held for held in job.contents if not held.sha256]
        sums = await self._digester.digest(
            [partial(self._open, job.id, job.seq, held.content) for held in missing],
            partial(step_bytes, limits=store.limits),
        )
        by_ordinal = {held.content.ordinal: digest for held, digest in zip(missing, sums, strict=True)}
        await self._facts.digested(job.seq, list(by_ordinal.items()))

        def with_digest(held: Held) -> Held:
            digest = by_ordinal.get(held.content.ordinal)
            return held if digest is None else digest.of(held)

        return msgspec.structs.replace(job, contents=tuple(with_digest(held) for held in job.contents))

    async def _still_there(self, store: Store, places: Mapping[int, Place]) -> dict[int, Place]:
        """Return those places whose objects the store has: one question for each object, whatever it holds."""
        there: set[str] = set()
        troubles: list[StoreError] = []
        keys = iter({key for key, _ in places.values()})

        async def ask() -> None:
            for key in keys:
                try:
                    await store.stat(key)
                except NotFoundError:
                    continue
                except StoreError as error:
                    troubles.append(error)
                    return
                there.add(key)

        async with anyio.create_task_group() as group:
            for _ in range(_STATS_AT_ONCE):
                group.start_soon(ask)
        if troubles:
            raise troubles[0]
        return {ordinal: place for ordinal, place in places.items() if place[0] in there}

    def _rest(self, job: Job, places: Mapping[int, Place]) -> tuple[Job, str]:
        """Return the job without what is stored at `places`, and the file of a smaller pack, if one was made."""
        packs = [held for held in job.contents if held.content.capture is Capture.PACK]
        packed = [held for held in job.contents if held.content.capture is Capture.PACKED]
        others = [held for held in job.contents if held.content.capture not in {Capture.PACK, Capture.PACKED}]
        left = [held for held in packed if held.content.ordinal not in places]
        others = [held for held in others if held.content.ordinal not in places]
        repacked = ""
        if len(left) == len(packed):
            left = packs + left
        elif len(left) >= PACK_MEMBERS_MIN:
            left, repacked = self._repack(job, left)
        return msgspec.structs.replace(job, contents=(*left, *others)), repacked

    def _repack(self, job: Job, members: Sequence[Held]) -> tuple[list[Held], str]:
        path = os.path.join(self._payloads, payload_name(job.id, _REPACKED))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            pack = PackWriter(fd)
            place = payload_place(job.id, _REPACKED)
            moved = [self._moved(job, held, pack, place) for held in members]
            size = pack.finish()
            whole = Content(
                ordinal=_REPACKED, path=b"", size_bytes=size, mode=0o600, mtime_ns=0,
                capture=Capture.PACK, place=place, stamp=stamp(fd),
            )  # fmt: skip
        finally:
            os.close(fd)
        return [Held(content=whole), *moved], path

    def _moved(self, job: Job, held: Held, pack: PackWriter, place: bytes) -> Held:
        source = self._open(job.id, job.seq, held.content)
        try:
            offset = pack.add(held.content.path, source.read(held.content.size_bytes, 0))
        finally:
            source.close()
        return msgspec.structs.replace(
            held, content=msgspec.structs.replace(held.content, place=place, offset=offset)
        )


def _places(job: Job, known: Mapping[tuple[str, int], Place]) -> dict[int, Place]:
    return {
        held.content.ordinal: known[held.sha256, held.content.size_bytes]
        for held in job.contents
        if held.content.capture is not Capture.PACK and (held.sha256, held.content.size_bytes) in known
    }


def _stored_bytes(job: Job) -> int:
    """Return how much of a job an earlier try stored."""
    pack = any(held.key for held in job.contents if held.content.capture is Capture.PACK)
    return sum(
        held.content.size_bytes
        for held in job.contents
        if held.content.capture is not Capture.PACK
        and (held.key or (pack and held.content.capture is Capture.PACKED))
    )
