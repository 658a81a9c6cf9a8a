"""Take a job into custody: freeze, look whether the caller still waits, write the row. Both ways in end here."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
import msgspec

from dropoff.content import Capture, Content, payload_place
from dropoff.errors import DropoffError, ProtocolError, SpoolFullError, UnavailableError, UsageError
from dropoff.ids import is_job_id
from dropoff.inbox import Deposit, discard
from dropoff.messages import Accepted
from dropoff.names import display
from dropoff.saves import Keep, Save
from dropoffd.capture.freeze import INLINE_MAX_BYTES, Freezer, Frozen
from dropoffd.capture.guard import Guard
from dropoffd.capture.homes import Homes
from dropoffd.capture.keeper import Keeper
from dropoffd.catalogue.compose import compose
from dropoffd.clock import Clock
from dropoffd.errors import SpoolBrokenError
from dropoffd.spool.spool import Spool
from dropoffd.threads import promptly


class Deliveries(Protocol):
    """What a new job means to whoever delivers."""

    def arrived(self) -> None:
        """Look for work soon."""

    async def supersede(self, seq: int) -> None:
        """Let a newer save take a job's place."""


class Custodian:
    """Owns the moment between a call and its acknowledgement."""

    def __init__(
        self,
        spool: Spool,
        freezer: Freezer,
        keeper: Keeper,
        guard: Guard,
        homes: Homes,
        clock: Clock,
        deliveries: Deliveries,
        *,
        wait_when_full_seconds: float,
    ) -> None:
        self._spool = spool
        self._freezer = freezer
        self._keeper = keeper
        self._guard = guard
        self._homes = homes
        self._clock = clock
        self._deliveries = deliveries
        self._wait_when_full = wait_when_full_seconds
        self._arriving: set[str] = set()
        self._homes_known: set[str] = set()

    def take_at_once(self, save: Save, fd: int, caller_waits: Callable[[], bool]) -> Accepted | None:
        """Take a file into custody without waiting for anything but its commit.

        None, and nothing is kept, where that cannot be or should not: `take` does it then, or tells what is wrong.
        """
        if save.part is not None or save.keep is Keep.NEWEST or save.job in self._arriving:
            return None
        if not self._spool.prompt or self._homes.made - self._homes_known:
            return None
        try:
            frozen = self._freezer.at_once(save, fd)
        except (SpoolFullError, OSError):  # `take` meets the same, and waits, or says so
            frozen = None
        if frozen is None:
            return None
        (content,) = frozen.contents
        with self._undone_unless_kept(frozen):
            seq = self._spool.accept_at_once(save, content) if caller_waits() else None
        if seq is None:
            frozen.undo()
            return None
        asyncio.get_running_loop().call_soon(self._care_for, save.job, seq, frozen)
        return Accepted(save.job, content.capture, 1)

    async def take(self, save: Save, fd: int, caller_waits: Callable[[], bool]) -> Accepted | None:
        """Take what `fd` is open on into custody; None if the caller gave up meanwhile (nothing is kept then).

        Raises UsageError, UnstableSourceError, SpoolFullError or OSError; then nothing is kept either.
        """
        with self._arrival(save):
            try:
                frozen = await self._freeze(save, fd)
            except FileExistsError:
                # The call was made before, on a connection that broke: either its row is there, or its daemon
                # was killed before it wrote one, and what it froze is stale.
                if await self._spool.known(save.job):
                    return Accepted(save.job, "", 0)
                await self._clear(save.job)
                frozen = await self._freeze(save, fd)
            # Who gives up closes the connection first. Still there after the freeze means: still in the call.
            if not caller_waits():
                frozen.undo()
                return None
            return await self._keep(save, frozen)

    async def take_version(self, save: Save) -> Accepted:
        """Take a version of an artifact into custody; its parts are there, and get its run.

        Raises UsageError if they contradict each other, or the artifact is known under another type.
        """
        with self._arrival(save):
            if not await self._spool.known(save.job):
                await self._check_version(save)
                await self._spool.accept(save, (), ())
                self._deliveries.arrived()
            return Accepted(save.job, "", 0)

    async def _check_version(self, save: Save) -> None:
        version = save.version
        assert version is not None, "only versions come here"  # noqa: S101  # a programming error
        kind = await self._spool.known_type(save)
        if kind and kind != version.type:
            raise UsageError(
                f"unable to make a version of {display(save.name)!r} as a {version.type!r}: it is a {kind!r}",
                hint="log it under another name, or with that type",
            )
        additions = await self._spool.additions(version.draft)
        content = [(one.position, one.overwrite, dict.fromkeys(one.paths)) for one in additions]
        await promptly(partial(compose, version, content, lambda one: {one.path: None}))

    async def _take_deposited_version(self, save: Save) -> None:
        """Take a version whose caller is gone: what is wrong with it holds it."""
        try:
            await self._check_version(save)
        except UsageError as error:
            seq = await self._spool.accept(save, (), ())
            if seq is not None:
                await self._spool.hold(seq, error.message, f"{error.hint}; `dropoff cancel` drops this version")
        else:
            await self._spool.accept(save, (), ())
        self._deliveries.arrived()

    async def take_deposit(self, deposit: Deposit, directory: str) -> None:
        """Take a deposit of the inbox into custody, and remove it."""
        save = deposit.save
        with self._arrival(save):
            if await self._spool.known(save.job):
                pass
            elif save.version is not None:
                await self._take_deposited_version(save)
            else:
                await self._clear(save.job)
                frozen = Frozen(self._spool.quota, self._guard)
                try:
                    await anyio.to_thread.run_sync(partial(self._move_in, deposit, directory, frozen))
                except BaseException:
                    frozen.undo()
                    raise
                await self._keep(save, frozen)
            await anyio.to_thread.run_sync(partial(discard, directory))

    async def take_up(self, unsettled: Sequence[tuple[str, int, Content]], *, same_boot: bool) -> None:
        """Care again for content of jobs that have rows; hold the jobs that lost some."""
        for seq, error in await self._keeper.recover(unsettled, same_boot=same_boot):
            reason, hint = (error.message, error.hint) if isinstance(error, DropoffError) else (str(error), "")
            await self._spool.hold(seq, reason, hint)
        if unsettled:
            await self._keeper.settle_recovered()

    async def _freeze(self, save: Save, fd: int) -> Frozen:
        deadline = self._clock.monotonic() + self._wait_when_full
        while True:
            try:
                return self._freezer.at_once(save, fd) or await self._freezer.freeze(save, fd)
            except SpoolFullError:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise
                with anyio.move_on_after(min(left, 1.0)):  # space on the disk comes back without a word
                    await self._spool.quota.freed()

    async def _keep(self, save: Save, frozen: Frozen) -> Accepted:
        with self._undone_unless_kept(frozen):
            for home in self._homes.made - self._homes_known:
                await self._spool.add_home(home)
                self._homes_known.add(home)
            # Not to be torn apart by a stop: a row without its content would make the caller's deposit of the
            # same job, which is sure to follow, look superfluous.
            with anyio.CancelScope(shield=True):
                seq = await self._spool.accept(save, frozen.contents, frozen.skipped, self._clock.now())
        files = [content for content in frozen.contents if content.capture is not Capture.PACK]
        rungs = "+".join(sorted({content.capture for content in files}))
        if seq is None:
            frozen.undo()
        else:
            # After the answer, which is on its way before the loop's next turn.
            asyncio.get_running_loop().call_soon(self._care_for, save.job, seq, frozen)
            await self._look_after_links(save.job, seq, frozen)
            if save.keep is Keep.NEWEST:
                for older in await self._spool.older_of_name(seq):
                    await self._deliveries.supersede(older)
        return Accepted(save.job, rungs, len(files), tuple(frozen.skipped))

    @contextlib.contextmanager
    def _undone_unless_kept(self, frozen: Frozen) -> Iterator[None]:
        try:
            yield
        except SpoolBrokenError:
            self._deliveries.arrived()  # who delivers will find the same, and end the daemon
            raise  # whether the row is on disk nobody knows, so its content stays
        except BaseException:
            frozen.undo()
            raise

    def _care_for(self, job: str, seq: int, frozen: Frozen) -> None:
        for content in frozen.contents:
            holding = frozen.holdings.get(content.ordinal)
            if holding is not None:
                self._keeper.adopt(job, seq, content, holding)
            elif not content.synced and content.capture is not Capture.LINK:
                self._keeper.sync_later(seq, content)
        self._deliveries.arrived()

    async def _look_after_links(self, job: str, seq: int, frozen: Frozen) -> None:
        """Care for links that the SDK made, without a lease: who wrote to them meanwhile shows now."""
        links = [c for c in frozen.contents if c.capture is Capture.LINK and c.ordinal not in frozen.holdings]
        if links:
            await self.take_up([(job, seq, content) for content in links], same_boot=True)

    def _move_in(self, deposit: Deposit, directory: str, frozen: Frozen) -> None:
        """Link the files of a deposit into custody; the deposit stays whole until its row is on disk."""
        _check(deposit)
        for content in deposit.contents:
            name = os.path.basename(os.fsdecode(content.place))
            source = os.path.join(directory, name)
            if content.capture is Capture.PACKED:
                frozen.reserve(content.size_bytes)
            elif content.capture is Capture.PACK:
                self._link(source, name, frozen)
            else:
                frozen.reserve(content.size_bytes)
                if content.size_bytes <= INLINE_MAX_BYTES and content.capture is not Capture.LINK:
                    with open(source, "rb") as file:
                        content = msgspec.structs.replace(  # noqa: PLW2901  # the same content, elsewhere
                            content, inline=file.read(), capture=Capture.INLINE, place=b"", stamp=None
                        )
                else:
                    self._link(source, name, frozen)
            frozen.contents.append(content)
        frozen.skipped = list(deposit.skipped)

    def _link(self, source: str, name: str, frozen: Frozen) -> None:
        target = os.path.join(self._homes.payloads, name)
        os.link(source, target, follow_symlinks=False)
        frozen.made(target)

    async def _clear(self, job: str) -> None:
        """Remove what a killed daemon froze for a job that has no row."""

        def clear() -> None:
            for home in {self._homes.payloads, *self._homes.made}:
                for name in os.listdir(home):
                    if name.startswith(job + "-"):
                        os.unlink(os.path.join(home, name))

        await anyio.to_thread.run_sync(clear)

    def _arrival(self, save: Save) -> "_Arrival":
        return _Arrival(self._arriving, save.job)


class _Arrival:
    """Keeps one job from arriving twice at the same moment."""

    def __init__(self, arriving: set[str], job: str) -> None:
        self._arriving = arriving
        self._job = job

    def __enter__(self) -> None:
        if self._job in self._arriving:
            raise UnavailableError(f"unable to take job {self._job}: it is arriving already")
        self._arriving.add(self._job)

    def __exit__(self, *_: object) -> None:
        self._arriving.discard(self._job)


def _check(deposit: Deposit) -> None:
    """Raise ProtocolError unless the record names just the files of its own job: it may come from anybody's disk."""
    job = deposit.save.job
    ordinals = [content.ordinal for content in deposit.contents]
    expected = [payload_place(job, 0 if c.capture is Capture.PACKED else c.ordinal) for c in deposit.contents]
    if (
        not is_job_id(job)
        or len(set(ordinals)) < len(ordinals)
        or [content.place for content in deposit.contents] != expected
        or any(content.capture is Capture.INLINE or content.size_bytes < 0 for content in deposit.contents)
    ):
        raise ProtocolError(f"unable to take the deposit of job {job}: its record does not describe what lies there")
