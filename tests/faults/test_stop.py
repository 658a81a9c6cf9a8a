"""An orderly stop: within its bound, whatever goes on, and without a loss."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from faults import campaign, mounts
from faults.campaign import Writer
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

STOP_SECONDS = 3.0
# What starting to stop and the interpreter's end may take on a busy machine.
_BESIDES_SECONDS = 2.5


def _stops(daemon: DaemonProcess, number: signal.Signals = signal.SIGTERM) -> float:
    """Stop it and return how long that took."""
    assert daemon.process is not None
    began = time.monotonic()
    daemon.signal(number)
    try:
        code = daemon.process.wait(STOP_SECONDS * 5)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the daemon still runs {STOP_SECONDS * 5} s after it was asked to stop")
    took = time.monotonic() - began
    assert code == 0, "".join(daemon.log[-20:])
    assert daemon.stop() == 0
    return took


def test_stops_in_the_middle_of_load_lose_nothing(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Stopped again and again while three processes save: in time, with code 0, and every save arrives once."""
    seed = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
    print(f"replay: DROPOFF_TEST_SEED={seed}")
    chance = random.Random(seed)
    daemon = make_daemon(answer_deadline_seconds=0.5, stop_timeout_seconds=STOP_SECONDS).start()
    writers = [Writer(f"{seed}-{n}", daemon, tmp_path / "work") for n in range(3)]
    took = []
    try:
        for one in writers:
            one.start()
        for _ in range(5):
            time.sleep(chance.uniform(0.1, 0.6))
            took.append(_stops(daemon, chance.choice((signal.SIGTERM, signal.SIGINT))))
            daemon.start()
    finally:
        for one in writers:
            one.kill()
    assert max(took) < STOP_SECONDS + _BESIDES_SECONDS
    assert daemon.run("kills", "run").flush(60).pending == 0
    campaign.check(daemon, writers)
    campaign.check_nothing_is_left(daemon)


@pytest.mark.parametrize("copy_after", [0.01, 10], ids=["copied already", "on its lease"])
def test_leases_become_copies(make_daemon: MakeDaemon, tmp_path: Path, copy_after: float) -> None:
    """After a stop no writer waits, and what it writes is not what is delivered."""
    daemon = make_daemon(copy_after_seconds=copy_after, stop_timeout_seconds=STOP_SECONDS).start()
    daemon.command("pause")
    wanted, run = {}, daemon.run()
    for number in range(5):
        source = tmp_path / f"source-{number}"
        content = os.urandom(3 << 20)
        source.write_bytes(content)
        wanted[run.save_file(source).id] = content
    assert _stops(daemon) < STOP_SECONDS + _BESIDES_SECONDS
    began = time.monotonic()
    for number in range(5):
        (tmp_path / f"source-{number}").write_bytes(b"\xff" * (3 << 20))
    assert time.monotonic() - began < 1
    daemon.start()
    daemon.command("resume")
    assert run.flush(30).pending == 0
    assert {job: next(iter(files.values())) for job, files in oracle.contents(daemon.store).items()} == wanted


def test_a_large_digest_does_not_hold_up_a_stop(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A stop in the middle of reading a huge file is in time; the job goes on with the next daemon."""
    daemon = make_daemon(stop_timeout_seconds=STOP_SECONDS).start()
    source = tmp_path / "huge"
    with open(source, "wb") as file:
        file.truncate(16 << 30)
    saved = daemon.run().save_file(source)
    deadline = time.monotonic() + 20
    while saved.state != "uploading":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert _stops(daemon) < STOP_SECONDS + _BESIDES_SECONDS
    daemon.start()
    assert saved.state in {"queued", "uploading"}
    saved.cancel()
    assert daemon.stop() == 0


@mounts.needs_root
@pytest.mark.skipif(not shutil.which("bindfs"), reason="BINDFS IS MISSING: no store can be made to hang")
def test_a_store_that_hangs_does_not_hold_up_a_stop(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """With a store that answers no call, as a dead network mount does not, a stop is in time all the same."""
    for name in ("store", "behind"):
        (tmp_path / name).mkdir()
    with subprocess.Popen(["bindfs", "-f", str(tmp_path / "behind"), str(tmp_path / "store")]) as fuse:
        try:
            deadline = time.monotonic() + 10
            while not os.path.ismount(tmp_path / "store"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            daemon = make_daemon(stop_timeout_seconds=STOP_SECONDS).start()
            run = daemon.run()
            source = tmp_path / "source"
            source.write_bytes(b"content")
            run.save_file(source).wait(20)
            fuse.send_signal(signal.SIGSTOP)
            source.write_bytes(b"more content")
            saved = run.save_file(source)
            while saved.state != "uploading":
                assert time.monotonic() < deadline + 20
                time.sleep(0.01)
            hang = threading.Timer(STOP_SECONDS * 5 + 2, fuse.send_signal, [signal.SIGCONT])
            hang.start()
            try:
                assert _stops(daemon) < STOP_SECONDS + _BESIDES_SECONDS
            finally:
                hang.cancel()
                fuse.send_signal(signal.SIGCONT)
            daemon.start()
            assert saved.wait(20).size_bytes == 12
            assert daemon.stop() == 0
        finally:
            fuse.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "-l", str(tmp_path / "store")], check=True)


_OTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'


@mounts.needs_root
@pytest.mark.parametrize("size", [500 << 10, 3 << 20], ids=["medium", "large"])
def test_a_stop_before_a_reboot_leaves_nothing_in_doubt(make_daemon: MakeDaemon, tmp_path: Path, size: int) -> None:
    """After an orderly stop all custody is synced: the daemon of the next boot trusts and delivers it."""
    boot = tmp_path / "boot_id"
    boot.write_text("11111111-2222-3333-4444-555555555555\n", encoding="ascii")
    daemon = make_daemon(stop_timeout_seconds=STOP_SECONDS).start()
    daemon.command("pause")
    run, wanted = daemon.run(), {}
    for number in range(10):
        source = tmp_path / f"source-{number}"
        content = os.urandom(size)
        with open(source, "wb") as writer:  # a file still open for writing is copied before the answer, unsynced
            writer.write(content)
            writer.flush()
            wanted[run.save_file(source).id] = content
    assert _stops(daemon) < STOP_SECONDS + _BESIDES_SECONDS
    daemon.start(prefix=("unshare", "--mount", "sh", "-c", _OTHER_BOOT, str(boot)))
    daemon.command("resume")
    settled = run.flush(30)
    assert (settled.pending, [report.reason for report in settled.troubled]) == (0, [])
    assert {job: next(iter(files.values())) for job, files in oracle.contents(daemon.store).items()} == wanted
