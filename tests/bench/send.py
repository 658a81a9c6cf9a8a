"""What it costs to get large and small files into a bucket, beside others who take no digest of what they send.

For us all of it counts: the daemon with what it started, from the save to the last record. A saved file is two
objects, its content and its record; a directory is a pack and one record. The server's own work counts for nobody.
"""

import hashlib
import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import bucket, uploaders
from bench.rig import Result, Rig, Yardstick, cpu_seconds_with_children, peak_bytes, pid_of, settle
from bench.uploaders import Uploader
from dropoff import Run
from support.daemon import DaemonProcess
from support.servers.address import Address
from support.servers.process import UnavailableError
from support.servers.rgw import Rgw

ROUNDS, ROUNDS_TO_CEPH = 3, 2
# Less for the gateway: it keeps all of it in memory, and works for it on the cores of those that are measured.
LARGE_BYTES, LARGE_BYTES_TO_CEPH = 2 << 30, 256 << 20
MANY, MANY_BYTES = 64, 32 << 20
SMALL, SMALL_TO_CEPH, SMALL_BYTES = 10_000, 1_000, 16 << 10
FLUSH_SECONDS = 300.0

IN_FLIGHT = 64
PEAK_BYTES = 150_000_000
# So slow that each connection more brings more, until there are as many as may be.
PACE_BYTES = 8 << 20
CLIMB_SECONDS, LOOK_SECONDS = 60.0, 1.0
SENT_AGAIN = 4

OURS, DIRECTORY, DIGEST = "ours", "one directory", "SHA-256"
BOTO3, AWSCRT, PROGRAMS = "boto3", "boto3's awscrt", ("s5cmd", "rclone")

_PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Load:
    """Files of one size in a directory."""

    directory: Path
    count: int
    size: int

    @property
    def gibibytes(self) -> float:
        """How much all of them are."""
        return self.count * self.size / (1 << 30)

    @property
    def paths(self) -> list[Path]:
        """The files, in order."""
        return sorted(self.directory.iterdir())


# Sends a load below a prefix; returns the processor time and how long it took, in seconds.
Send = Callable[[Load, str], tuple[float, float]]


def run(rig: Rig) -> Iterator[Result]:
    """Send the same files to the same server by turns, each time to where nothing is yet."""
    peers = uploaders.installed(rig.directory / "peers")
    large, many = _load(rig, "large", 1, LARGE_BYTES), _load(rig, "many", MANY, MANY_BYTES)
    small = _load(rig, "small", SMALL, SMALL_BYTES)
    with bucket.sink(rig, "sink") as server, _senders(rig, "ours", server, peers) as senders:
        note = "we send a CRC-64/NVME with each part, s5cmd a SHA-256, awscrt a CRC-32, the others nothing"
        yield from _bytes("2 GiB in one file", large, senders, ROUNDS, note)
        yield from _bytes("2 GiB in 64 files", many, senders, ROUNDS, note)
        yield from _requests("10,000 files of 16 KiB", small, senders, ROUNDS)
    yield _peak(rig, next(large.directory.iterdir()))
    try:
        yield from _to_ceph(rig, peers)
    except UnavailableError as error:
        print(f"  nothing was sent to Ceph's gateway: {error}", flush=True)


def _to_ceph(rig: Rig, peers: Mapping[str, Uploader]) -> Iterator[Result]:
    gateway = Rgw()
    # It refuses the checksum that awscrt sends behind a body.
    able = {name: upload for name, upload in peers.items() if name != AWSCRT}
    try:
        with _senders(rig, "ours-to-ceph", gateway.address, able) as senders:
            large = _load(rig, "large-to-ceph", 1, LARGE_BYTES_TO_CEPH)
            note = "it verifies a SHA-256 of each part and nothing cheaper, so we take two digests"
            yield from _bytes("256 MiB to Ceph", large, senders, ROUNDS_TO_CEPH, note, digests=2)
            small = _load(rig, "small-to-ceph", SMALL_TO_CEPH, SMALL_BYTES)
            yield from _requests("1,000 files of 16 KiB to Ceph", small, senders, ROUNDS_TO_CEPH)
    finally:
        gateway.stop()


def _bytes(
    what: str, load: Load, senders: Mapping[str, Send], rounds: int, note: str, digests: int = 1
) -> Iterator[Result]:
    """Send large files and tell what their bytes cost, beside others and so many digests."""
    cpu, wall = _medians(load, {name: send for name, send in senders.items() if name != DIRECTORY}, rounds)
    cpu = {name: seconds_ / load.gibibytes for name, seconds_ in cpu.items()}
    what_cpu = f"{what}: processor time per GiB"
    boto3 = min({BOTO3, AWSCRT} & cpu.keys(), key=lambda name: cpu[name])
    also = f" and {digests} {DIGEST}"
    yield Result(
        what_cpu, cpu[OURS], "s", rounds, Yardstick(boto3 + also, cpu[boto3] + digests * cpu[DIGEST]), most=1.0,
        note=note,
    )  # fmt: skip
    for name in PROGRAMS:
        most = 0.5 if digests == 1 else None
        yield Result(what_cpu, cpu[OURS], "s", rounds, Yardstick(name, cpu[name]), most=most)
    for name in sorted(cpu.keys() - {OURS, *PROGRAMS}):
        yield Result(f"the same, {name}", cpu[name], "s", rounds)
    fastest = min(wall.keys() - {OURS, DIGEST}, key=lambda name: wall[name])
    yield Result(
        f"{what}: until all is there", wall[OURS], "s", rounds,
        Yardstick(fastest + also, wall[fastest] + digests * wall[DIGEST]), most=1.05,
        note=f"{fastest} alone: {wall[fastest]:.2f} s",
    )  # fmt: skip


