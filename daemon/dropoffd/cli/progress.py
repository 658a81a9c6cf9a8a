"""Live progress on a terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from dropoff.messages import FINAL_STATES, JobState, Settled, StatusReport
from dropoff.names import display
from dropoffd.copying.tally import Tally


def _bars() -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )


class Progress:
    """One bar for all that is in custody, and one for each job on its way."""

    def __init__(self) -> None:
        self._bars = _bars()
        self._all = self._bars.add_task("waiting for the daemon", total=None)
        self._jobs: dict[str, TaskID] = {}
        self._whole_bytes = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, report: StatusReport, settled: Settled) -> None:
        """Show how things stand."""
        left = sum(
            total.size_bytes
            for state, total in report.totals.items()
            if state not in FINAL_STATES and state is not JobState.HELD
        ) - sum(job.sent_bytes for job in report.active)
        self._whole_bytes = max(self._whole_bytes, left)
        self._bars.update(
            self._all,
            description=f"{settled.delivered} delivered, {settled.pending} to go",
            total=self._whole_bytes,
            completed=self._whole_bytes - left,
        )
        self._update_jobs(report)

    def _update_jobs(self, report: StatusReport) -> None:
        active = {job.job for job in report.active}
        for gone in [job for job in self._jobs if job not in active]:
            self._bars.remove_task(self._jobs.pop(gone))
        for job in report.active:
            if job.job not in self._jobs:
                self._jobs[job.job] = self._bars.add_task(f"  {display(job.name)}", total=job.size_bytes)
            self._bars.update(self._jobs[job.job], completed=job.sent_bytes)


class CopyProgress:
    """One bar for a copy, as far as it is known what is to be copied."""

    def __init__(self) -> None:
        self._bars = _bars()
        self._all = self._bars.add_task("looking", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, tally: Tally) -> None:
        """Show how far it is."""
        self._bars.update(
            self._all,
            description=f"{tally.versions} versions, {tally.records} records, {tally.objects} objects",
            total=tally.expected_bytes,
            completed=tally.moved_bytes,
        )


class CountBar:
    """One bar for bytes of `whole`, or, where that is 0, for things of an unknown number."""

    def __init__(self, *, in_bytes: bool, whole: int) -> None:
        count = (DownloadColumn(binary_units=True), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), *count, TimeElapsedColumn())
        self._bars = Bars(*columns, console=Console(file=sys.stderr), transient=True)
        self._task = self._bars.add_task("fetching" if in_bytes else "looking", total=whole or None)
        self._bars.start()

    def update(self, done: int) -> None:
        """Show how far it is."""
        self._bars.update(self._task, completed=done)

    def stop(self) -> None:
        """Take it away again."""
        self._bars.stop()
