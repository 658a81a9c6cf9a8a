"""Kill the daemon at one exact system call of a job's life, and see what the next daemon makes of it."""

import itertools
import os
import random
import shutil
import time
from pathlib import Path

import pytest

import dropoff
from dropoff.content import PAYLOADS, payload_name
from dropoff.ids import new_job_id
from dropoff.inbox import deposits
from faults import campaign
from faults.tracing import injected, needs_strace, traced
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

pytestmark = needs_strace

_CALLS = (
    "link", "linkat", "unlink", "unlinkat", "rename", "rmdir", "mkdir", "fdatasync", "fsync", "pwrite64", "pwritev",
    "write", "sendfile", "ftruncate", "fsetxattr", "sendmsg", "recvmsg", "sendto",
)  # fmt: skip
_SHAPES = ("inline", "copied", "linked", "directory", "deposit", "artifact")
_CALLS_MOST = 40
_POINTS = list(itertools.product(_SHAPES, _CALLS, (1, 2, 3, 5)))
# Where content was once lost or changed, and always the same others, spread over all.
_LEARNT = (
    [("linked", "fsync", 2), ("linked", "sendmsg", 2)]
    + [("artifact", call, number) for call in ("link", "rename", "fdatasync") for number in (1, 2, 3)]
    + [(shape, "pwritev", 1) for shape in ("inline", "linked")]
)
_SAMPLE = _LEARNT + random.Random("crash points").sample(_POINTS, 12)
if os.environ.get("DROPOFF_TEST_ALL"):
    _SAMPLE = list(itertools.product(_SHAPES, _CALLS, range(1, _CALLS_MOST)))


def _save(
    shape: str, daemon: DaemonProcess, run: dropoff.Run, directory: Path
) -> tuple[dropoff.Delivery, dict[bytes, bytes]]:
    """Save something of that shape, spoil it, and return what must be stored."""
    sizes = {"inline": 1000, "copied": 500 << 10, "linked": 3 << 20, "deposit": 300 << 10}
    if shape not in {"directory", "artifact"}:
        source = directory / "file"
        content = os.urandom(sizes[shape])
        source.write_bytes(content)
        delivery = run.save_file(source)
        with open(source, "r+b") as file:
            file.write(b"\xff" * len(content))
        return delivery, {b"file": content}
    root = directory / "results"
    files = {b"results/a": os.urandom(1000), b"results/b/c": os.urandom(2 << 20), b"results/b/d": os.urandom(70_000)}
    for name, content in files.items():
        path = directory / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if shape == "artifact":
        artifact = dropoff.Artifact("results", "t", settings=daemon.settings)
        artifact.add_dir(root, "results")
        with artifact.new_file("new") as file:
            file.write("new")
        delivery, files[b"new"] = run.log_artifact(artifact, aliases=["best"]), b"new"
    else:
        delivery = run.save_directory(root)
    shutil.rmtree(root)
    return delivery, files


@pytest.mark.parametrize(("shape", "call", "number"), _SAMPLE)
def test_a_kill_at_any_call_leaves_the_job_whole(
    make_daemon: MakeDaemon, tmp_path: Path, shape: str, call: str, number: int
) -> None:
    """Killed before the n-th call of that kind, the job is delivered once, right, and nothing is left behind."""
    daemon = make_daemon(copy_after_seconds=0.2 if number % 2 else 10).start()
    run = daemon.run(offline=shape == "deposit")
    # The first save of a connection, and of a run, takes another way than all others.
    (tmp_path / "first").write_bytes(b"first")
    first = run.save_file(tmp_path / "first")
    assert run.flush(30).pending == 0
    with injected(daemon, f"{call}:signal=SIGKILL:when={number}"):
        delivery, wanted = _save(shape, daemon, run, tmp_path)
        while daemon.process and daemon.process.poll() is None and run.flush(0.2).pending:
            pass
    if daemon.process and daemon.process.poll() is not None:
        daemon.kill()
        daemon.start()
    settled = run.flush(30)
    assert (settled.pending, [report.reason for report in settled.troubled]) == (0, [])
    assert oracle.contents(daemon.store) == {first.id: {b"first": b"first"}, delivery.id: wanted}
    campaign.check_nothing_is_left(daemon)


def test_a_deposit_survives_the_sweep_of_what_a_killed_daemon_began(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A deposit that was being taken in when its daemon was killed keeps its content while leftovers are swept."""
    daemon = make_daemon().start()
    daemon.command("pause")
    assert daemon.stop() == 0
    payloads = daemon.root / "state" / PAYLOADS
    for _ in range(30):
        (payloads / payload_name(new_job_id(), 1)).write_bytes(b"begun by a daemon that was killed")
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300 << 10))
    while True:
        delivery = daemon.run(offline=True).save_file(source)
        begun = payload_name(delivery.id, 1)
        (payloads / begun).write_bytes(b"begun by a daemon that was killed")
        if os.listdir(payloads).index(begun) > 10:
            break
        (payloads / begun).unlink()
    left = set(os.listdir(payloads)) - {begun}
    # The sweep is slow, as it is with large files, and comes by the new content late.
    daemon.start(prefix=traced("unlink:delay_enter=50000"))
    while left & set(os.listdir(payloads)):
        time.sleep(0.01)
    daemon.command("resume")
    for job in [delivery.id, *deposits(str(daemon.root / "state" / "inbox"))]:
        assert daemon.command("wait", job, "--timeout", "30", check=False).returncode == 0
    assert set(oracle.contents(daemon.store)[delivery.id].values()) == {source.read_bytes()}


def test_a_directory_asked_for_twice_keeps_its_content(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A save of a directory whose answer was lost, asked for again as the SDK does, is one job with its content."""
    daemon = make_daemon().start()
    daemon.command("pause")
    root = tmp_path / "results"
    root.mkdir()
    (root / "a").write_bytes(b"content")
    run = daemon.run()
    # The first answer is lost: the daemon's first reply to the save fails, and with it the connection.
    assert run.flush(5).pending == 0
    first = run.save_file(root / "a")
    with injected(daemon, "sendto:error=EPIPE:when=1", "sendmsg:error=EPIPE:when=1"):
        delivery = run.save_directory(root)
    daemon.command("resume")
    assert (first.wait(20).files, delivery.wait(20).files) == (1, 1)
    assert oracle.contents(daemon.store)[delivery.id] == {b"results/a": b"content"}


def test_a_deposit_removed_half_way_is_not_taken_for_a_damaged_one(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A kill in the middle of removing a deposit that is in custody leaves no false alarm."""
    daemon = make_daemon()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300 << 10))
    for call in ("unlinkat", "rmdir"):
        daemon.start()
        delivery = daemon.run(offline=True).save_file(source)
        with injected(daemon, f"{call}:signal=SIGKILL:when=1"):
            while daemon.process and daemon.process.poll() is None and daemon.run().flush(0.2).pending:
                pass
        daemon.kill()
        daemon.start()
        assert delivery.wait(20).size_bytes == 300 << 10
        campaign.check_nothing_is_left(daemon)