def _requests(what: str, load: Load, senders: Mapping[str, Send], rounds: int) -> Iterator[Result]:
    """Send small files and tell what their requests cost."""
    cpu, wall = _medians(load, {name: send for name, send in senders.items() if name != DIGEST}, rounds)
    puts = {name: load.count * (2 if name == OURS else 1) for name in cpu}
    each = {name: cpu[name] / puts[name] for name in cpu}
    peers = each.keys() - {OURS, DIRECTORY}
    yield Result(
        f"{what}: processor time per PUT", each[OURS], "s", rounds, Yardstick("rclone", each["rclone"]), most=1.0,
        note=f"{1 / each[OURS]:,.0f} PUTs in a second of it; each file has two, its content and its record",
    )  # fmt: skip
    for name in sorted(peers - {"rclone"}):
        yield Result(f"the same, {name}", each[name], "s", rounds, note=f"{1 / each[name]:,.0f} in a second")
    best = min(peers, key=lambda name: each[name])
    yield Result(
        "the same per file, saved as one directory", each[DIRECTORY], "s", rounds, Yardstick(best, each[best]),
        most=1.0, note="a pack in parts and one record",
    )  # fmt: skip
    fastest = min(peers, key=lambda name: wall[name])
    for name in (OURS, DIRECTORY):
        yield Result(
            f"{what}: until all is there, {name}", wall[name], "s", rounds, Yardstick(fastest, wall[fastest])
        )


def _medians(load: Load, senders: Mapping[str, Send], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Send by turns; return for each name the processor time and the time that it took."""
    cpu: dict[str, list[float]] = {name: [] for name in senders}
    wall: dict[str, list[float]] = {name: [] for name in senders}
    for number in range(rounds):
        for place, (name, send) in enumerate(senders.items()):
            spent, took = send(load, f"{load.directory.name}-{number}-{place}")
            cpu[name].append(spent)
            wall[name].append(took)
    return _median_of_each(cpu), _median_of_each(wall)


def _median_of_each(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def _senders(rig: Rig, name: str, server: Address, peers: Mapping[str, Uploader]) -> Iterator[Mapping[str, Send]]:
    """Yield everybody who sends to a server, by name; we know it already."""
    with bucket.daemon(rig, name, server) as daemon:
        yield {
            OURS: partial(_ours, daemon, _save_files),
            DIRECTORY: partial(_ours, daemon, _save_directory),
            DIGEST: _digest,
            **{peer: partial(_peer, upload, server) for peer, upload in peers.items()},
        }


def _ours(daemon: DaemonProcess, save: Callable[[Run, Load], object], load: Load, prefix: str) -> tuple[float, float]:
    pid, run = pid_of(daemon), daemon.run(project=prefix)
    before, began = cpu_seconds_with_children(pid), time.perf_counter()
    save(run, load)
    settled = run.flush(FLUSH_SECONDS)
    took = time.perf_counter() - began
    assert settled.pending == 0
    assert not settled.troubled
    settle(pid)
    return cpu_seconds_with_children(pid) - before, took


def _save_files(run: Run, load: Load) -> None:
    for path in load.paths:
        run.save_file(path)


def _save_directory(run: Run, load: Load) -> None:
    run.save_directory(load.directory)


def _digest(load: Load, _: str) -> tuple[float, float]:
    """Take the digest of every file, as whoever wants one beside another's upload has to."""
    before, began = time.process_time(), time.perf_counter()
    for path in load.paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.process_time() - before, time.perf_counter() - began


def _peer(upload: Uploader, server: Address, load: Load, prefix: str) -> tuple[float, float]:
    return upload(server, load.directory, prefix)


def _peak(rig: Rig, path: Path) -> Result:
    """Send to a server that takes its time, until as many parts are on their way as may be, or for a minute."""
    with (
        bucket.sink(rig, "slow-sink", PACE_BYTES) as server,
        bucket.daemon(rig, "ours-in-flight", server, in_flight_max=IN_FLIGHT) as daemon,
    ):
        run, give_up = daemon.run(), time.monotonic() + CLIMB_SECONDS
        for number in range(SENT_AGAIN):
            run.save_file(path, name=f"{number}.bin")
        while _bodies_most(server) < IN_FLIGHT and time.monotonic() < give_up:
            time.sleep(LOOK_SECONDS)
        time.sleep(LOOK_SECONDS)
        count, peak = _bodies_most(server), peak_bytes(pid_of(daemon))
    return Result(f"the daemon's peak memory, up to {count} parts on their way", peak, "B", most=PEAK_BYTES)


def _bodies_most(server: Address) -> int:
    with urllib.request.urlopen(server.endpoint) as answer:
        return int(answer.read())


def _load(rig: Rig, name: str, count: int, size: int) -> Load:
    """Write files, each with bytes of its own, and leave them in memory."""
    directory = rig.place(name)
    for number in range(count):
        with (directory / f"{number:05}.bin").open("xb", buffering=0) as file:
            for _ in range(0, size, _PIECE_BYTES):
                file.write(os.urandom(min(size, _PIECE_BYTES)))
    os.sync()
    return Load(directory, count, size)
