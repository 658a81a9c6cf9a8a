"""Make frozen content the daemon's own, after the answer, and stand between it and whoever writes.

A leased link becomes a reflink where there is one. Elsewhere the lease is kept until the upload has read the
file; if a writer comes first, or the upload lets wait, the content is copied and the lease given back. What is
not known to be on disk is synced in the background, and the row says so afterwards.

Crash by crash: a copy gets its final name when it is complete, and only then may the lease go; so after a kill
there is either an untouched link or a complete copy, known by this boot's name in it. After a power cut a copy
that was never synced is not trusted, and a link whose file was not synced is not either: the job is held.
"""

import contextlib
import enum
import heapq
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from dropoff.content import Capture, Content, payload_name, stamp, stamp_of
from dropoff.errors import SpoolFullError
from dropoff.names import display
from dropoff.saves import Stamp
from dropoffd.capture import lease
from dropoffd.capture.duplicate import Duplicate, Duplicator
from dropoffd.capture.guard import Guard
from dropoffd.capture.holding import Holding, Inline
from dropoffd.capture.homes import Homes
from dropoffd.capture.syncing import sync_files
from dropoffd.clock import Clock
from dropoffd.custody import Room, Source
from dropoffd.errors import SourceChangedError
from dropoffd.filesystem import sync

_log = logging.getLogger(__name__)

# Records that a job's content lies elsewhere now; False if the job ended meanwhile.
Record = Callable[[int, Content], Awaitable[bool]]

_COPIES_AT_ONCE = 2
_SPACE_SECONDS = 1.0
# A burst of saves is over by then, and most files are on disk or delivered anyway.
_SYNC_AFTER_SECONDS = 2.0
# What is due so soon is done with what is due now: one sync of a directory instead of many.
_TOGETHER_SECONDS = 0.5


class _Due(enum.Enum):
    SYNC = enum.auto()
    COPY = enum.auto()


class _Kept:
    """One content in the keeper's care."""

    def __init__(self, job: str, seq: int, content: Content, holding: Holding) -> None:
        self.job = job
        self.seq = seq
        self.content = content
        self.holding = holding
        self.turn = anyio.Lock()
        self.breaking = False

    @property
    def key(self) -> tuple[int, int]:
        return self.seq, self.content.ordinal


