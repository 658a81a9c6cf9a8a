"""Take in what the SDK deposited while no daemon answered."""

import logging
import os
import time

import anyio
import anyio.to_thread

from dropoff.errors import ProtocolError, SpoolFullError, UnavailableError
from dropoff.inbox import abandoned, deposits, discard, read_deposit
from dropoffd.clock import Clock
from dropoffd.intake.custodian import Custodian

_log = logging.getLogger(__name__)

# A deposit is made only when this daemon did not answer, so looking costs more than it finds; one listing of a
# directory now and then is nothing.
SCAN_SECONDS = 5.0
_TICK_NS = 1_000_000_000


class Inbox:
    """Looks into the inbox at start, now and then, and when somebody waits for deliveries."""

    def __init__(self, state_dir: str, custodian: Custodian, clock: Clock) -> None:
        self._directory = os.path.join(state_dir, "inbox")
        self._quarantine = os.path.join(state_dir, "quarantine")
        self._custodian = custodian
        self._clock = clock
        self._turn = anyio.Lock()
        self._seen_mtime_ns = 0
        self.waiting: dict[str, tuple[str, str]] = {}
        """The deposits that could not be taken yet, for want of room: the run of each by its job."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        await self._remove_abandoned()
        while True:
            await self.take_all()
            await self._clock.sleep(SCAN_SECONDS)

    async def take_all(self) -> None:
        """Take every deposit there is into custody, oldest first."""
        async with self._turn:
            try:
                mtime_ns = os.stat(self._directory).st_mtime_ns
                if mtime_ns == self._seen_mtime_ns:
                    return
                found = await anyio.to_thread.run_sync(deposits, self._directory)
            except OSError as error:  # out of descriptors, or the disk: what lies there lies there well
                _log.warning("inbox not read cause=%s", error)
                return
            for job in found:
                await self._take(job)
            self.waiting = {job: self.waiting[job] for job in found if job in self.waiting}
            # Before Linux 6.13 two changes within a tick have one time: what is so young is looked at again.
            if not self.waiting and time.time_ns() - mtime_ns > _TICK_NS:
                self._seen_mtime_ns = mtime_ns

    async def _remove_abandoned(self) -> None:
        try:
            for path in await anyio.to_thread.run_sync(abandoned, self._directory):
                _log.info("unfinished deposit removed path=%s", path)
                await anyio.to_thread.run_sync(discard, path)
        except OSError as error:  # garbage that stays until the next start
            _log.warning("unfinished deposits not removed cause=%s", error)

    async def _take(self, job: str) -> None:
        directory = os.path.join(self._directory, job)
        try:
            deposit = await anyio.to_thread.run_sync(read_deposit, directory)
        except (ProtocolError, FileNotFoundError) as error:
            self._set_aside(directory, error)
            return
        except OSError as error:  # out of descriptors, say: no fault of the deposit's
            _log.warning("deposit not read job=%s cause=%s", job, error)
            return
        run = deposit.save.run
        if deposit.save.version is not None and any(one < job for one in self.waiting):
            # Its parts, or a version before it, may be among what waits; it comes after them.
            self.waiting[job] = (run.project, run.name)
            return
        self.waiting[job] = (run.project, run.name)
        try:
            await self._custodian.take_deposit(deposit, directory)
        except (FileNotFoundError, ProtocolError) as error:
            self._set_aside(directory, error)
        except (SpoolFullError, UnavailableError, OSError) as error:
            _log.warning("deposit waits job=%s cause=%s", job, error)
            return
        del self.waiting[job]

    def _set_aside(self, directory: str, error: Exception) -> None:
        """Keep a deposit that cannot be used, where it does not come up again and again, with the reason."""
        os.makedirs(self._quarantine, mode=0o700, exist_ok=True)
        target = os.path.join(self._quarantine, os.path.basename(directory))
        try:
            os.rename(directory, target)
            with open(target + ".reason", "w", encoding="utf-8") as file:
                file.write(f"{error}\n")
        except OSError as trouble:
            _log.warning("deposit not set aside path=%s cause=%s", directory, trouble)
        _log.error("deposit set aside path=%s cause=%s", target, error)
