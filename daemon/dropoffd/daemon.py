"""The assembly: builds every part, starts them in order, and stops them in order.

Start: lock, spool, what an earlier daemon left, deliveries, then the socket, so that whoever connects finds all
of it. Stop: the socket first, then deliveries, then leases become copies, then the spool. All of it can be cut off
by SIGKILL anywhere: what is acknowledged is on disk before it is acknowledged.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread

from dropoff.content import PAYLOADS
from dropoff.errors import SpoolFullError
from dropoff.settings import Settings, WhenFull
from dropoff.version import VERSION
from dropoffd import systemd
from dropoffd.capture import lease
from dropoffd.capture.freeze import Freezer
from dropoffd.capture.guard import COPYING, Guard, send_home
from dropoffd.capture.homes import Homes
from dropoffd.capture.keeper import Keeper
from dropoffd.catalogue.catalogue import Catalogue
from dropoffd.catalogue.references import References
from dropoffd.clock import Clock, SystemClock
from dropoffd.control.status import Control
from dropoffd.curator import Curator
from dropoffd.dispatch import Dispatch
from dropoffd.errors import Exit, SpoolBrokenError, StartError
from dropoffd.fetch.cache import Cache
from dropoffd.filesystem import network_type, private_directory
from dropoffd.index.index import Indexes
from dropoffd.intake.custodian import Custodian
from dropoffd.intake.handlers import Handlers
from dropoffd.intake.inbox import Inbox
from dropoffd.intake.listener import Listener
from dropoffd.intake.readers import Readers
from dropoffd.intake.unlogged import Unlogged
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.reader import Reader
from dropoffd.reuse import Reuse
from dropoffd.spool.lock import SpoolLock
from dropoffd.spool.spool import Spool
from dropoffd.stores.elsewhere.elsewhere import Elsewhere
from dropoffd.stores.registry import Stores
from dropoffd.tidying import Tidying
from dropoffd.transfer.digest import Digester
from dropoffd.transfer.worker import Worker

_log = logging.getLogger(__name__)

_BOOT = "boot"
# For what ends in time but has a row to write.
_GRACE_SECONDS = 0.5
# One hash at a time per core that training can spare; on two cores that is one.
_DIGESTS_AT_ONCE = max(1, (os.cpu_count() or 2) // 2)
# A thread that holds the interpreter gives it up this soon to the event loop, which has a caller waiting
# (CPython's default of 5 ms is most of what a save may take).
_SWITCH_SECONDS = 0.0005
# resolv.conf(5). By default a silent name server is asked again after 5 s: it may be back for as long.
_RESOLVER_OPTIONS = "timeout:1 attempts:3"


class Daemon:
    """One daemon on one state directory."""

    def __init__(
        self, settings: Settings, guard: Guard, clock: Clock | None = None, chance: random.Random | None = None
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()  # noqa: S311  # spreads retries, guards nothing

    async def serve(self) -> None:
        """Run until stopped; raises StartError, or SpoolBrokenError when the spool's disk failed."""
        lock = SpoolLock(self._settings.state_dir)
        try:
            await self._serve()
        finally:
            lock.release()

    async def _serve(self) -> None:
        settings = self._settings
        spool = Spool(
            settings.state_dir, settings.spool_quota_bytes, settings.spool_floor_bytes, settings.history_jobs
        )
        await spool.open()
        boot = _boot_id()
        homes = Homes(settings.state_dir, settings.link_dir, boot)
        parts = self._parts(spool, homes)
        leftovers = await _leftovers(spool, homes)
        async with anyio.create_task_group() as care:
            stop = anyio.Event()
            care.start_soon(_on_signals, stop, parts.keeper)
            care.start_soon(_leave_at_last, spool, stop, settings.stop_timeout_seconds + _GRACE_SECONDS)
            await anyio.lowlevel.checkpoint()
            same_boot = await _same_boot(spool, boot)
            care.start_soon(parts.keeper.run)
            await anyio.lowlevel.checkpoint()
            await parts.custodian.take_up(await spool.unsettled(), same_boot=same_boot)
            send_home(settings.state_dir, self._guard.pid)
            # Before anything can come in: a job that is handed in again takes the names of what it left behind.
            await spool.sweep(leftovers)
            parts.listener.bind()
            try:
                await self._work(parts, stop)
            finally:
                parts.listener.close()
                with anyio.move_on_after(settings.stop_timeout_seconds, shield=True):
                    await parts.keeper.stop()
                    await parts.stores.aclose()
                    parts.indexes.close()
            care.cancel_scope.cancel()
        await spool.aclose()
        homes.remove_empty()
        self._guard.close()
        _log.info("stopped")

    async def _work(self, parts: "_Parts", stop: anyio.Event) -> None:
        """Do all that can be cut off, until stopped."""
        async with anyio.create_task_group() as work:
            for run in (*parts.runs, _watchdog):
                work.start_soon(run)
            gc.freeze()  # what was built at the start stays: no collection need look at it
            systemd.notify("READY=1")
            _log.info("ready version=%s pid=%d state=%s", VERSION, os.getpid(), self._settings.state_dir)
            await stop.wait()
            systemd.notify("STOPPING=1")
            work.cancel_scope.cancel()

    def _parts(self, spool: Spool, homes: Homes) -> "_Parts":
        settings, clock = self._settings, self._clock
        bandwidth = Bandwidth(clock, settings.bandwidth, spool.meta, spool.set_meta)
        stores = Stores(
            clock, spool.meta, spool.set_meta, bandwidth,
            requests_per_second=settings.requests_per_second, in_flight_max=settings.in_flight_max,
        )  # fmt: skip
        keeper = Keeper(
            homes, self._guard, spool.quota, spool.replace_content, clock,
            copy_after_seconds=settings.copy_after_seconds, leases_max=settings.leases_max,
        )  # fmt: skip
        dispatch = Dispatch(
            spool, keeper, _deliverer(settings, spool, keeper, homes, clock), stores, clock, self._chance,
            places=settings.transfers_max, retry_first_seconds=settings.retry_first_seconds,
            retry_most_seconds=settings.retry_most_seconds,
        )  # fmt: skip
        wait_seconds = settings.when_full_timeout_seconds if settings.when_full is WhenFull.WAIT else 0.0
        custodian = Custodian(
            spool, Freezer(homes, spool.quota, self._guard, keeper.may_lease), keeper, self._guard,
            homes, clock, dispatch, wait_when_full_seconds=wait_seconds,
        )  # fmt: skip
        inbox = Inbox(settings.state_dir, custodian, clock)
        unlogged = Unlogged(spool, dispatch, clock, settings.unlogged_keep_seconds)
        control = Control(spool, keeper, dispatch, bandwidth, clock)
        indexes = Indexes(settings.cache_dir)
        readers, tidying = _curators(settings, stores, indexes, clock)
        listener = Listener(settings.runtime_dir, Handlers(spool, custodian, control, inbox, stores, readers))
        runs = (listener.run, dispatch.run, inbox.run, bandwidth.run, unlogged.run, tidying.run)
        return _Parts(keeper, custodian, listener, stores, indexes, runs)


