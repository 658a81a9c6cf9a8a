"""What an artifact costs that did not change: a directory of a thousand files, logged again."""

import os
from collections.abc import Iterator

from bench.rig import Result, Rig, Times, Yardstick, seconds, write_file

FILES, FILE_BYTES = 1_000, 16 << 10
ROUNDS = 5


def run(rig: Rig) -> Iterator[Result]:
    """Log a directory as it is and with all of it new, by turns, each until it is delivered."""
    files = rig.place("files")
    paths = [write_file(files / f"{number:04}.bin", FILE_BYTES) for number in range(FILES)]
    unchanged, changed = Times(), Times()
    with rig.daemon() as daemon:
        run = daemon.run()
        for number in range(1 + ROUNDS):
            for path in paths:
                path.write_bytes(os.urandom(FILE_BYTES))
            new = seconds(lambda: run.log_artifact(files, "files", "dataset").wait())
            again = seconds(lambda: run.log_artifact(files, "files", "dataset").wait())
            if number:  # the first one warms up
                changed.note(new)
                unchanged.note(again)
    yield Result(
        "1,000 files logged again, unchanged", unchanged.p50, "s", ROUNDS,
        Yardstick("the same with all of them new", changed.p50), most=1.0,
    )  # fmt: skip
