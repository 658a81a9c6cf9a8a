"""What a save costs its caller while the daemon has nothing else to do, by the size of the file."""

import shutil
from collections.abc import Iterator

from bench.rig import Result, Rig, Times, Yardstick, pid_of, settle, write_file
from dropoff import Delivery, Run
from support.daemon import DaemonProcess

MIB, GIB = 1 << 20, 1 << 30
SIZES = (2 * MIB, 16 * MIB, 128 * MIB, GIB, 8 * GIB)
# So much must be free to write the largest file whole.
WHOLE_FREE_BYTES = 30 * GIB
ROUNDS, SAVES = 6, 100
WARM_UP = 20
PAUSES = 50


def run(rig: Rig) -> Iterator[Result]:
    """Save files of all sizes by turns, and copy the one of 1 GiB in between."""
    files = rig.place("files")
    whole = shutil.disk_usage(files).free >= WHOLE_FREE_BYTES
    paths = {size: write_file(files / str(size), size, sparse=size > GIB and not whole) for size in SIZES}
    saves = {size: Times() for size in SIZES}
    copies = Times()
    with rig.daemon(paused=True) as daemon:
        run = daemon.run()
        _save(run, str(paths[2 * MIB]), Times(), WARM_UP)
        for _ in range(ROUNDS):
            copies.add(lambda: shutil.copyfile(paths[GIB], files / "copy"))
            (files / "copy").unlink()
            for size in SIZES:
                settle(pid_of(daemon))
                _save(run, str(paths[size]), saves[size], SAVES)
        yield from _told(saves, copies, whole=whole)
        yield _after_pauses(daemon, run, str(paths[GIB]))


def _save(run: Run, path: str, times: Times, count: int) -> None:
    """Save again and again; each job is given up at once, so that links do not pile up."""
    kept: list[Delivery] = []
    for _ in range(count):
        times.add(lambda: kept.append(run.save_file(path)))
        kept.pop().cancel()


def _told(saves: dict[int, Times], copies: Times, *, whole: bool) -> Iterator[Result]:
    gib = saves[GIB]
    yield Result("save_file of 1 GiB, p50", gib.p50, "s", len(gib), most=0.0005)
    yield Result("save_file of 1 GiB, p99", gib.p99, "s", len(gib), most=0.003)
    yield Result(
        "save_file of 1 GiB, p50", gib.p50, "s", len(gib), Yardstick("shutil.copyfile", copies.p50), most=1 / 500
    )
    for size, times in saves.items():
        note = "" if size <= GIB or whole else "sparse file: too little disk is free for a whole one"
        yield Result(f"save_file of {size // MIB} MiB, p50", times.p50, "s", len(times), note=note)
    medians = sorted(times.p50 for times in saves.values())
    yield Result(
        "slowest size's p50", medians[-1], "s", len(medians), Yardstick("fastest size's p50", medians[0]), most=1.5
    )


def _after_pauses(daemon: DaemonProcess, run: Run, path: str) -> Result:
    """Save as training does: between two saves, caches and cores turn to other things."""
    times = Times()
    for _ in range(PAUSES):
        settle(pid_of(daemon))
        _save(run, path, times, 1)
    return Result("save_file of 1 GiB, each after a pause, p50", times.p50, "s", len(times))
