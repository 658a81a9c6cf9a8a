"""What a daemon costs that has nothing to do."""

import time
from collections.abc import Iterator
from pathlib import Path

from bench.rig import Result, Rig, cpu_seconds, pid_of, resident_bytes, settle, sleeps, write_file
from support.daemon import DaemonProcess

SPAN_SECONDS = 20.0
MEMORY_BYTES = 70_000_000
CORE_PERCENT = 1.0
_DELIVERED_BYTES = 16 << 20


def run(rig: Rig) -> Iterator[Result]:
    """Let it deliver something, so that all of it is there, and then watch it do nothing."""
    with rig.daemon() as daemon:
        daemon.run().save_file(write_file(rig.directory / "file", _DELIVERED_BYTES)).wait()
        pid = pid_of(daemon)
        settle(pid)
        cpu, slept = cpu_seconds(pid), sleeps(pid)
        time.sleep(SPAN_SECONDS)
        cpu, slept = cpu_seconds(pid) - cpu, sleeps(pid) - slept
        yield Result("memory of an idle daemon", resident_bytes(pid), "B", most=MEMORY_BYTES)
        yield Result("memory of its guard alone", _own_bytes(_guard(daemon)), "B")
    note = f"in {SPAN_SECONDS:.0f} s"
    yield Result("processor time", 100 * cpu / SPAN_SECONDS, "% of a core", most=CORE_PERCENT, note=note)
    yield Result("wake-ups", slept / SPAN_SECONDS, "a second", note=note)


def _guard(daemon: DaemonProcess) -> int:
    (path,) = (daemon.root / "state").glob("guard-*")
    return int(path.name.removeprefix("guard-"))


def _own_bytes(pid: int) -> int:
    """Return the memory that would come back if only this process ended."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))
