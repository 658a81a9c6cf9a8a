"""Power cuts on real file systems: what was acknowledged before the cut is there after it, or the job says that not.

The file system with the daemon's state, the store and the files that are saved is shut down in the middle of
everything (FS_IOC_SHUTDOWN without a flush of the journal): what was not on its device at that moment is gone.
`DROPOFF_TEST_CUTS` sets how often, `DROPOFF_TEST_SEED` replays what was saved and when the power went.
"""

import contextlib
import os
import random
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import dropoff
from dropoff.ids import JobId
from dropoff.messages import JobState
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon
from support.filesystems import FileSystem

CUTS = int(os.environ.get("DROPOFF_TEST_CUTS", "6"))
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
KIB, MIB = 1 << 10, 1 << 20
SAVERS = 2
PATIENCE_SECONDS = 60.0


class Saver(threading.Thread):
    """Saves one file after another under the same name, and remembers each save that returned."""

    def __init__(self, run: dropoff.Run, path: Path, seed: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, bytes] = {}
        self.trouble: Exception | None = None
        """What ended it before its time."""
        self._run = run
        self._path = path
        self._chance = random.Random(seed)
        self._ended = threading.Event()

    def run(self) -> None:
        """Save until told to end; the daemon, stopped for the cut, ends the last call with an error."""
        while not self._ended.is_set():
            try:
                path, content = self._chance.choice((self._renewed, self._renewed, self._rewritten))()
                delivery = self._run.save_file(path)
            except (dropoff.DropoffError, OSError) as error:
                if not self._ended.is_set():
                    self.trouble = error
                return
            self.acknowledged[delivery.id] = content

    def _renewed(self) -> tuple[Path, bytes]:
        most = self._chance.choice((64 * KIB, 64 * KIB, MIB, 3 * MIB))
        content = self._chance.randbytes(self._chance.randint(most // 4, most))
        self._path.unlink(missing_ok=True)
        self._path.write_bytes(content)
        return self._path, content

    def _rewritten(self) -> tuple[Path, bytes]:
        """Write over blocks that the file has already: a cut may leave its new size and times with its old bytes."""
        path = self._path.with_suffix(".log")
        if not path.exists():
            with path.open("wb") as file:
                file.write(bytes(2 * MIB))
                os.fsync(file.fileno())
        content = self._chance.randbytes(2 * MIB)
        with path.open("r+b") as file:
            file.write(content)
        return path, content

    def end(self) -> None:
        """Let no further save be counted."""
        self._ended.set()


def another_boot(home: Path) -> tuple[str, ...]:
    """Return what to run a program with, so that it sees a machine that was started anew."""
    boot = home / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    script = f'mount --bind {shlex.quote(str(boot))} /proc/sys/kernel/random/boot_id && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")


def cut(file_system: FileSystem, daemon: DaemonProcess, run: dropoff.Run, chance: random.Random) -> dict[str, bytes]:
    """Save for a moment, cut the power, restore it, and return what was acknowledged before the cut."""
    savers = [Saver(run, file_system.path / f"saver-{n}.pt", chance.randbytes(8).hex()) for n in range(SAVERS)]
    for saver in savers:
        saver.start()
    time.sleep(chance.uniform(0.05, 0.6))  # not to wait for anything: to cut at any moment
    # The daemon stops first, so that what it answers after the cut cannot be taken for an acknowledgement.
    for saver in savers:
        saver.end()
    troubles = [saver.trouble for saver in savers if saver.trouble]
    if troubles:
        print("".join(daemon.log))
    assert troubles == []
    daemon.signal(signal.SIGSTOP)
    acknowledged = {job: content for saver in savers for job, content in dict(saver.acknowledged).items()}
    guards = [int(path.name.removeprefix("guard-")) for path in (daemon.root / "state").glob("guard-*")]
    file_system.shut_down()
    daemon.kill()
    for guard in guards:
        with contextlib.suppress(ProcessLookupError):
            os.kill(guard, signal.SIGKILL)
    for saver in savers:
        saver.join(PATIENCE_SECONDS)
        assert not saver.is_alive()
    file_system.restore_power()
    return acknowledged


@pytest.fixture(params=["ext4", "xfs"])
def cuttable(request: pytest.FixtureRequest, mount_file_system: Callable[[str], FileSystem]) -> FileSystem:
    """Return a mounted file system that can be shut down."""
    file_system = mount_file_system(request.param)
    file_system.clear()
    return file_system


@pytest.mark.timeout(60 + 10 * CUTS)
def test_what_was_acknowledged_survives_a_power_cut(
    cuttable: FileSystem, make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """After a cut every small save is delivered as it was, every large one too or it is held; nothing is wrong."""
    print(f"replay: DROPOFF_TEST_CUTS={CUTS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    counts = {"acknowledged": 0, "large": 0, "held": 0}
    for _ in range(CUTS):
        cuttable.clear()
        daemon = make_daemon(
            cuttable.path, on_unavailable="error", answer_deadline_seconds=30,
            copy_after_seconds=chance.choice((0, 0.1, 10)),
        )  # fmt: skip
        daemon.start()
        acknowledged = cut(cuttable, daemon, daemon.run(), chance)
        daemon.start(prefix=another_boot(tmp_path))
        settled = daemon.run().flush(PATIENCE_SECONDS)
        assert settled.pending == 0
        found = oracle.contents(daemon.store)
        reports = {
            job: dropoff.Delivery(daemon.settings, JobId(job)).report() for job in acknowledged.keys() - found.keys()
        }
        held = {job for job, report in reports.items() if report and report.state is JobState.HELD}
        lost = {
            job: report and (report.capture, report.state, report.reason)
            for job, report in reports.items()
            if job not in held or len(acknowledged[job]) <= MIB
        }
        assert lost == {}
        wrong = [job for job, content in acknowledged.items() if job in found and content not in found[job].values()]
        assert wrong == []
        counts["acknowledged"] += len(acknowledged)
        counts["large"] += sum(len(content) > MIB for content in acknowledged.values())
        counts["held"] += len(held)
        assert daemon.stop() == 0
    print(f"{CUTS} cuts on {cuttable.kind}: {counts}")
    assert counts["acknowledged"] > 0
