"""Full disks and full quotas: refused in words, nothing acknowledged lost, and all goes on when there is space."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dropoff import DeliveryTimeoutError, DropoffError, JobState, Run, SpoolFullError
from dropoff.content import SMALL_MAX_BYTES
from dropoff.delivery import Delivery
from faults import mounts
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

SIZES = [pytest.param(50_000, id="small"), pytest.param(500 << 10, id="medium"), pytest.param(3 << 20, id="large")]


def _source(directory: Path, size: int) -> Path:
    source = directory / "source"
    source.write_bytes(os.urandom(size))
    return source


def _lives(daemon: DaemonProcess, seconds: float) -> None:
    assert daemon.process is not None
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(seconds)


@pytest.fixture
def small_spool(tmp_path: Path) -> Iterator[Path]:
    """Return a state directory on a file system of 128 MiB."""
    with mounts.tmpfs(tmp_path / "state", "size=128m,nr_inodes=200") as path:
        yield path


@mounts.needs_root
@pytest.mark.parametrize("size", SIZES)
def test_a_save_on_a_full_disk_is_refused_and_the_next_one_taken(
    make_daemon: MakeDaemon, tmp_path: Path, small_spool: Path, size: int
) -> None:
    """With the spool's disk full a save raises SpoolFullError; with space again the same daemon takes it."""
    daemon = make_daemon(link_dir=tmp_path / "links").start()
    run, source = daemon.run(), _source(tmp_path, size)
    kept = run.save_file(source)
    kept.wait(20)  # its end frees space
    filler = mounts.fill(small_spool)
    with pytest.raises(SpoolFullError):
        run.save_file(source)
    filler.unlink()
    again = run.save_file(source)
    assert (kept.wait(20).size_bytes, again.wait(20).size_bytes) == (size, size)
    assert os.listdir(small_spool / "payloads") == []


@mounts.needs_root
@pytest.mark.parametrize("size", [pytest.param(500 << 10, id="medium"), pytest.param(None, id="directory")])
def test_a_disk_without_inodes_is_full(
    make_daemon: MakeDaemon, tmp_path: Path, small_spool: Path, size: int | None
) -> None:
    """Free bytes but no free inode is a full disk as well: SpoolFullError, and nothing half made."""
    daemon = make_daemon(link_dir=tmp_path / "links").start()
    run, source = daemon.run(), _source(tmp_path, size or 1000)
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").write_bytes(b"a")

    def save() -> Delivery:
        return run.save_file(source) if size else run.save_directory(root)

    save().wait(20)
    fillers: list[Path] = []
    while True:
        try:
            fillers.append(small_spool / f"filler-{len(fillers)}")
            fillers[-1].touch()
        except OSError:
            break
    with pytest.raises(SpoolFullError):
        save()
    for filler in fillers[:-1]:
        filler.unlink()
    save().wait(20)
    assert os.listdir(small_spool / "payloads") == []


@pytest.mark.timeout(300)
@mounts.needs_root
def test_a_database_that_cannot_grow_refuses_and_recovers(
    make_daemon: MakeDaemon, tmp_path: Path, small_spool: Path
) -> None:
    """When rows find no space saves are refused, deliveries wait, the daemon lives, and all is delivered later."""
    daemon = make_daemon(retry_first_seconds=0.1).start()
    filler = small_spool / "filler"
    filler.write_bytes(bytes(48 << 20))  # what the log holds must fit beside it again
    daemon.command("pause")
    run = daemon.run()
    wanted: dict[str, bytes] = {}
    _save_until_refused(run, tmp_path, wanted)
    rest = mounts.fill(small_spool / "payloads")
    daemon.command("resume", check=False)
    _lives(daemon, 2)
    rest.unlink()
    filler.unlink()
    daemon.command("resume")
    daemon.command("retry")
    assert daemon.process is not None
    assert daemon.process.poll() is None, "".join(daemon.log[-30:])
    settled = run.flush(200)
    assert (settled.pending, settled.troubled) == (0, ())
    assert {job: files[b"source"] for job, files in oracle.contents(daemon.store).items()} == wanted


@mounts.needs_root
def test_a_start_on_a_full_disk_keeps_what_was_acknowledged(
    make_daemon: MakeDaemon, tmp_path: Path, small_spool: Path
) -> None:
    """Saves that found no space for rows, before a kill and at the start after it, are delivered all the same."""
    daemon, sources = make_daemon().start(), small_spool / "sources"
    sources.mkdir()
    large = os.urandom(SMALL_MAX_BYTES + 1)
    for name in ("first", "large"):
        (sources / name).write_bytes(large)
    first = daemon.run().save_file(sources / "first")
    daemon.run().flush(20)
    daemon.command("pause")
    assert daemon.stop() == 0
    filler = mounts.fill(small_spool, but=len(large) + 300_000)
    daemon.start()  # without blocks for its log
    run = daemon.run()
    again = run.save_file(sources / "first")  # the first of a connection takes another way
    wanted = {first.id: large, again.id: large, run.save_file(sources / "large").id: large}
    for _ in range(30):
        source = _source(tmp_path, 60_000)
        with contextlib.suppress(SpoolFullError):
            wanted[run.save_file(source).id] = source.read_bytes()
    (sources / "large").unlink()
    daemon.kill()
    rest = mounts.fill(sources)
    daemon.start()
    rest.unlink()
    filler.unlink()
    daemon.command("resume")
    settled = run.flush(60)
    assert (settled.pending, settled.troubled) == (0, ())
    stored = oracle.contents(daemon.store)
    assert {job: content for job, files in stored.items() for content in files.values()} == wanted


