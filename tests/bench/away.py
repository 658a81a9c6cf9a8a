"""What a save costs its caller when the daemon hangs, was killed, or was never there."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from bench.rig import Result, Rig, Times, seconds, write_file
from support.daemon import DaemonProcess

DEADLINE_SECONDS = 0.1
BEYOND_SECONDS = 0.020
SMALL_BYTES, LARGE_BYTES = 16 << 10, 128 << 20
SMALL_SAVES, LARGE_SAVES = 100, 10


def run(rig: Rig) -> Iterator[Result]:
    """Stop the daemon, kill it, and have none; each time save small and large files."""
    files = rig.place("files")
    small, large = write_file(files / "small", SMALL_BYTES), write_file(files / "large", LARGE_BYTES)
    with rig.daemon("stopped", answer_deadline_seconds=DEADLINE_SECONDS) as daemon:
        daemon.signal(signal.SIGSTOP)
        try:
            yield from _told(daemon, small, large, "stopped", DEADLINE_SECONDS)
        finally:
            daemon.signal(signal.SIGCONT)
    with rig.daemon("killed", answer_deadline_seconds=DEADLINE_SECONDS) as daemon:
        daemon.kill()
        yield from _told(daemon, small, large, "killed", DEADLINE_SECONDS)
    never = DaemonProcess(rig.place("absent"), answer_deadline_seconds=DEADLINE_SECONDS)
    yield from _told(never, small, large, "absent", DEADLINE_SECONDS)


def _told(daemon: DaemonProcess, small: Path, large: Path, how: str, deadline: float) -> Iterator[Result]:
    times, _ = _saves_and_copies(daemon, small, SMALL_SAVES)
    yield Result(
        f"daemon {how}: save_file of 16 KiB, worst", times.worst, "s", len(times), most=deadline + BEYOND_SECONDS
    )
    times, copies = _saves_and_copies(daemon, large, LARGE_SAVES)
    yield Result(
        f"daemon {how}: save_file of 128 MiB, worst",
        times.worst,
        "s",
        len(times),
        most=deadline + BEYOND_SECONDS + copies.worst,
        note=f"the bar holds {copies.worst:.3f} s for the slowest durable copy of the file",
    )


def _saves_and_copies(daemon: DaemonProcess, path: Path, count: int) -> tuple[Times, Times]:
    """Save and copy by turns; each save is a new run's first, so that each asks the daemon."""
    saves, copies = Times(), Times()
    for number in range(count):
        run = daemon.run(name=str(number))
        saves.note(seconds(lambda run=run: run.save_file(path)))  # type: ignore[misc]  # bound for this turn
        copies.note(seconds(lambda: _copy_durably(path, path.with_suffix(".copy"))))
    return saves, copies


def _copy_durably(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    fd = os.open(target, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    target.unlink()