class _Parts(NamedTuple):
    """What is started and stopped one by one, and what simply runs in between."""

    keeper: Keeper
    custodian: Custodian
    listener: Listener
    stores: Stores
    indexes: Indexes
    runs: tuple[Callable[[], Coroutine[Any, Any, None]], ...]


def _deliverer(settings: Settings, spool: Spool, keeper: Keeper, homes: Homes, clock: Clock) -> Reuse:
    references = References(Elsewhere(clock, allow_private=settings.allow_private_references))
    catalogue, digester = Catalogue(clock, spool, references), Digester(_DIGESTS_AT_ONCE)
    worker = Worker(spool, catalogue, keeper.open, digester, clock)
    return Reuse(worker, catalogue, spool, keeper.open, digester, homes.payloads, clock)


def _curators(settings: Settings, stores: Stores, indexes: Indexes, clock: Clock) -> tuple[Readers, Tidying]:
    cache = Cache(settings.cache_dir, settings.cache_max_bytes)
    elsewhere = Elsewhere(clock, allow_private=settings.allow_private_references)
    reader = Reader(stores, cache, indexes, clock, elsewhere)
    curator = Curator(stores, indexes, clock, settings.retention)
    return Readers(reader, curator), Tidying(reader, curator, clock, settings.store, settings.tidy_every_seconds)