def _save_until_refused(run: Run, directory: Path, wanted: dict[str, bytes]) -> None:
    for _ in range(2000):
        source = _source(directory, 60_000)
        try:
            wanted[run.save_file(source).id] = source.read_bytes()
        except SpoolFullError:
            return
    pytest.fail("the spool never got full")


@mounts.needs_root
@pytest.mark.parametrize("size", SIZES)
def test_a_full_inbox_refuses_in_words(make_daemon: MakeDaemon, tmp_path: Path, small_spool: Path, size: int) -> None:
    """Without a daemon and without space a save raises an error of ours, and leaves nothing behind."""
    daemon = make_daemon()
    run, source = daemon.run(), _source(tmp_path, size)
    kept = run.save_file(source)
    filler = mounts.fill(small_spool)
    with pytest.raises(DropoffError):
        run.save_file(source)
    assert os.listdir(small_spool / "inbox") == [kept.id]
    filler.unlink()
    again = run.save_file(source)
    daemon.start()
    assert (kept.wait(20).size_bytes, again.wait(20).size_bytes) == (size, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_full_quota_refuses_at_once(make_daemon: MakeDaemon, tmp_path: Path, size: int) -> None:
    """With when_full = "refuse" a save over the quota raises SpoolFullError at once, and takes no room itself."""
    daemon = make_daemon(spool_quota_bytes=size + size // 2, when_full="refuse").start()
    daemon.command("pause")
    run, source = daemon.run(), _source(tmp_path, size)
    kept = run.save_file(source)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(SpoolFullError, match="custody"):
            run.save_file(source)
        assert time.monotonic() - began < 1
    daemon.command("resume")
    kept.wait(20)
    assert run.save_file(source).wait(20).size_bytes == size


@pytest.mark.parametrize("size", SIZES)
def test_a_full_quota_lets_wait(make_daemon: MakeDaemon, tmp_path: Path, size: int) -> None:
    """With when_full = "wait" a save over the quota returns when there is room, with the content of its return."""
    daemon = make_daemon(
        spool_quota_bytes=size + size // 2,
        when_full="wait",
        when_full_timeout_seconds=30,
        answer_deadline_seconds=0.5,
    ).start()
    daemon.command("pause")
    run, source = daemon.run(), _source(tmp_path, size)
    kept = run.save_file(source)
    saved: list[Delivery] = []
    caller = threading.Thread(target=lambda: saved.append(daemon.run().save_file(source)))
    caller.start()
    caller.join(1)
    assert (caller.is_alive(), saved) == (True, [])
    daemon.command("resume")
    caller.join(20)
    assert [kept.wait(20).size_bytes, *(one.wait(20).size_bytes for one in saved)] == [size, size]


def test_waiting_for_room_ends(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """With when_full = "wait" and no room in time, the save is refused after its timeout."""
    daemon = make_daemon(spool_quota_bytes=1000, when_full="wait", when_full_timeout_seconds=1).start()
    began = time.monotonic()
    with pytest.raises(SpoolFullError):
        daemon.run().save_file(_source(tmp_path, 2000))
    assert 0.9 < time.monotonic() - began < 5


def test_deposits_that_do_not_fit_are_still_waited_for(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """What lies in the inbox for want of quota is pending: neither flush nor wait may pass it over."""
    daemon = make_daemon(spool_quota_bytes=1000)
    run = daemon.run()
    saved = run.save_file(_source(tmp_path, 2000))
    daemon.start()
    assert run.flush(1).pending == 1
    with pytest.raises(DeliveryTimeoutError):
        saved.wait(1)
    assert daemon.stop() == 0
    make_daemon().start()
    assert saved.wait(20).size_bytes == 2000


@mounts.needs_root
def test_a_full_store_lets_jobs_wait(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A store without space makes jobs wait, with the reason; with space again they are delivered by themselves."""
    with mounts.tmpfs(tmp_path / "store", "size=3m") as store:
        daemon = make_daemon(retry_first_seconds=0.2, retry_most_seconds=1).start()
        run = daemon.run()
        wanted = {}
        for _ in range(4):
            source = _source(tmp_path, 2 << 20)
            wanted[run.save_file(source).id] = source.read_bytes()
        deadline = time.monotonic() + 20
        while not (waiting := _waiting(daemon)):
            assert time.monotonic() < deadline
        assert "No space left" in waiting
        mounts.remount(store, "size=64m")
        settled = run.flush(30)
        assert (settled.pending, settled.delivered, settled.troubled) == (0, 4, ())
        assert {job: files[b"source"] for job, files in oracle.contents(store).items()} == wanted


def _waiting(daemon: DaemonProcess) -> str:
    return daemon.command("jobs", "--state", JobState.WAITING, "--json").stdout.strip("[]\n ")
