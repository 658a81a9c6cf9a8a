"""What the benches share: a real disk, real daemons, times, and one record for what came out.

A result is held against its bar by one number: the ratio to its yardstick where it has one, else the figure
itself. Without a bar it is told for information.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.daemon import DaemonProcess

# Large enough that no daemon here copies or refuses by itself: that is not what is measured.
NEVER_SECONDS = 1e6
NO_QUOTA_BYTES = 1 << 50

_PIECE_BYTES = 8 << 20
_QUIET_SLEEPS = 2
_LOOPS = 1_000_000
_LOOK_SECONDS = 0.1
_QUIET_MOST_SECONDS = 60.0


@dataclass(frozen=True)
class Yardstick:
    """What a figure is measured by: something else that was done in the same run."""

    what: str
    measured: float


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    what: str
    measured: float
    unit: str
    samples: int = 1
    yardstick: Yardstick | None = None
    most: float | None = None
    """The bar: for the ratio if there is a yardstick, else for the figure."""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many yardsticks it is."""
        if self.yardstick is None:
            return None
        return self.measured / self.yardstick.measured if self.yardstick.measured else math.inf

    @property
    def met(self) -> bool | None:
        """Whether it keeps to its bar; None where there is none."""
        if self.most is None:
            return None
        return (self.measured if self.ratio is None else self.ratio) <= self.most

    @property
    def verdict(self) -> str:
        """The same as a word."""
        return "for information" if self.met is None else "met" if self.met else "MISSED"


class Times:
    """Durations of one thing done again and again, in seconds."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def __len__(self) -> int:
        return len(self.all)

    def add(self, work: Callable[[], object]) -> None:
        """Do `work` and note how long it took."""
        self.note(seconds(work))

    def note(self, duration: float) -> None:
        """Note a duration."""
        self.all.append(duration)

    def percentile(self, percent: float) -> float:
        """Return the least duration that so many percent do not exceed."""
        ordered = sorted(self.all)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.all)

    @property
    def p99(self) -> float:
        """What one in a hundred exceeds."""
        return self.percentile(99)

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.all)


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Rig:
    """A place on a real disk for one bench; whoever made it removes it."""

    directory: Path
    _names: list[int] = field(default_factory=list)

    def place(self, name: str) -> Path:
        """Make a directory of that name."""
        made = self.directory / name
        made.mkdir()
        return made

    @contextmanager
    def daemon(self, name: str = "daemon", *, paused: bool = False, **settings: object) -> Iterator[DaemonProcess]:
        """Run a daemon with no limits that could come in between, for as long as the block lasts."""
        daemon = DaemonProcess(
            self.place(name),
            **{"spool_quota_bytes": NO_QUOTA_BYTES, "copy_after_seconds": NEVER_SECONDS} | settings,
        )
        try:
            daemon.start()
            if paused:
                daemon.command("pause")
            yield daemon
        finally:
            daemon.end()


def write_file(path: Path, size: int, *, sparse: bool = False) -> Path:
    """Write a file of `size` bytes and bring it to the disk; `sparse` leaves a hole but for its ends."""
    piece = os.urandom(min(size, _PIECE_BYTES))
    with path.open("xb", buffering=0) as file:
        if sparse:
            file.write(piece)
            file.seek(size - len(piece))
            file.write(piece)
        else:
            left = size
            while left:
                left -= file.write(piece[:left])
        os.fsync(file.fileno())
    return path


def settle(pid: int) -> None:
    """Return when the process has had nothing to do for a moment."""
    give_up = time.monotonic() + _QUIET_MOST_SECONDS
    before = sleeps(pid)
    while True:
        time.sleep(_LOOK_SECONDS)
        now = sleeps(pid)
        if now - before <= _QUIET_SLEEPS:
            return
        if time.monotonic() > give_up:
            raise TimeoutError(f"process {pid} does not come to rest")
        before = now


def sleeps(pid: int) -> int:
    """Return how often its threads went to sleep (proc(5), voluntary_ctxt_switches)."""
    lines = [line for path in Path(f"/proc/{pid}/task").glob("*/status") for line in path.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))


@dataclass(frozen=True)
class Usage:
    """Processor time at one moment: the machine's and ours."""

    spent: float
    busy: float
    ours: float

    @classmethod
    def now(cls) -> "Usage":
        """Read it (proc(5), stat)."""
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        waiting = ticks[3] + ticks[4]
        hertz = os.sysconf("SC_CLK_TCK")
        return cls(sum(ticks) / hertz, (sum(ticks) - waiting) / hertz, sum(os.times()[:4]))

    def elsewhere(self) -> float:
        """Return which part of all that could be spent since then neither we nor ended children of ours spent."""
        now = Usage.now()
        return max(0.0, (now.busy - self.busy) - (now.ours - self.ours)) / max(0.01, now.spent - self.spent)


def speed_seconds() -> float:
    """Return how long a fixed piece of Python takes just now: a machine may be half as fast as an hour ago."""

    def loop() -> None:
        total = 0
        for number in range(_LOOPS):
            total += number

    return min(seconds(loop) for _ in range(5))


def pid_of(daemon: DaemonProcess) -> int:
    """Return the daemon's process id."""
    assert daemon.process is not None
    return daemon.process.pid


def resident_bytes(pid: int) -> int:
    """Return the memory that the process has in RAM (proc(5), VmRSS)."""
    return _memory_bytes(pid, "VmRSS:")


def _memory_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise LookupError(f"process {pid} has no memory of its own")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that the process used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_with_children(pid: int) -> float:
    """Return the processor time that the process used, and whoever it started, ended or not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds_with_children(int(child)) for child in children)


def peak_bytes(pid: int) -> int:
    """Return the most memory that the process ever had in RAM (proc(5), VmHWM)."""
    return _memory_bytes(pid, "VmHWM:")


@contextmanager
def two_cores() -> Iterator[int]:
    """Keep this process and those it starts on two cores; yield how many there are to use."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield len(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)
