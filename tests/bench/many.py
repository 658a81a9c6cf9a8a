"""What a thousand small files cost, one by one and as a directory."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.rig import Result, Rig, Times, Yardstick, seconds, write_file

FILES, FILE_BYTES = 1_000, 16 << 10
ROUNDS = 5


def run(rig: Rig) -> Iterator[Result]:
    """Save and do what it is measured by, by turns; between two rounds all is delivered."""
    files = rig.place("files")
    paths = [str(write_file(files / f"{number:04}.bin", FILE_BYTES)) for number in range(FILES)]
    calls, commits, wide_commits, directories, copies = Times(), Times(), Times(), Times(), Times()
    with rig.daemon() as daemon:
        for number in range(1 + ROUNDS):
            run = daemon.run(name=str(number))
            call = seconds(lambda run=run: [run.save_file(path) for path in paths])  # type: ignore[misc]
            run.flush()
            commit = _commit_rows(rig.directory / "rows.db", b"x" * 100)
            wide = _commit_rows(rig.directory / "rows.db", os.urandom(FILE_BYTES))
            directory = seconds(lambda run=run: run.save_directory(files))  # type: ignore[misc]
            run.flush()
            copy = seconds(lambda: shutil.copytree(files, rig.directory / "copy"))
            shutil.rmtree(rig.directory / "copy")
            if number:  # the first one warms up
                calls.note(call)
                commits.note(commit)
                wide_commits.note(wide)
                directories.note(directory)
                copies.note(copy)
    yield Result(
        "1,000 calls of save_file, 16 KiB each", calls.p50, "s", ROUNDS,
        Yardstick("1,000 SQLite commits of a small row", commits.p50), most=3.0,
    )  # fmt: skip
    yield Result(
        "the same", calls.p50, "s", ROUNDS,
        Yardstick("1,000 SQLite commits of a row of 16 KiB", wide_commits.p50),
    )  # fmt: skip
    yield Result(
        "one save_directory of them", directories.p50, "s", ROUNDS,
        Yardstick("shutil.copytree", copies.p50), most=1.0,
    )  # fmt: skip


def _commit_rows(path: Path, value: bytes) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (row INTEGER PRIMARY KEY, value BLOB)")
        duration = seconds(
            lambda: [connection.execute("INSERT INTO rows (value) VALUES (?)", (value,)) for _ in range(FILES)]
        )
    path.unlink()
    return duration
