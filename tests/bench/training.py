"""How much slower a numpy training loop on all cores runs while the daemon delivers with default settings.

To a bucket at the end of a line of a gigabit a second, with the server's work on the same cores; to a directory on
the same disk, which is a copy; and beside plain copying.
"""

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench import bucket
from bench.rig import Result, Rig, two_cores, write_file
from dropoff import Run

FILES, FILE_BYTES = 8, 128 << 20
ROUNDS, ALONE_SECONDS = 3, 4.0
# Of each connection; by default there are up to 16, so all of it is 128 MB a second.
LINE_BYTES = 8_000_000
LOST_PERCENT = 3.0

_SAMPLES, _INPUTS, _HIDDEN = 512, 256, 512


class Training:
    """Steps of gradient descent on a network of two layers."""

    def __init__(self) -> None:
        chance = np.random.default_rng(1)
        self._inputs = chance.standard_normal((_SAMPLES, _INPUTS), dtype=np.float32)
        self._targets = chance.standard_normal((_SAMPLES, 1), dtype=np.float32)
        self._first = chance.standard_normal((_INPUTS, _HIDDEN), dtype=np.float32) / 16
        self._second = chance.standard_normal((_HIDDEN, 1), dtype=np.float32) / 22

    def step(self) -> None:
        """Take one step."""
        hidden = np.maximum(self._inputs @ self._first, 0)
        error = (hidden @ self._second - self._targets) / _SAMPLES
        first = self._inputs.T @ ((error @ self._second.T) * (hidden > 0))
        self._second -= 0.01 * (hidden.T @ error)
        self._first -= 0.01 * first

    def steps_a_second(self, beside: Callable[[], object]) -> float:
        """Train for as long as `beside` runs in a thread, and return the speed."""
        thread = threading.Thread(target=beside)
        steps, began = 0, time.perf_counter()
        thread.start()
        while thread.is_alive():
            self.step()
            steps += 1
        return steps / (time.perf_counter() - began)


def run(rig: Rig) -> Iterator[Result]:
    """Count a loop's steps in a second: undisturbed, and beside each of the others by turns."""
    files, copies = rig.place("files"), rig.place("copies")
    paths = [write_file(files / str(number), FILE_BYTES) for number in range(FILES)]
    training = Training()
    with (
        two_cores(),
        rig.daemon("directory") as near,
        bucket.sink(rig, "sink", LINE_BYTES) as server,
        bucket.daemon(rig, "bucket", server) as far,
    ):
        beside: dict[str, Callable[[str], object]] = {
            "nothing": lambda _: time.sleep(ALONE_SECONDS),
            "deliveries to a bucket at a gigabit a second": lambda name: _deliver(far.run(name=name), paths),
            "deliveries to a directory": lambda name: _deliver(near.run(name=name), paths),
            "shutil.copyfile in a thread": lambda _: [shutil.copyfile(path, copies / path.name) for path in paths],
        }
        rates: dict[str, list[float]] = {what: [] for what in beside}
        for number in range(1 + ROUNDS):
            for what, work in beside.items():
                rate = training.steps_a_second(lambda work=work, number=number: work(f"{number}"))  # type: ignore[misc]  # bound now
                rates[what] += [rate] if number else []  # the first warms up
            shutil.rmtree(near.store)
    yield from _told(rates)


def _deliver(run: Run, paths: list[Path]) -> None:
    run.save_all(paths)
    run.flush()


def _told(rates: dict[str, list[float]]) -> Iterator[Result]:
    alone = rates.pop("nothing")
    undisturbed = statistics.median(alone)
    note = f"undisturbed runs differ by {100 * (max(alone) / min(alone) - 1):.1f} %"
    for what, some in rates.items():
        lost = 100 * (1 - statistics.median(some) / undisturbed)
        most = LOST_PERCENT if "bucket" in what else None
        yield Result(f"speed lost to {what}", lost, "%", ROUNDS, most=most, note=note)