class Keeper:
    """Cares for every content that is not yet the daemon's own."""

    def __init__(
        self,
        homes: Homes,
        guard: Guard,
        room: Room,
        record: Record,
        clock: Clock,
        *,
        copy_after_seconds: float,
        leases_max: int,
    ) -> None:
        self._homes = homes
        self._guard = guard
        self._room = room
        self._record = record
        self._clock = clock
        self._copy_after = copy_after_seconds
        self._leases_max = leases_max
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._recovered: list[_Kept] = []
        # Where contents went since a delivery may have read their rows; until their jobs end.
        self._moved: dict[int, dict[int, Content]] = {}
        self._due: list[tuple[float, int, _Due, tuple[int, int]]] = []
        self._count = itertools.count()
        self._due_changed = anyio.Event()
        self._duplicator = Duplicator(homes)
        self._slots = anyio.CapacityLimiter(_COPIES_AT_ONCE)
        self._urgent = anyio.CapacityLimiter(_COPIES_AT_ONCE)
        self._group: anyio.abc.TaskGroup | None = None

    @property
    def leases(self) -> int:
        """How many contents are in care."""
        return len(self._kept)

    def may_lease(self) -> bool:
        """Tell whether one more lease may be taken."""
        return len(self._kept) < self._leases_max

    def open(self, job: str, seq: int, content: Content) -> Source:
        """Return the bytes of a content, to be closed after use; raises SourceChangedError or OSError."""
        kept = self._kept.get((seq, content.ordinal))
        if kept is not None:
            return kept.holding.borrow()
        if content.inline is not None:
            return Inline(content.inline)
        content = self._moved.get(seq, {}).get(content.ordinal, content)
        try:
            fd = os.open(self._homes.path(content.place), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _lost(job, content) from None
        return Holding(fd, content, content.stamp)

    async def run(self) -> None:
        """Care, until cancelled."""
        async with anyio.create_task_group() as group:
            self._group = group
            group.start_soon(self._watch_age)
            await anyio.sleep_forever()

    def adopt(self, job: str, seq: int, content: Content, holding: Holding) -> None:
        """Take a content into care whose row is on disk."""
        kept = _Kept(job, seq, content, holding)
        self._kept[kept.key] = kept
        if not lease.intact(holding.fd):  # a writer came before we were listening for it
            self._break(kept)
        elif self._duplicator.is_in_vain(content):
            self._settle_by_copy(kept)
        else:
            self._start(self._settle, kept)

    def sync_later(self, seq: int, content: Content) -> None:
        """See that a copy made before the answer reaches the disk."""
        self._start(self._sync_copy, seq, content)

    def forget(self, seq: int) -> None:
        """Let go of what an ended job had."""
        self._moved.pop(seq, None)
        for kept in [kept for kept in self._kept.values() if kept.seq == seq]:
            self._let_go(kept)

    def on_break(self) -> None:
        """Look which leases a writer waits for, and copy those contents now."""
        for kept in list(self._kept.values()):
            if kept.holding.leased and not kept.breaking and not lease.intact(kept.holding.fd):
                self._break(kept)

    def _break(self, kept: _Kept) -> None:
        kept.breaking = True
        self._start(self._own, kept)

    async def stop(self) -> None:
        """Turn what still rests on a lease into copies; what is not done when cancelled stays a link."""
        for kept in list(self._kept.values()):
            await self._own(kept)

    async def _written(self, seq: int, content: Content) -> bool:
        """Write down where a content is, however long the spool's disk stays full; False if its job ended."""
        while True:
            try:
                return await self._record(seq, content)
            except SpoolFullError as error:
                _log.error("content waits for space seq=%d cause=%s", seq, error.message)
                await self._clock.sleep(_SPACE_SECONDS)

    def _let_go(self, kept: _Kept) -> None:
        if self._kept.pop(kept.key, None):
            self._guard.drop(payload_name(kept.job, kept.content.ordinal))
            kept.holding.close()

    def _start(self, work: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        # Before `run` and after it, at start and stop, whoever calls waits for the work itself.
        if self._group is not None:
            self._group.start_soon(work, *args)

    async def _settle(self, kept: _Kept) -> None:
        """Reflink at once where that works; else sync, and copy if the upload lets wait."""
        if not await self._own(kept, only_reflink=True):
            self._settle_by_copy(kept)

    def _settle_by_copy(self, kept: _Kept) -> None:
        now = self._clock.monotonic()
        self._later(now + min(_SYNC_AFTER_SECONDS, self._copy_after), _Due.SYNC, kept)
        self._later(now + self._copy_after, _Due.COPY, kept)

    def _later(self, at: float, what: "_Due", kept: _Kept) -> None:
        entry = (at, next(self._count), what, kept.key)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._due_changed.set()

    async def _watch_age(self) -> None:
        while True:
            self._due_changed = anyio.Event()
            now = self._clock.monotonic()
            to_sync = []
            while self._due and self._due[0][0] <= now + _TOGETHER_SECONDS:
                _, _, what, key = heapq.heappop(self._due)
                kept = self._kept.get(key)
                if kept and what is _Due.SYNC:
                    to_sync.append(kept)
                elif kept and self._room.allows_copy(kept.content.size_bytes):
                    # With too little space the lease is all there is, and it does the work.
                    self._start(self._own, kept)
            if to_sync:
                self._start(self._sync_links, to_sync)
            with anyio.move_on_after(max(0.0, self._due[0][0] - now) if self._due else None):
                await self._due_changed.wait()

    async def _sync_links(self, some: Sequence[_Kept]) -> None:
        """Bring files and their links to the disk; their directories once for all of them."""
        paths = {kept.key: self._homes.path(kept.content.place) for kept in some}
        synced = await anyio.to_thread.run_sync(partial(sync_files, paths), limiter=self._slots)
        async with anyio.create_task_group() as group:
            for kept in some:
                if kept.key in synced:
                    group.start_soon(self._record_synced, kept)

    async def _record_synced(self, kept: _Kept) -> None:
        async with kept.turn:
            if kept.key in self._kept and kept.content.capture is Capture.LINK:
                content = msgspec.structs.replace(kept.content, synced=True)
                if await self._written(kept.seq, content):
                    kept.content = content

    async def _sync_copy(self, seq: int, content: Content) -> None:
        paths = {(seq, content.ordinal): self._homes.path(content.place)}
        if await anyio.to_thread.run_sync(partial(sync_files, paths), limiter=self._slots):
            await self._written(seq, msgspec.structs.replace(content, synced=True))

    async def _own(self, kept: _Kept, only_reflink: bool = False) -> bool:
        """Make a content the daemon's own file; False if that was not possible."""
        async with kept.turn:
            if kept.key not in self._kept or kept.content.capture is not Capture.LINK:
                return True
            holding = kept.holding.borrow()
            try:
                made = await anyio.to_thread.run_sync(
                    partial(
                        self._duplicator.make,
                        kept.job,
                        kept.content,
                        kept.holding,
                        only_reflink=only_reflink,
                        urgent=lambda: kept.breaking,
                    ),
                    limiter=self._urgent if kept.breaking else self._slots,
                )
                if made is None:
                    return False
                await self._adopt_duplicate(kept, made)
            except SourceChangedError as error:
                # A writer came through: the lease was another daemon's. Then that one's guard made a copy first.
                found = self._complete_copy(kept.job, kept.content)
                if found is None:
                    _log.warning("content changed job=%s cause=%s", kept.job, error.message)
                    self._give_up(kept)
                    return False
                await self._written(kept.seq, found)
                self._moved.setdefault(kept.seq, {})[found.ordinal] = found
                self._let_go(kept)
                self.sync_later(kept.seq, found)
            except OSError as error:
                # The writer must not wait for a disk that is full: the stamp will tell what it wrote, and the
                # job will be held, never uploaded with it.
                _log.warning("content not copied job=%s cause=%s", kept.job, error)
                self._give_up(kept)
                return False
            finally:
                holding.close()
            return True

    def _give_up(self, kept: _Kept) -> None:
        """Let a waiting writer through, although there is no copy."""
        if kept.breaking:
            self._guard.drop(payload_name(kept.job, kept.content.ordinal))
            kept.holding.give_lease_back()

    async def _adopt_duplicate(self, kept: _Kept, made: Duplicate) -> None:
        capture, home, path, fd = made
        link = self._homes.path(kept.content.place)
        own = stamp(fd)
        if kept.breaking:  # somebody's open() waits: the copy is complete, so let it through now
            self._move(kept, fd, own)
        content = msgspec.structs.replace(
            kept.content, capture=capture, place=self._homes.place(home, os.path.basename(path)), stamp=own
        )
        await anyio.to_thread.run_sync(partial(sync, path), limiter=self._urgent)
        await anyio.to_thread.run_sync(partial(sync, home), limiter=self._urgent)
        recorded = await self._written(kept.seq, msgspec.structs.replace(content, synced=True))
        if kept.holding.fd != fd:
            self._move(kept, fd, own)
        if recorded:
            self._moved.setdefault(kept.seq, {})[kept.content.ordinal] = content
        self._let_go(kept)
        for gone in [link] if recorded else [path]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(gone)

    def _move(self, kept: _Kept, fd: int, own: Stamp) -> None:
        # The guard first: a lease that was given back looks to it like one that a writer waits for.
        self._guard.drop(payload_name(kept.job, kept.content.ordinal))
        kept.holding.move(fd, own)

    async def recover(
        self, unsettled: Sequence[tuple[str, int, Content]], *, same_boot: bool
    ) -> list[tuple[int, Exception]]:
        """Take up again, at start, what an earlier daemon had not settled; return the jobs that lost content."""
        lost: list[tuple[int, Exception]] = []
        for job, seq, content in unsettled:
            try:
                await anyio.to_thread.run_sync(partial(self._take_up, job, seq, content, same_boot))
            except (SourceChangedError, OSError) as error:
                lost.append((seq, error))
        return lost

    def _take_up(self, job: str, seq: int, content: Content, same_boot: bool) -> None:
        found = self._complete_copy(job, content)
        if found is None and not (content.synced or same_boot):
            raise SourceChangedError(
                f"unable to trust the captured content of {display(content.path)}: "
                "power was lost before it was on disk",
                hint="save it again; `dropoff cancel` drops this job",
            )
        content = found or content
        fd = os.open(self._homes.path(content.place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        holding = Holding(fd, content, content.stamp)
        leased = content.capture is Capture.LINK and lease.take(fd)
        try:
            holding.check()  # before the lease counts: it tells nothing of what was written until now
        except SourceChangedError:
            holding.close()
            raise
        holding.leased = leased
        if leased:
            name = payload_name(job, content.ordinal)
            self._guard.hold(name, fd, content.size_bytes, self._homes.own_path(name))
        kept = _Kept(job, seq, content, holding)
        self._kept[kept.key] = kept
        self._recovered.append(kept)

    def _complete_copy(self, job: str, content: Content) -> Content | None:
        """Return the content as the guard, or a killed daemon, copied it before its row said so."""
        if content.capture is not Capture.LINK:
            return None
        name = payload_name(job, content.ordinal)
        for home in {os.path.dirname(self._homes.path(content.place)), self._homes.payloads}:
            path = self._homes.own_path(name, home)
            with contextlib.suppress(FileNotFoundError):
                return msgspec.structs.replace(
                    content,
                    capture=Capture.COPY,
                    place=self._homes.place(home, os.path.basename(path)),
                    stamp=stamp_of(os.stat(path)),
                    synced=False,
                )
        return None

    async def settle_recovered(self) -> None:
        """Go on with what was taken up, once rows can be written."""
        recovered, self._recovered = self._recovered, []
        for kept in recovered:
            if kept.content.capture is Capture.LINK:
                self._start(self._own if not kept.holding.leased else self._settle, kept)
                continue
            self._let_go(kept)
            await self._written(kept.seq, kept.content)
            self.sync_later(kept.seq, kept.content)


def _lost(job: str, content: Content) -> SourceChangedError:
    return SourceChangedError(
        f"unable to find the captured content of {display(content.path)}: its file is gone from custody",
        hint=f"save it again; `dropoff cancel {job}` drops this job",
    )