def prepare_state_dir(settings: Settings) -> None:
    """Make the state directory, or raise StartError where it cannot be one."""
    try:
        for path in (settings.state_dir, os.path.join(settings.state_dir, PAYLOADS), settings.inbox_dir):
            private_directory(path)
        network = network_type(settings.state_dir)
    except OSError as error:
        raise StartError(
            f"unable to use the state directory {error.filename or settings.state_dir}: {error.strerror}",
            hint="it must be yours with mode 0700; or set DROPOFF_STATE_DIR",
        ) from error
    if network and not settings.allow_network_state:
        raise StartError(
            f"unable to use the state directory {settings.state_dir}: it is on {network}, where neither locks nor "
            "syncs can be trusted",
            hint="set DROPOFF_STATE_DIR to a local disk such as /var/tmp or the node's scratch; "
            "or allow_network_state = true, at your own risk",
        )


async def _same_boot(spool: Spool, boot: str) -> bool:
    """Tell whether the machine has run since the last daemon did, and remember this boot."""
    same = await spool.meta(_BOOT) == boot
    if not same:
        with contextlib.suppress(SpoolFullError):  # a full disk is drained, not waited for
            await spool.set_meta(_BOOT, boot)
    return same


async def _leftovers(spool: Spool, homes: Homes) -> list[bytes]:
    """Return the payload files that are there before anything new can come."""
    known = await spool.homes()

    def listed() -> list[bytes]:
        found = []
        for home in (homes.payloads, *known):
            try:
                # What a guard is copying just now is not a leftover, though no row names it yet.
                found += [homes.place(home, name) for name in os.listdir(home) if not name.endswith(COPYING)]
            except OSError:  # its file system is not mounted now
                continue
        return found

    homes.made.update(known)
    return await anyio.to_thread.run_sync(listed)


async def _on_signals(stop: anyio.Event, keeper: Keeper) -> None:
    loop = asyncio.get_running_loop()
    for stopping in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stopping, stop.set)
    for breaking in (lease.BREAK_SIGNAL, lease.OVERFLOW_SIGNAL):
        loop.add_signal_handler(breaking, keeper.on_break)
    await anyio.sleep_forever()


async def _leave_at_last(spool: Spool, stop: anyio.Event, seconds: float) -> None:
    """End the process when a store that hangs, in a system call that nobody can interrupt, holds up the stop.

    What it had begun is queued; leased content that was not copied is the guard's.
    """
    await stop.wait()
    await anyio.sleep(seconds)
    _log.error("stop takes too long: leaving what hangs behind")
    await spool.aclose()
    os._exit(Exit.OK)


async def _watchdog() -> None:
    """Tell systemd that the loop turns; a loop that hangs would keep writers waiting on its leases."""
    seconds = systemd.watchdog_seconds()
    while seconds is not None:
        systemd.notify("WATCHDOG=1")
        await anyio.sleep(seconds)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def run(settings: Settings) -> Exit:
    """Run a daemon on uvloop until it is stopped; return the exit code."""
    import uvloop  # noqa: PLC0415  # the only place; commands that run no daemon need none

    sys.setswitchinterval(_SWITCH_SECONDS)
    os.umask(0o077)
    os.environ.setdefault("RES_OPTIONS", _RESOLVER_OPTIONS)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a lease is a descriptor, and the usual limit is 1024
    prepare_state_dir(settings)
    guard = Guard(settings.state_dir)
    outcome = Exit.OK
    try:
        uvloop.run(Daemon(settings, guard).serve())
    except* SpoolBrokenError as group:
        _log.critical("spool broken cause=%s", group.exceptions[0])
        outcome = Exit.IO
    except* StartError as group:
        raise group.exceptions[0] from None
    return outcome
