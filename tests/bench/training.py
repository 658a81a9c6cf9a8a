"""How much slower training runs while the daemon delivers; only told, since the daemon does not yet hold back."""

import hashlib
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from bench.rig import Result, Rig, two_cores, write_file

FILES, FILE_BYTES = 16, 128 << 20
ROUNDS, ALONE_SECONDS = 3, 4.0
# About half a millisecond of work a step, half of it in the interpreter.
_BATCH, _STEP_ADDITIONS = bytes(512 << 10), 12_000


def run(rig: Rig) -> Iterator[Result]:
    """Count a loop's steps in a second: undisturbed, beside deliveries, and beside plain copying."""
    files, copies = rig.place("files"), rig.place("copies")
    paths = [write_file(files / str(number), FILE_BYTES) for number in range(FILES)]
    alone, delivering, copying = list[float](), list[float](), list[float]()
    with two_cores(), rig.daemon() as daemon:
        for number in range(1 + ROUNDS):
            run = daemon.run(name=str(number))
            alone.append(_steps_a_second(lambda: time.sleep(ALONE_SECONDS)))
            run.save_all(paths)
            delivering.append(_steps_a_second(run.flush))
            shutil.rmtree(daemon.store)
            copying.append(_steps_a_second(lambda: [shutil.copyfile(path, copies / path.name) for path in paths]))
            if number == 0:  # warms up
                alone, delivering, copying = [], [], []
    undisturbed = statistics.median(alone)
    note = f"{FILES * FILE_BYTES / 1e9:.1f} GB of content; undisturbed runs differ by "
    note += f"{100 * (max(alone) / min(alone) - 1):.1f} %"
    for what, rates in (("deliveries", delivering), ("shutil.copyfile in a thread", copying)):
        yield Result(
            f"speed lost to {what}", 100 * (1 - statistics.median(rates) / undisturbed), "%", ROUNDS, note=note
        )


def _steps_a_second(beside: Callable[[], object]) -> float:
    """Run the loop for as long as `beside` runs in a thread, and return its speed."""
    thread = threading.Thread(target=beside)
    steps, began = 0, time.perf_counter()
    thread.start()
    while thread.is_alive():
        _step()
        steps += 1
    return steps / (time.perf_counter() - began)


def _step() -> None:
    hashlib.sha256(_BATCH).digest()
    sum(range(_STEP_ADDITIONS))
