"""What a million queued jobs cost: to start with, to hold, to look at, to add to, and to deliver from."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rig import (
    NEVER_SECONDS,
    NO_QUOTA_BYTES,
    Result,
    Rig,
    Times,
    Yardstick,
    pid_of,
    resident_bytes,
    seconds,
    settle,
    write_file,
)
from dropoff import Delivery, Run
from dropoff.client import Client
from dropoff.content import Capture, Content
from dropoff.ids import new_job_id
from dropoff.messages import JobState, Status, StatusReport
from dropoff.saves import Category, Kind, RunInfo, Save
from dropoffd.spool import jobs
from dropoffd.spool.database import Database
from support.daemon import DaemonProcess

JOBS, RUNS = 1_000_000, 20
FEW_JOBS = 1_000
AT_ONCE = 50_000
CONTENT = b"sixteen bytes ok"
LOOKS = 20
SAVES, SAVED_BYTES = 300, 16 << 20
DELIVERIES = 400
READY_SECONDS, MEMORY_BYTES, STATUS_SECONDS, SAME = 2.0, 200_000_000, 0.300, 2.0


def run(rig: Rig) -> Iterator[Result]:
    """Start daemons on a full spool and on one that is nearly empty, and let both do the same by turns."""
    full, few = _filled(rig, "full", JOBS), _filled(rig, "few", FEW_JOBS)
    try:
        ready = seconds(full.start)
        few.start()
        yield Result(f"ready with {JOBS:,} queued jobs", ready, "s", most=READY_SECONDS)
        yield from _looks(full)
        yield from _saves(rig, full, few)
        yield from _deliveries(full, few)
        yield Result("memory", resident_bytes(pid_of(full)), "B", most=MEMORY_BYTES, note="after all of this")
        full.kill()
        yield Result("ready again after a kill", seconds(full.start), "s", most=READY_SECONDS)
    finally:
        full.end()
        few.end()


def _filled(rig: Rig, name: str, count: int) -> DaemonProcess:
    """Make a daemon, paused, and put jobs into its spool as it does itself, but many in one commit."""
    daemon = DaemonProcess(
        rig.place(name), spool_quota_bytes=NO_QUOTA_BYTES, copy_after_seconds=NEVER_SECONDS, history_jobs=0
    )
    daemon.start().command("pause")
    daemon.stop()
    infos = [daemon.run(name=f"run-{number}").info for number in range(RUNS)]
    asyncio.run(_fill(daemon.root / "state" / "spool.db", infos, count))
    return daemon


async def _fill(path: Path, infos: list[RunInfo], count: int) -> None:
    database = Database(str(path))
    await database.open()
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        await database.run(lambda connection, numbers=numbers: _add(connection, infos, numbers))  # type: ignore[misc]
    await database.aclose()


def _add(connection: sqlite3.Connection, infos: list[RunInfo], numbers: range) -> None:
    runs = [jobs.run_of(connection, (info.project, info.name, info.store)) for info in infos]
    for number in numbers:
        name, which = f"file-{number}".encode(), number % len(infos)
        save = Save(
            job=new_job_id(), run=infos[which], kind=Kind.FILE, name=name, category=Category.OUTPUT,
            source=b"/training/" + name, created_at=time.time(),
        )  # fmt: skip
        content = Content(
            ordinal=1, path=name, size_bytes=len(CONTENT), mode=0o644, mtime_ns=time.time_ns(),
            capture=Capture.INLINE, inline=CONTENT,
        )  # fmt: skip
        jobs.accept(connection, number + 1, runs[which], save, [content], [])


def _looks(full: DaemonProcess) -> Iterator[Result]:
    asked, commands = Times(), Times()
    for _ in range(LOOKS):
        asked.add(lambda: _status(full))
        commands.add(lambda: full.command("status"))
    yield Result("status by the socket, worst", asked.worst, "s", LOOKS, most=STATUS_SECONDS)
    yield Result("dropoff status, worst", commands.worst, "s", LOOKS, most=STATUS_SECONDS)
    yield Result("memory", resident_bytes(pid_of(full)), "B", most=MEMORY_BYTES, note="after start and status")


def _status(daemon: DaemonProcess) -> StatusReport:
    report = Client(daemon.settings).call(Status())
    assert isinstance(report, StatusReport)
    return report


def _saves(rig: Rig, full: DaemonProcess, few: DaemonProcess) -> Iterator[Result]:
    path = str(write_file(rig.directory / "file", SAVED_BYTES))
    times = {full: Times(), few: Times()}
    runs = {daemon: daemon.run(name="saves") for daemon in times}
    for _ in range(3):
        for daemon, run in runs.items():
            settle(pid_of(daemon))
            _save(run, path, times[daemon], SAVES // 3)
    yield Result(
        "save_file with the backlog, p50", times[full].p50, "s", SAVES,
        Yardstick("without", times[few].p50), most=SAME,
    )  # fmt: skip
    yield Result("save_file with the backlog, p99", times[full].p99, "s", SAVES, Yardstick("without", times[few].p99))


def _save(run: Run, path: str, times: Times, count: int) -> None:
    kept: list[Delivery] = []
    for _ in range(count):
        times.add(lambda: kept.append(run.save_file(path)))
        kept.pop().cancel()


def _deliveries(full: DaemonProcess, few: DaemonProcess) -> Iterator[Result]:
    costs = {full: _delivery_seconds(full), few: _delivery_seconds(few)}
    yield Result(
        "one delivery from the backlog", costs[full], "s", DELIVERIES, Yardstick("without", costs[few]), most=SAME
    )


def _delivery_seconds(daemon: DaemonProcess) -> float:
    """Let some deliveries happen and return what one took."""
    settle(pid_of(daemon))
    before = _undelivered(daemon)
    daemon.command("resume")
    began = time.monotonic()
    while (left := _undelivered(daemon)) > before - DELIVERIES:
        time.sleep(0.05)
    span = time.monotonic() - began
    daemon.command("pause")
    return span / (before - left)


def _undelivered(daemon: DaemonProcess) -> int:
    totals = _status(daemon).totals
    return totals[JobState.QUEUED].jobs + totals[JobState.UPLOADING].jobs
