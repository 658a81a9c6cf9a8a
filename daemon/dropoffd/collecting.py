"""Collect garbage: content that nothing names, for longer than a delivery can take to name it.

First all content is listed, then all that names content is read; what is old and named by nothing is garbage. What is
named may move meanwhile: from contributions to the version that they become, from a version to what is kept of it
when it is removed. So those are read in this order, each from its own listing: what left one before it was read had
come to the next before that is listed.

Garbage is removed in sweeps, each announced in the store, so that a delivery which is about to count on some of it
sees that, or is seen (`catalogue/claims.py`), and so does another collection. Killed at any moment, nothing is lost
but the rest of the work: what was not removed is found again. What cannot be read could name anything, so then
nothing is removed.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from itertools import islice

import anyio
import msgspec

from dropoff.answers import Collected
from dropoff.errors import RefusedError as Refusal
from dropoff.ids import new_job_id
from dropoff.records import Sweep, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import SWEEP_MOST_SECONDS, announced, overwrite
from dropoffd.catalogue.inventory import Found, Scope, take_inventory
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.publish import moment
from dropoffd.catalogue.reading import read_claim
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
from dropoffd.stores.retry import Patience

_log = logging.getLogger(__name__)

# What is named after longer than this is made sure of first (`catalogue/claims.py`), so a day is more than enough.
GRACE_LEAST_SECONDS = 86400.0
_SWEPT_AT_ONCE = 500
_REMOVED_AT_ONCE = 16
_TOLD_MOST = 100
# A sweep that takes longer than this gives up, long before deliveries stop to respect what it announced.
_SWEEP_SECONDS = SWEEP_MOST_SECONDS / 4
_NAMING = (
    frozenset({Holds.CONTRIBUTION}),
    frozenset({Holds.RECORD, Holds.MANIFEST}),
    frozenset({Holds.REMOVED}),
)
# A group that nobody finished for so long is not waited for any more.
_UNFINISHED_SECONDS = 30 * 86400.0
# Uploads in parts that nobody went on with for so long.
_ABANDONED_SECONDS = 7 * 86400.0


class _Content(msgspec.Struct, frozen=True):
    size_bytes: int
    second: int


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
        self._patiently = Patience(clock)
        # There as long as this goes on, so that deliveries know of it; each sweep has one more.
        self._going_on = keys.sweep_key(project, new_job_id())
        self._old: dict[str, _Content] = {}
        self._unreadable: list[str] = []
        self._forgotten: dict[str, Stat] = {}
        self._claims: set[tuple[str, str]] = set()
        self._kept = self._kept_bytes = 0
        # When it began: what is too young then is not looked at again.
        self._now = 0.0

    async def run(self, *, apply: bool) -> Collected:
        """Find garbage, and with `apply` remove it; raises StoreError, and RefusedError for what nobody can read."""
        await self._store.prepare()
        if not apply:  # a look alone leaves nothing behind
            self._now = self._clock.now()
            return await self._find()
        stat = await self._announce(self._going_on, ())
        try:
            # By the store's time, by which objects are old.
            self._now = self._told(stat)
            report = await self._find()
            self._check(report)
            removed, removed_bytes = await self._remove_all()
            uploads = await self._end_uploads()
        finally:
            with anyio.CancelScope(shield=True):
                await self._store.delete(self._going_on)
        return msgspec.structs.replace(report, removed=removed, removed_bytes=removed_bytes, uploads=uploads)

    def _told(self, stat: Stat) -> float:
        if not stat.modified_at:
            raise Refusal(
                f"unable to collect the garbage of {self._project!r}: it does not tell when objects are stored",
                hint="what is old enough to be garbage is not known; remove it by the store's own means",
            )
        return stat.modified_at

    def _check(self, report: Collected) -> None:
        if report.unreadable:
            raise Refusal(
                f"unable to collect the garbage of {self._project!r}: {report.unreadable[0]}",
                hint="what it names is not known, so nothing is garbage for sure; repair it or remove it by hand",
            )

    def _is_old(self, stat: Stat) -> bool:
        # Of what the store does not tell when it was stored nobody knows that.
        return bool(stat.modified_at) and self._now - stat.modified_at > self._grace

    def _is_over(self, stat: Stat) -> bool:
        kind = keys.holds(stat.key)
        if kind is Holds.CONTRIBUTION:
            return self._is_old(stat) and self._now - stat.modified_at > _UNFINISHED_SECONDS
        return kind is Holds.REMOVED and self._is_old(stat)

    async def _find(self) -> Collected:
        # Content first: what is named meanwhile is seen afterwards.
        for prefix in keys.content_prefixes(self._project):
            async for stat in self._store.list(prefix):
                self._progress(1)
                if self._is_old(stat):
                    self._old[stat.key] = _Content(stat.size_bytes, _second(stat))
                else:
                    self._count(stat.size_bytes)

        async def spare(stat: Stat, found: Found) -> None:
            self._progress(1)
            if self._is_over(stat):
                self._forgotten[stat.key] = stat
            elif isinstance(found, CorruptError | RefusedError):
                self._unreadable.append(found.message)
            else:
                self._spare(entry.key for entry in found.entries)

        # Claims before what names objects: who takes one back, unaware of this, has named something by then.
        await self._spare_claimed()
        for kinds in _NAMING:
            await take_inventory(self._store, Scope(project=self._project), spare, kinds)
        return Collected(
            kept=self._kept, kept_bytes=self._kept_bytes, garbage=len(self._old),
            garbage_bytes=sum(one.size_bytes for one in self._old.values()),
            unreadable=tuple(self._unreadable[:_TOLD_MOST]),
        )  # fmt: skip

    async def _spare_claimed(self) -> None:
        async for stat in self._store.list(keys.claims_prefix(self._project)):
            if self._is_old(stat):
                self._forgotten[stat.key] = stat
            elif (stat.key, stat.etag) not in self._claims:
                self._claims.add((stat.key, stat.etag))
                try:
                    claim = await read_claim(self._store, stat.key)
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
        while some := list(islice(self._old, _SWEPT_AT_ONCE)):
            count, size = await self._remove(some)
            removed += count
            removed_bytes += size
        # Last: what they tell is needed for as long as anything that they named may be there.
        await self._forget()
        return removed, removed_bytes

    async def _forget(self) -> None:
        """Remove what is over; not what was made anew since."""
        async for stat in self._store.list(keys.sweeps_prefix(self._project)):
            if self._is_old(stat):  # somebody was killed in the midst of it
                self._forgotten[stat.key] = stat
        for stat in self._forgotten.values():
            with contextlib.suppress(NotFoundError):
                found = await self._store.head(stat.key)
                if (found.etag, _second(found)) == (stat.etag, _second(stat)):
                    await self._store.delete(stat.key)

    async def _remove(self, some: list[str]) -> tuple[int, int]:
        """Remove some of the garbage, but for what was claimed or stored anew meanwhile."""
        sweep = keys.sweep_key(self._project, new_job_id())
        begun = self._clock.monotonic(), self._clock.now()
        now = (await self._announce(sweep, some)).modified_at
        others = [one async for one in self._store.list(keys.sweeps_prefix(self._project)) if one.key != sweep]
        # Another collection has those, and could remove what is stored anew once this one removed it.
        for key in await announced(self._store, others, now):
            self._old.pop(key, None)
        await self._spare_claimed()
        doomed = {key: self._old.pop(key) for key in some if key in self._old}
        removed: list[int] = []
        failures: list[StoreError] = []

        async def work(todo: Iterator[tuple[str, _Content]]) -> None:
            for key, content in todo:
                try:
                    # By both: while a machine sleeps, one of them may stand still.
                    if max(self._clock.monotonic() - begun[0], self._clock.now() - begun[1]) > _SWEEP_SECONDS:
                        raise UnavailableError("unable to go on: the store is too slow", hint="run it again")
                    if await self._remove_one(key, content):
                        removed.append(content.size_bytes)
                except StoreError as error:
                    failures.append(error)
                    return

        todo = iter(doomed.items())
        async with anyio.create_task_group() as group:
            for _ in range(_REMOVED_AT_ONCE):
                group.start_soon(work, todo)
        if failures:
            # The sweep stays announced: what was asked for and not answered may be done yet.
            raise failures[0]
        await self._store.delete(sweep)
        _log.info("garbage removed project=%s objects=%d bytes=%d", self._project, len(removed), sum(removed))
        return len(removed), sum(removed)

    async def _remove_one(self, key: str, content: _Content) -> bool:
        """Remove an object unless it was stored anew; return whether this did it. Each try looks at it again."""
        asked = False

        async def once() -> bool:
            nonlocal asked
            try:
                if _second(await self._store.head(key)) != content.second:
                    return False
            except NotFoundError:  # an answer was lost; or another collection was faster
                return asked
            asked = True
            await self._store.delete(key)
            return True

        return await self._patiently(once)

    async def _announce(self, key: str, some: Iterable[str]) -> Stat:
        await overwrite(self._store, key, encode(Sweep(keys=tuple(some), created=moment(self._clock.now()))))
        return await self._store.stat(key)

    async def _end_uploads(self) -> int:
        """End uploads in parts that nobody will finish."""
        if self._store.multipart is None:
            return 0
        ended = 0
        for prefix in keys.content_prefixes(self._project):
            async for upload in self._store.multipart.uploads(prefix):
                if upload.begun_at and self._now - upload.begun_at > max(self._grace, _ABANDONED_SECONDS):
                    await self._store.multipart.abandon(upload.key, upload.upload)
                    ended += 1
        return ended


def _second(stat: Stat) -> int:
    """Return when an object was stored: some stores tell fractions of a second in listings alone."""
    return int(stat.modified_at)
