"""What a save costs its caller while the daemon delivers as fast as it can, on two cores."""

import time
from collections.abc import Iterator

from bench import bucket
from bench.rig import Result, Rig, Times, two_cores, write_file
from dropoff import Run
from support.daemon import DaemonProcess

MIB, GIB = 1 << 20, 1 << 30
BACKLOG_FILES, BACKLOG_FILE_BYTES = 64, 64 * MIB
PAUSE_SECONDS = 0.01
LOOK_EVERY_SAVES = 20
WARM_UP = 20
# The saves that are timed are given up at once; until then none of them may be the next to be delivered.
_LAST = -1000


def run(rig: Rig) -> Iterator[Result]:
    """Fill a backlog, let it go, and save until it is delivered: to a bucket, and to a directory on the same disk."""
    files = rig.place("files")
    backlog = [str(write_file(files / f"backlog-{n}", BACKLOG_FILE_BYTES)) for n in range(BACKLOG_FILES)]
    saved = str(write_file(files / "saved", GIB))
    with two_cores() as cores:
        with bucket.sink(rig, "sink") as server, bucket.daemon(rig, "bucket", server) as daemon:
            yield from _measured(daemon, backlog, saved, f"uploading, {cores} cores", most=0.010)
        # Such a delivery is a copy: on the same disk, what is written for it stands before the commit of each save.
        with rig.daemon("directory") as daemon:
            yield from _measured(daemon, backlog, saved, f"copying to a directory beside, {cores} cores", most=None)


def _measured(
    daemon: DaemonProcess, backlog: list[str], saved: str, how: str, most: float | None
) -> Iterator[Result]:
    daemon.command("pause")
    _save(daemon.run(), saved, Times(), WARM_UP)
    times, seconds = _save_until_delivered(daemon, backlog, saved)
    note = f"{how}, {BACKLOG_FILES * BACKLOG_FILE_BYTES / seconds / 1e6:.0f} MB/s meanwhile"
    what = f"save_file of 1 GiB while {how.partition(',')[0]}"
    yield Result(f"{what}, p50", times.p50, "s", len(times), note=note)
    yield Result(f"{what}, p99", times.p99, "s", len(times), most=most, note=note)
    yield Result(f"{what}, worst", times.worst, "s", len(times), note=note)


def _save(run: Run, path: str, times: Times, count: int, pause_seconds: float = 0.0) -> None:
    for _ in range(count):
        began = time.perf_counter()
        delivery = run.save_file(path, priority=_LAST)
        times.note(time.perf_counter() - began)
        delivery.cancel()
        time.sleep(pause_seconds)


def _save_until_delivered(daemon: DaemonProcess, backlog: list[str], saved: str) -> tuple[Times, float]:
    run, times = daemon.run(name="saves"), Times()
    delivered = daemon.run(name="backlog")
    delivered.save_all(backlog)
    daemon.command("resume")
    began = time.monotonic()
    while delivered.flush(timeout=0).pending:
        _save(run, saved, times, LOOK_EVERY_SAVES, PAUSE_SECONDS)
    return times, time.monotonic() - began
