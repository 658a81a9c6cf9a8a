"""Garbage is collected while deliveries count on it: nothing that is named is ever missing."""

import os
import random
import threading
import time
from pathlib import Path

import anyio
import pytest

from dropoff.questions import Find, Subject
from dropoffd.auditing import Auditor
from dropoffd.catalogue.inventory import Scope
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.index.index import Indexes
from dropoffd.removing import Removal
from dropoffd.stores.directory.store import DirectoryStore
from support.daemon import DaemonProcess, MakeDaemon

pytestmark = pytest.mark.anyio

CONTENTS, AT_ONCE = 200, 10
# Far more than a delivery takes from storing an object to naming it, on any machine. What was stored before is aged.
GRACE_SECONDS = 60.0
RUNS = ("run-0", "run-1")
REMOVED_LEAST = int(os.environ.get("DROPOFF_TEST_ROUNDS", "0")) or 20


class Writer(threading.Thread):
    """Saves and logs the same contents again and again, in no order."""

    def __init__(self, daemon: DaemonProcess, directory: Path, name: str) -> None:
        super().__init__()
        self._run = daemon.run(name=name)
        self._paths = [directory / f"{number}.bin" for number in range(CONTENTS)]
        self._chance = random.Random(name)
        self._over = threading.Event()
        self.saved = 0

    def run(self) -> None:
        """Save until told to stop."""
        while not self._over.is_set():
            for path in self._chance.choices(self._paths, k=AT_ONCE):
                self._run.save_file(path)
            self._run.log_artifact(path, f"{self._run.name}-{path.stem}", "dataset")
            assert not self._run.flush(60).pending
            self.saved += AT_ONCE

    def save_all(self) -> None:
        """Save every content once."""
        self._run.save_all(self._paths)
        assert not self._run.flush(60).pending

    def end(self) -> None:
        """Stop it."""
        self._over.set()
        self.join()


async def test_nothing_that_is_named_is_ever_missing(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Two hosts save what a third removes and collects: every record and version that stands is whole, always."""
    store = DirectoryStore(str(tmp_path / "store"))
    for number in range(CONTENTS):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number * 1000)
    writers = [
        Writer(make_daemon(tmp_path / name / "host", store=store.url).start(), tmp_path, name) for name in RUNS
    ]
    indexes = Indexes(str(tmp_path / "cache"))
    writers[0].save_all()
    await _remove_all(store, indexes)
    age(tmp_path / "store")
    for writer in writers:
        writer.start()
    removed = 0
    try:
        with anyio.fail_after(100):
            while removed < REMOVED_LEAST:
                await _remove_all(store, indexes)
                removed += (await Collector(store, "project", GRACE_SECONDS, SystemClock()).run(apply=True)).removed
                found = await Auditor(store, read_data=False).run(Scope(project="project"))
                assert found.damage == ()
    finally:
        for writer in writers:
            writer.end()
    assert min(writer.saved for writer in writers) > 0
    found = await Auditor(store, read_data=True).run(Scope(project="project"))
    assert (found.damage, found.looked_at > 0) == ((), True)


def age(root: Path) -> None:
    """Let all that is there have been stored long before the grace."""
    moment = time.time() - 100 * GRACE_SECONDS
    for path in root.rglob("*"):
        os.utime(path, (moment, moment))


async def _remove_all(store: DirectoryStore, indexes: Indexes) -> None:
    removal = Removal(store, "project", SystemClock())
    for name in RUNS:
        await removal.add_run(name)
    for version in (await indexes.find(store, Find(store=store.url, subject=Subject.VERSION))).versions:
        await removal.add_version(version, "test")
    await removal.run(apply=True)
