"""Collect garbage: content that nothing names, for longer than a delivery can take to name it.

First all content is listed, then all that names content is read; what is old and named by nothing is garbage. It is
removed in sweeps, each announced in the store, so that a delivery which is about to count on some of it sees that, or
is seen (`catalogue/claims.py`). Killed at any moment, nothing is lost but the rest of the work: what was not removed
is found again. What cannot be read could name anything, so then nothing is removed.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

import anyio
import msgspec

from dropoff.answers import Collected
from dropoff.errors import RefusedError as Refusal
from dropoff.ids import new_job_id
from dropoff.records import Claim, Sweep, decode_claim, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import SWEEP_MOST_SECONDS, overwrite
from dropoffd.catalogue.inventory import Found, Scope, take_inventory
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.publish import moment
from dropoffd.catalogue.reading import read_small
from dropoffd.clock import Clock
from dropoffd.stores.base import (
    CorruptError,
    NotFoundError,
    Progress,
    RefusedError,
    Stat,
    Store,
    StoreError,
    UnavailableError,
    ignore_progress,
)

_log = logging.getLogger(__name__)

# What is named after longer than this is made sure of first (`catalogue/claims.py`), so a day is more than enough.
GRACE_LEAST_SECONDS = 86400.0
_SWEPT_AT_ONCE = 500
_REMOVED_AT_ONCE = 16
# A sweep that takes longer than this gives up, long before deliveries stop to respect what it announced.
_SWEEP_SECONDS = SWEEP_MOST_SECONDS / 4
_NAMING = frozenset({Holds.RECORD, Holds.MANIFEST, Holds.REMOVED, Holds.CONTRIBUTION})
# A group that nobody finished for so long is not waited for any more.
_UNFINISHED_SECONDS = 30 * 86400.0
# Uploads in parts that nobody went on with for so long.
_ABANDONED_SECONDS = 7 * 86400.0


class _Content(msgspec.Struct, frozen=True):
    size_bytes: int
    modified_at: float


class Collector:
    """One collection of a project's garbage; what is younger than `grace_seconds` is left alone."""

    def __init__(
        self, store: Store, project: str, grace_seconds: float, clock: Clock, progress: Progress = ignore_progress
    ) -> None:
        self._store = store
        self._progress = progress
        self._project = project
        self._grace = grace_seconds
        self._clock = clock
        self._sweep = keys.sweep_key(project, new_job_id())
        self._old: dict[str, _Content] = {}
        self._unreadable: list[str] = []
        self._forgotten: set[str] = set()
        self._claims: set[str] = set()
        self._kept = self._kept_bytes = 0
        self._ahead = 0.0

    async def run(self, *, apply: bool) -> Collected:
        """Find garbage, and with `apply` remove it; raises StoreError, and RefusedError for what nobody can read."""
        await self._store.prepare()
        # By the store's time, where something is to be removed by it; a look alone leaves nothing behind.
        self._ahead = (await self._store_time() if apply else self._clock.now()) - self._clock.monotonic()
        await self._find()
        found = sum(one.size_bytes for one in self._old.values())
        report = Collected(
            kept=self._kept, kept_bytes=self._kept_bytes, garbage=len(self._old), garbage_bytes=found,
            unreadable=tuple(self._unreadable),
        )  # fmt: skip
        if not apply:
            return report
        if self._unreadable:
            await self._store.delete(self._sweep)
            raise Refusal(
                f"unable to collect the garbage of {self._project!r}: {self._unreadable[0]}",
                hint="what it names is not known, so nothing is garbage for sure; repair it or remove it by hand",
            )
        removed, removed_bytes = await self._remove_all()
        return msgspec.structs.replace(
            report, removed=removed, removed_bytes=removed_bytes, uploads=await self._end_uploads()
        )

    async def _store_time(self) -> float:
        await self._announce(())
        return (await self._store.stat(self._sweep)).modified_at or self._clock.now()

    @property
    def _now(self) -> float:
        return self._clock.monotonic() + self._ahead

    def _is_old(self, stat: Stat) -> bool:
        return self._now - stat.modified_at > self._grace

    def _is_over(self, stat: Stat) -> bool:
        kind = keys.holds(stat.key)
        if kind is Holds.CONTRIBUTION:
            return self._is_old(stat) and self._now - stat.modified_at > _UNFINISHED_SECONDS
        return kind is Holds.REMOVED and self._is_old(stat)

    async def _find(self) -> None:
        # Content first: what is named meanwhile is seen afterwards.
        for prefix in keys.content_prefixes(self._project):
            async for stat in self._store.list(prefix):
                self._progress(1)
                if self._is_old(stat):
                    self._old[stat.key] = _Content(stat.size_bytes, stat.modified_at)
                else:
                    self._count(stat.size_bytes)

        async def spare(stat: Stat, found: Found) -> None:
            self._progress(1)
            if self._is_over(stat):
                self._forgotten.add(stat.key)
            elif isinstance(found, CorruptError | RefusedError):
                self._unreadable.append(found.message)
            else:
                self._spare(entry.key for entry in found.entries)

        await take_inventory(self._store, Scope(project=self._project), spare, _NAMING)
        await self._spare_claimed()

    async def _spare_claimed(self) -> None:
        async for stat in self._store.list(keys.claims_prefix(self._project)):
            if self._is_old(stat):
                self._forgotten.add(stat.key)
            elif stat.key not in self._claims:
                self._claims.add(stat.key)
                try:
                    claim: Claim = await read_small(self._store, stat.key, decode_claim)
                except NotFoundError:  # what it is for is named by now, or will be with another
                    continue
                self._spare(claim.keys)

    def _spare(self, named: Iterable[str]) -> None:
        for key in named:
            content = self._old.pop(key, None)
            if content is not None:
                self._count(content.size_bytes)

    def _count(self, size: int) -> None:
        self._kept += 1
        self._kept_bytes += size

    async def _remove_all(self) -> tuple[int, int]:
        removed = removed_bytes = 0
        try:
            while some := list(islice(self._old, _SWEPT_AT_ONCE)):
                count, size = await self._remove(some)
                removed += count
                removed_bytes += size
            # Last: what they tell is needed for as long as anything that they named may be there.
            for key in self._forgotten:
                await self._store.delete(key)
        finally:
            with anyio.CancelScope(shield=True):
                await self._store.delete(self._sweep)
        return removed, removed_bytes

    async def _remove(self, some: list[str]) -> tuple[int, int]:
        """Remove some of the garbage, but for what was claimed or stored anew meanwhile."""
        await self._announce(some)
        give_up = self._clock.monotonic() + _SWEEP_SECONDS
        await self._spare_claimed()
        doomed = {key: self._old.pop(key) for key in some if key in self._old}
        removed: list[int] = []
        failures: list[StoreError] = []

        async def work(todo: Iterator[tuple[str, _Content]]) -> None:
            for key, content in todo:
                try:
                    if self._clock.monotonic() > give_up:
                        raise UnavailableError("unable to go on: the store is too slow", hint="run it again")
                    if (await self._store.stat(key)).modified_at == content.modified_at:
                        await self._store.delete(key)
                        removed.append(content.size_bytes)
                except NotFoundError:  # another collection was faster
                    continue
                except StoreError as error:
                    failures.append(error)
                    return

        todo = iter(doomed.items())
        async with anyio.create_task_group() as group:
            for _ in range(_REMOVED_AT_ONCE):
                group.start_soon(work, todo)
        if failures:
            raise failures[0]
        _log.info("garbage removed project=%s objects=%d bytes=%d", self._project, len(removed), sum(removed))
        return len(removed), sum(removed)

    async def _announce(self, some: Iterable[str]) -> None:
        sweep = Sweep(keys=tuple(some), created=moment(self._clock.now()))
        await overwrite(self._store, self._sweep, encode(sweep))

    async def _end_uploads(self) -> int:
        """End uploads in parts that nobody will finish."""
        if self._store.multipart is None:
            return 0
        ended = 0
        for prefix in keys.content_prefixes(self._project):
            async for upload in self._store.multipart.uploads(prefix):
                if self._now - upload.begun_at > max(self._grace, _ABANDONED_SECONDS):
                    await self._store.multipart.abandon(upload.key, upload.upload)
                    ended += 1
        return ended
