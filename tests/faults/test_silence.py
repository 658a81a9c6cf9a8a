"""A daemon that is stopped, absent or new, and callers that fork, thread, get signals and vanish."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dropoff.inbox import deposits
from faults.scripts import run_script
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

DEADLINE_SECONDS = 0.1
# What the copy into the inbox, its syncs and a busy machine may take besides.
_BESIDES_SECONDS = 1.0


@contextmanager
def _stopped(daemon: DaemonProcess) -> Iterator[None]:
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


def _inbox(daemon: DaemonProcess) -> list[str]:
    return deposits(daemon.settings.inbox_dir)


def _stored(daemon: DaemonProcess) -> dict[str, bytes]:
    """Return the one file of each job."""
    return {job: content for job, files in oracle.contents(daemon.store).items() for content in files.values()}


@pytest.mark.parametrize("size", [1000, 500 << 10, 4 << 20], ids=["small", "medium", "large"])
def test_a_stopped_daemon_costs_a_deadline_and_captures_nothing_late(
    make_daemon: MakeDaemon, tmp_path: Path, size: int
) -> None:
    """Saves to a stopped daemon return in time; what it reads when it goes on is never taken for their content."""
    daemon = make_daemon(answer_deadline_seconds=DEADLINE_SECONDS).start()
    source = tmp_path / "source"
    source.write_bytes(b"first")
    run = daemon.run()
    run.save_file(source).wait(20)
    wanted, took = {}, []
    with _stopped(daemon):
        for _ in range(4):
            content = os.urandom(size)
            source.write_bytes(content)
            began = time.monotonic()
            saved = run.save_file(source)
            took.append(time.monotonic() - began)
            wanted[saved.id] = content
            source.write_bytes(b"\xff" * size)
        assert sorted(_inbox(daemon)) == sorted(wanted)
    assert max(took) < DEADLINE_SECONDS + _BESIDES_SECONDS
    assert run.flush(20).pending == 0
    stored = _stored(daemon)
    assert {job: stored[job] for job in wanted} == wanted
    assert len(stored) == 1 + len(wanted)


_FORKED_BYSTANDER = """
    import os, signal, sys, dropoff
    path, daemon = sys.argv[1], int(sys.argv[2])
    def write(data):
        with open(path, "wb") as file:
            file.write(data)
    run = dropoff.init("project", "run")
    write(b"first")
    run.save_file(path)
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    os.kill(daemon, signal.SIGSTOP)
    try:
        write(b"content at the call" * 100_000)
        saved = run.save_file(path)
        write(b"content afterwards!" * 100_000)
    finally:
        os.kill(daemon, signal.SIGCONT)
    saved.wait(20)
    print(saved.id)
"""


def test_nothing_is_captured_late_although_a_child_has_the_connection_too(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """Giving up is seen by the daemon even while a forked child, which never saves, holds the same connection."""
    daemon = make_daemon(answer_deadline_seconds=DEADLINE_SECONDS).start()
    assert daemon.process is not None
    (job,) = run_script(daemon, _FORKED_BYSTANDER, tmp_path / "source", daemon.process.pid)
    assert _stored(daemon)[job] == b"content at the call" * 100_000


def test_a_daemon_stopped_at_any_moment_captures_nothing_late(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """However the stop falls into the conversation, each job is there once with the bytes of its call."""
    daemon = make_daemon(answer_deadline_seconds=DEADLINE_SECONDS).start()
    run = daemon.run()
    source = tmp_path / "source"
    wanted = {}
    source.write_bytes(b"first")
    wanted[run.save_file(source).id] = b"first"
    for number in range(12):
        content = os.urandom((1 << 20) + 1000 if number % 2 else 700 << 10)
        source.write_bytes(content)
        stop = threading.Timer(number / 3000, daemon.signal, [signal.SIGSTOP])
        stop.start()
        saved = run.save_file(source)
        stop.join()
        # A writer may have to wait for the stopped daemon's lease; it must not wait for us.
        writer = threading.Thread(target=source.write_bytes, args=(b"\xff" * len(content),))
        writer.start()
        writer.join(0.05)
        daemon.signal(signal.SIGCONT)
        writer.join(20)
        wanted[saved.id] = content
    assert run.flush(30).pending == 0
    assert _stored(daemon) == wanted


def test_saves_without_a_daemon_wait_in_the_inbox(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Files and directories saved while no daemon ever ran are delivered when one comes."""
    daemon = make_daemon(answer_deadline_seconds=DEADLINE_SECONDS)
    root = tmp_path / "results"
    (root / "below").mkdir(parents=True)
    (root / "below" / "large").write_bytes(b"l" * (2 << 20))
    (root / "small").write_bytes(b"s")
    run = daemon.run()
    whole, one = run.save_directory(root), run.save_file(root / "small")
    shutil.rmtree(root)
    assert sorted(_inbox(daemon)) == sorted([whole.id, one.id])
    daemon.start()
    assert (whole.wait(20).files, one.wait(20).files) == (2, 1)
    assert oracle.contents(daemon.store) == {
        whole.id: {b"results/below/large": b"l" * (2 << 20), b"results/small": b"s"},
        one.id: {b"small": b"s"},
    }


