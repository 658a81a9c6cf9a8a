"""What campaigns against the daemon share: processes that save, and the oracle that holds the store against them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults import writer
from support import oracle
from support.daemon import DaemonProcess

# A writer that is started again counts on from here, so that no number is used twice.
_NUMBERS_PER_LIFE = 1_000_000


class Writer:
    """One process that saves, in a directory of its own for each of its lives."""

    def __init__(self, name: str, daemon: DaemonProcess, root: Path) -> None:
        self.name = name
        self.acknowledged: dict[str, int] = {}
        """Which save each job is; only what was read from the pipe counts."""
        self.saving: dict[int, float] = {}
        self.left: dict[int, float] = {}
        self._daemon = daemon
        self._root = root
        self._lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread()

    def start(self, saves: int = 0) -> None:
        """Begin another life."""
        first = self._lives * _NUMBERS_PER_LIFE
        directory = self._root / f"{self.name}-{self._lives}"
        directory.mkdir(parents=True)
        self._lives += 1
        self._process = subprocess.Popen(
            [sys.executable, writer.__file__, str(directory), self.name, str(first), str(saves and first + saves)],
            env=os.environ | self._daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break
            word, number, job, moment = line.decode().split()
            if word == "saving":
                self.saving[int(number)] = float(moment)
            elif word == "saved":
                self.acknowledged[job] = int(number)
            else:
                self.left[int(number)] = float(moment)

    @property
    def alive(self) -> bool:
        """Whether it still saves; it must, unless it was killed."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self.join()

    def join(self) -> int:
        """Wait for its end and return its exit code."""
        assert self._process is not None
        code = self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


def _held(daemon: DaemonProcess) -> list[dict[str, Any]]:
    listed = daemon.command("jobs", "--json", "--state", "held", "--limit", "100000").stdout
    found: list[dict[str, Any]] = json.loads(listed)
    return found


def check(daemon: DaemonProcess, writers: list[Writer]) -> Counter[str]:
    """Hold the store against what the writers saw acknowledged."""
    by_name = {one.name: one for one in writers}
    acknowledged = {job: (one.name, number) for one in writers for job, number in one.acknowledged.items()}
    found = oracle.records(daemon.store)
    held = {report["job"]: report for report in _held(daemon)}
    assert held == {}, [
        (report["reason"], acknowledged.get(job), _story(by_name, acknowledged.get(job)))
        for job, report in held.items()
    ]
    assert sorted(acknowledged.keys() - found.keys()) == []
    saves = Counter((record["metadata"]["writer"], record["metadata"]["number"]) for record in found.values())
    assert [save for save, count in saves.items() if count > 1] == []
    shapes: Counter[str] = Counter()
    for job, record in found.items():
        name, number = record["metadata"]["writer"], record["metadata"]["number"]
        assert acknowledged.get(job, (name, number)) == (name, number)
        assert number in by_name[name].saving
        stored = {oracle.name(entry): oracle.content(daemon.store, entry) for entry in record["entries"]}
        wanted = writer.expected(name, number)
        assert stored.keys() == wanted.keys(), (job, name, number)
        differing = [path for path in wanted if stored[path] != wanted[path]]
        assert differing == [], (job, name, number)
        shapes[writer.shape(name, number)] += 1
    check_order(daemon, writers)
    return shapes


def check_order(daemon: DaemonProcess, writers: list[Writer]) -> None:
    """Each writer's versions have numbers without gaps, in the order of its calls."""
    versions = oracle.manifests(daemon.store)
    for one in writers:
        mine = [
            (found["version"], found["metadata"]["number"]) for found in versions if found["artifact"] == one.name
        ]
        assert [version for version, _ in mine] == list(range(len(mine)))
        assert mine == sorted(mine, key=lambda pair: pair[1])


def _story(by_name: dict[str, Writer], save: tuple[str, int] | None) -> tuple[object, ...]:
    if save is None:
        return ()
    one = by_name[save[0]]
    return writer.shape(*save), one.saving.get(save[1]), one.left.get(save[1])


def check_nothing_is_left(daemon: DaemonProcess) -> None:
    """Once all is delivered and a daemon has swept, custody is empty and nothing was set aside."""
    assert daemon.stop() == 0
    # What killed writers added and never logged goes, too.
    daemon.environment["DROPOFF_UNLOGGED_KEEP_SECONDS"] = "0.001"
    daemon.start()
    while json.loads(daemon.command("status", "--json").stdout)["totals"]["staged"]["jobs"]:
        time.sleep(0.05)
    assert daemon.stop() == 0
    assert os.listdir(daemon.root / "state" / "payloads") == []
    assert [name for name in os.listdir(daemon.root / "state" / "inbox") if not name.startswith("unfinished-")] == []
    assert not (daemon.root / "state" / "quarantine").exists()
