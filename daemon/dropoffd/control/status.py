"""What `dropoff status` shows: gathered, not kept."""

import os

from dropoff.messages import JobState, Rate, Rates, StatusReport, Total
from dropoff.version import VERSION
from dropoffd.capture.keeper import Keeper
from dropoffd.clock import Clock
from dropoffd.dispatch import Dispatch
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.spool.spool import Spool

HELD_SHOWN = 20


class Control:
    """The daemon, as requests see it."""

    def __init__(self, spool: Spool, keeper: Keeper, dispatch: Dispatch, bandwidth: Bandwidth, clock: Clock) -> None:
        self._spool = spool
        self._keeper = keeper
        self._dispatch = dispatch
        self._bandwidth = bandwidth
        self._clock = clock
        self._started = clock.monotonic()
        self.try_again = dispatch.try_again
        self.cancel = dispatch.cancel
        self.pause = dispatch.pause
        self.running_of = dispatch.running_of

    @property
    def running(self) -> list[int]:
        """The jobs that are being delivered, by `seq`."""
        return self._dispatch.running

    async def limit(self, bandwidth: str | None, store: str) -> Rates:
        """Change a timetable, unless None, and tell all of them; raises SettingsError."""
        if bandwidth is not None:
            await self._bandwidth.change(store, bandwidth)
        return Rates(tuple(Rate(name, text, rate) for name, (text, rate) in self._bandwidth.told().items()))

    async def status(self) -> StatusReport:
        """Tell how things stand."""
        totals = await self._spool.totals()
        running = self._dispatch.running
        active = [self._dispatch.running_of(report) for report in await self._spool.numbered(running)]
        uploading = Total(len(active), sum(report.size_bytes for report in active))
        queued = totals[JobState.QUEUED]
        totals[JobState.QUEUED] = Total(
            max(0, queued.jobs - uploading.jobs), max(0, queued.size_bytes - uploading.size_bytes)
        )
        totals[JobState.UPLOADING] = uploading
        held = await self._spool.listed([JobState.HELD], HELD_SHOWN, None)
        return StatusReport(
            daemon=f"dropoffd {VERSION}",
            pid=os.getpid(),
            uptime_seconds=self._clock.monotonic() - self._started,
            paused=self._dispatch.paused,
            totals=totals,
            rate_bytes_per_second=self._dispatch.rate.bytes_per_second(),
            quota_bytes=self._spool.quota.quota_bytes,
            free_bytes=self._spool.quota.free_bytes(),
            leases=self._keeper.leases,
            held=tuple(held),
            active=tuple(active),
            stores=tuple(self._dispatch.stores()),
        )