def test_a_restarted_daemon_is_spoken_to_again(daemon: DaemonProcess, tmp_path: Path) -> None:
    """The next save after a restart goes over a new connection, not through the inbox."""
    source = tmp_path / "source"
    run = daemon.run()
    wanted = {}
    for number in range(4):
        source.write_bytes(f"{number}".encode())
        wanted[run.save_file(source).id] = f"{number}".encode()
        assert _inbox(daemon) == []
        if number % 2:
            daemon.kill()
        else:
            assert daemon.stop() == 0
        daemon.start()
    assert run.flush(20).pending == 0
    assert _stored(daemon) == wanted


_FORKS = """
    import os, sys, dropoff
    directory = sys.argv[1]
    def save(name):
        path = os.path.join(directory, name)
        with open(path, "w") as file:
            file.write(name * 1000)
        return run.save_file(path).id
    run = dropoff.init("project", "run")
    save("before")
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            for number in range(10):
                save(f"child-{child}-{number}")
            os._exit(0)
        children.append(pid)
    for number in range(10):
        save(f"parent-{number}")
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    save("after")
"""


def test_parent_and_forked_children_save_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A run opened before a fork works on both sides of it, each with a connection of its own."""
    run_script(daemon, _FORKS, tmp_path)
    assert daemon.run().flush(20).pending == 0
    names = {"before", "after", *(f"parent-{n}" for n in range(10))}
    names |= {f"child-{child}-{n}" for child in range(4) for n in range(10)}
    stored = [next(iter(files.items())) for files in oracle.contents(daemon.store).values()]
    assert sorted(stored) == sorted((name.encode(), name.encode() * 1000) for name in names)
    assert _inbox(daemon) == []


_POOL = """
    import multiprocessing, sys, dropoff
    from faults.workers import save_two
    if __name__ == "__main__":
        method, path = sys.argv[1:]
        run = dropoff.init("project", "run")
        run.save_file(path)
        with multiprocessing.get_context(method).Pool(3) as pool:
            for ids in pool.map(save_two, [path] * 6, chunksize=1):
                print(*ids)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pool_workers_save(daemon: DaemonProcess, tmp_path: Path, method: str) -> None:
    """Workers of every kind of multiprocessing save, as those of a data loader do, and end without ado."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    jobs = run_script(daemon, _POOL, method, source)
    assert len(set(jobs)) == 12
    assert daemon.run().flush(20).pending == 0
    assert set(jobs) <= _stored(daemon).keys()
    assert len(_stored(daemon)) == 13


def test_sixteen_threads_save_at_once(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Threads share one run: each save has its own content, and none goes astray."""
    run = daemon.run()
    wanted: dict[str, bytes] = {}
    start = threading.Barrier(16)

    def save(thread: int) -> None:
        source = tmp_path / f"source-{thread}"
        start.wait()
        for number in range(10):
            content = f"{thread}-{number}".encode() * 1000 * (1 + thread % 3 * 20)
            source.write_bytes(content)
            wanted[run.save_file(source).id] = content

    threads = [threading.Thread(target=save, args=(n,)) for n in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert run.flush(30).pending == 0
    assert _stored(daemon) == wanted


_SIGNALS = """
    import os, signal, sys, time, dropoff
    directory, busy = sys.argv[1], []
    def save(name, size):
        path = os.path.join(directory, name)
        with open(path, "w") as file:
            file.write(name * size)
        os.write(1, f"{run.save_file(path).id}\\n".encode())  # print would be interrupted before its newline
    def on_alarm(*_):
        if len(busy) < 60:
            busy.append(1)
            save(f"alarm-{len(busy)}-{time.monotonic_ns()}", 100)
    run = dropoff.init("project", "run")
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0017)
    try:
        for number in range(150):
            save(f"main-{number}", 200 if number % 3 else 60_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(busy) > 10, len(busy)
"""


def test_saves_from_signal_handlers_that_interrupt_saves(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A handler that saves in the middle of a save neither hangs nor mixes anything up."""
    began = time.monotonic()
    jobs = run_script(daemon, _SIGNALS, tmp_path)
    assert time.monotonic() - began < 30
    assert daemon.run().flush(20).pending == 0
    found = oracle.contents(daemon.store)
    assert sorted(found) == sorted(jobs)
    for files in found.values():
        ((name, content),) = files.items()
        assert content == name * (len(content) // len(name))
        assert len(content) // len(name) in {100, 200, 60_000}


_LAST_WORDS = """
    import atexit, os, sys, dropoff
    path, manner = sys.argv[1:]
    run = dropoff.init("project", "run")
    if manner == "atexit":
        atexit.register(lambda: print(run.save_file(path).id, flush=True))
    else:
        job = run.save_file(path).id
        os.write(1, job.encode())
        os._exit(0)
"""


@pytest.mark.parametrize("manner", ["atexit", "_exit"])
def test_the_last_save_before_the_end_counts(daemon: DaemonProcess, tmp_path: Path, manner: str) -> None:
    """A save from atexit, or right before os._exit, is in custody: the process is not needed any more."""
    source = tmp_path / "source"
    source.write_bytes(b"last words" * 200_000)
    (job,) = run_script(daemon, _LAST_WORDS, source, manner)
    source.unlink()
    assert daemon.run().flush(20).pending == 0
    assert _stored(daemon) == {job: b"last words" * 200_000}


def test_offline_asks_no_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    """With offline=True everything goes to the inbox, also past a daemon that runs, and is delivered by it."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with _stopped(daemon):
        began = time.monotonic()
        saved = daemon.run(offline=True).save_file(source)
        assert time.monotonic() - began < _BESIDES_SECONDS
        assert _inbox(daemon) == [saved.id]
    assert saved.wait(20).size_bytes == 7


def test_a_state_directory_carried_elsewhere_is_delivered(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Deposits and custody alike travel with the state directory, and a daemon at the new place delivers them."""
    daemon = make_daemon(tmp_path / "here").start()
    daemon.command("pause")
    wanted = {}
    for size in (1000, 500 << 10, 3 << 20):
        source = tmp_path / "source"
        source.write_bytes(os.urandom(size))
        wanted[daemon.run().save_file(source).id] = source.read_bytes()
        wanted[daemon.run(offline=True).save_file(source).id] = source.read_bytes()
        source.unlink()
    assert daemon.stop() == 0
    source.write_bytes(b"saved after the end")
    wanted[daemon.run().save_file(source).id] = b"saved after the end"
    elsewhere = make_daemon(tmp_path / "there")
    elsewhere.root.mkdir()
    os.rename(daemon.root / "state", elsewhere.root / "state")
    elsewhere.start()
    elsewhere.command("resume")
    assert json.loads(elsewhere.command("wait", "--json").stdout)["pending"] == 0
    # The store was named by the run, and is where it was.
    assert _stored(daemon) == wanted
