"""Capture: when a save returns, what will be delivered is what was in the file at the call.

`DROPOFF_TEST_ROUNDS` sets how many saves each file system gets; `DROPOFF_TEST_SEED` replays what they were.
"""

import contextlib
import fcntl
import itertools
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

import dropoff
from dropoff.messages import JobReport
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon
from support.filesystems import REFLINKS, FileSystem

ROUNDS = int(os.environ.get("DROPOFF_TEST_ROUNDS", "54"))
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
BATCH = 25
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# One size range for each rung: read into the row, copied, linked.
SIZES = ((1, 64 * KIB), (64 * KIB + 1, MIB), (MIB + 1, 3 * MIB))
INLINE, COPY, LINK = 48 * KIB, 512 * KIB, 2 * MIB
PATIENCE_SECONDS = 60.0
# A writer may wait for a copy of the file; it must not wait for a timer or for the kernel's break time.
WRITER_SECONDS = 20.0


def until(holds: Callable[[], bool]) -> None:
    """Return as soon as `holds`; fail if it does not in good time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def report(delivery: dropoff.Delivery) -> JobReport:
    """Return what the daemon says of a job that it has."""
    found = delivery.report()
    assert found is not None
    return found


def disk_bytes(path: Path) -> int:
    """Return the space that a file takes on its disk."""
    return path.stat().st_blocks * 512


class Mutation(Protocol):
    """Changes the file at `path` in one of the ways in which training code does."""

    def __call__(self, path: Path, junk: bytes) -> None: ...


def rewrite(path: Path, junk: bytes) -> None:
    """Truncate and write anew."""
    path.write_bytes(junk)


def write_in_place(path: Path, junk: bytes) -> None:
    """Write over the beginning."""
    with path.open("r+b") as file:
        file.write(junk)


def replace(path: Path, junk: bytes) -> None:
    """Rename a new file over it."""
    new = path.with_name("new")
    new.write_bytes(junk)
    new.replace(path)


def unlink(path: Path, junk: bytes) -> None:  # noqa: ARG001  # a mutation, but nothing is written
    """Delete it."""
    path.unlink()


def write_mapped(path: Path, junk: bytes) -> None:
    """Write through a shared mapping, and leave the writing back to the kernel."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        size = min(len(junk), len(mapped))
        mapped[:size] = junk[:size]


def append(path: Path, junk: bytes) -> None:
    """Add to the end."""
    with path.open("ab") as file:
        file.write(junk)


def rename(path: Path, junk: bytes) -> None:
    """Move it away and make another one of its name."""
    path.replace(path.with_name("moved"))
    path.write_bytes(junk)


MUTATIONS: tuple[Mutation, ...] = (rewrite, write_in_place, replace, unlink, write_mapped, append, rename)


@contextlib.contextmanager
def no_writer(path: Path) -> Iterator[Mutation]:  # noqa: ARG001  # one of the states that a file may be saved in
    """Leave the file alone until it is saved."""
    yield write_in_place


@contextlib.contextmanager
def open_writer(path: Path) -> Iterator[Mutation]:
    """Have the file open for writing while it is saved, and write to it afterwards."""
    with path.open("r+b") as file:

        def write(path: Path, junk: bytes) -> None:  # noqa: ARG001  # the open file, not the path
            file.write(junk)
            file.flush()

        yield write


@contextlib.contextmanager
def open_mapping(path: Path) -> Iterator[Mutation]:
    """Have the file mapped and written to while it is saved, so that later writes are not even page faults."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    with mapped:
        mapped[0] = mapped[0]

        def write(path: Path, junk: bytes) -> None:  # noqa: ARG001  # the mapping, not the path
            size = min(len(junk), len(mapped))
            mapped[:size] = junk[:size]

        yield write


WRITERS = (open_writer, open_mapping)
CASES = tuple(
    itertools.product(SIZES, [(no_writer, change) for change in MUTATIONS] + [(writer, None) for writer in WRITERS])
)


def save_and_change(run: dropoff.Run, path: Path, number: int, chance: random.Random) -> tuple[str, bytes]:
    """Save a new file at `path`, change it at once, and return the job and what the file held at the call."""
    (least, most), (state, change) = CASES[number % len(CASES)]
    content = chance.randbytes(chance.randint(least, most))
    junk = chance.randbytes(chance.randint(1, len(content) + 1000))
    if chance.random() < 0.5:
        path.unlink(missing_ok=True)
    path.write_bytes(content)
    with state(path) as write:
        delivery = run.save_file(path)
        (change or write)(path, junk)
    return delivery.id, content


def check_rounds(daemon: DaemonProcess, work: Path, rounds: int) -> None:
    """Save and change `rounds` files in batches; each is delivered as it was when it was saved."""
    print(f"replay: DROPOFF_TEST_ROUNDS={ROUNDS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    right = 0
    for start in range(0, rounds, BATCH):
        # A store per batch, so that the space is given back.
        store = work / "store"
        run = daemon.run(store=str(store))
        saved = dict(
            save_and_change(run, work / "best.pt", number, chance)
            for number in range(start, min(rounds, start + BATCH))
        )
        assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
        found = oracle.contents(store)
        wrong = [job for job, content in saved.items() if found.get(job) != {b"best.pt": content}]
        assert wrong == []
        right += len(saved)
        shutil.rmtree(store)
    print(f"{right} of {rounds} right")


@pytest.mark.timeout(60 + 2 * ROUNDS)
def test_what_is_delivered_is_what_was_there_at_the_call(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """However a file is changed right after its save returned, its content at the call is delivered."""
    check_rounds(make_daemon(filesystem).start(), filesystem, ROUNDS)


@pytest.mark.timeout(60 + 2 * ROUNDS)
def test_content_is_frozen_on_another_file_system_than_the_spools(
    filesystem: Path, make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """The same holds where the spool is on another disk; the directory for links there goes with the daemon."""
    daemon = make_daemon(tmp_path).start()
    check_rounds(daemon, filesystem, max(len(CASES), ROUNDS // 4))
    home = filesystem.parent / f".dropoff-{os.geteuid()}"
    assert home.is_dir()
    assert daemon.stop() == 0
    assert not home.exists()


def test_each_size_takes_the_cheapest_rung_that_holds(file_system: FileSystem, make_daemon: MakeDaemon) -> None:
    """Small content goes into the row, medium is copied, large is linked; the report says which."""
    daemon = make_daemon(file_system.path).start()
    run = daemon.run()
    path = file_system.path / "model"
    rungs = {}
    for size in (0, 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1, 4 * MIB):
        path.write_bytes(os.urandom(size))
        rungs[size] = report(run.save_file(path)).capture
        path.unlink()
    assert rungs == {
        0: "inline", 1: "inline", 64 * KIB: "inline", 64 * KIB + 1: "copy", MIB: "copy", MIB + 1: "link",
        4 * MIB: "link",
    }  # fmt: skip


@pytest.mark.parametrize("state", WRITERS)
def test_a_file_that_is_being_written_is_cloned_before_the_answer(
    file_system: FileSystem,
    make_daemon: MakeDaemon,
    state: Callable[[Path], contextlib.AbstractContextManager[Mutation]],
) -> None:
    """Where a lease is refused because somebody has the file open, a reflink is made, or else a copy."""
    daemon = make_daemon(file_system.path).start()
    path = file_system.path / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    with state(path) as write:
        delivery = daemon.run().save_file(path)
        write(path, b"junk" * 1000)
    delivery.wait(PATIENCE_SECONDS)
    assert report(delivery).capture == ("reflink" if file_system.kind in REFLINKS else "copy")
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


def test_with_no_lease_to_be_had_the_content_is_cloned(file_system: FileSystem, make_daemon: MakeDaemon) -> None:
    """Beyond `leases_max` files at once, further ones are made the daemon's own before the answer."""
    daemon = make_daemon(file_system.path, leases_max=0).start()
    path = file_system.path / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    write_in_place(path, b"junk")
    delivery.wait(PATIENCE_SECONDS)
    assert report(delivery).capture == ("reflink" if file_system.kind in REFLINKS else "copy")
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


def test_content_that_waits_for_its_upload_becomes_the_daemons_own(
    file_system: FileSystem, make_daemon: MakeDaemon
) -> None:
    """After `copy_after_seconds` a file has no lease on it, and no link of ours; its content is kept."""
    daemon = make_daemon(file_system.path, copy_after_seconds=0.1).start()
    daemon.command("pause")
    path = file_system.path / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    assert report(delivery).capture == "link"
    until(lambda: path.stat().st_nlink == 1)
    # Without a lease in the way this never waits, and says so.
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    write_in_place(path, b"junk")
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


def test_a_writer_gets_through_as_soon_as_the_content_is_copied(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """Who opens a large file for writing, right after its save, waits for a copy at most, not for the upload."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    daemon.command("pause")
    path = filesystem / "model"
    content = os.urandom(MIB) * 64
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    started = time.monotonic()
    with path.open("r+b") as file:
        waited = time.monotonic() - started
        file.write(b"junk")
    print(f"the writer waited {waited * 1000:.1f} ms")
    assert waited < WRITER_SECONDS
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


def test_a_writer_may_come_while_the_content_is_read(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """A lease that is broken in the middle of a digest or an upload changes nothing of what is delivered."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    run = daemon.run()
    path = filesystem / "model"
    chance = random.Random(SEED)
    saved = {}
    for _ in range(4):
        content = chance.randbytes(MIB) * 48
        path.write_bytes(content)
        delivery = run.save_file(path)
        saved[delivery.id] = {b"model": content}
        until(lambda delivery=delivery: report(delivery).state != dropoff.JobState.QUEUED)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.08))  # not to wait for anything: to come at different moments of the reading
        write_in_place(path, chance.randbytes(MIB))
    assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
    assert oracle.contents(daemon.store) == saved


def test_touching_a_saved_file_does_no_harm(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """New time stamps and permissions, which no lease keeps out, neither hold the job nor a later writer up."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    daemon.command("pause")
    path = filesystem / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    os.utime(path)
    path.chmod(0o640)
    started = time.monotonic()
    write_in_place(path, b"junk")
    waited = time.monotonic() - started
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}
    assert waited < WRITER_SECONDS


def test_a_touched_file_is_delivered(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """A file whose time stamps are set right after its save is delivered, since its content did not change."""
    daemon = make_daemon(filesystem).start()
    path = filesystem / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    os.utime(path, (1, 1))
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


@contextlib.contextmanager
def contended_locks(home: Path) -> Iterator[None]:
    """Hold, on each processor's list of the kernel, a lock that somebody waits for."""
    processors = os.sched_getaffinity(0)
    with contextlib.ExitStack() as files:
        waiting = []
        for processor in processors:
            holder, waiter = (files.enter_context((home / f"lock-{processor}").open("w")) for _ in range(2))
            os.sched_setaffinity(0, {processor})
            fcntl.flock(holder, fcntl.LOCK_EX)
            waiting.append((holder, threading.Thread(target=fcntl.flock, args=(waiter, fcntl.LOCK_EX))))
            waiting[-1][1].start()
        os.sched_setaffinity(0, processors)
        until(lambda: Path("/proc/locks").read_text(encoding="ascii").count("-> FLOCK") >= len(waiting))
        yield
        for holder, thread in waiting:
            fcntl.flock(holder, fcntl.LOCK_UN)
            thread.join()


def test_locks_that_others_wait_for_do_no_harm(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A lease is told from all the locks of the machine, those that somebody waits for among them."""
    daemon = make_daemon(copy_after_seconds=600).start()
    daemon.command("pause")
    path = tmp_path / "model"
    content = os.urandom(LINK)
    path.write_bytes(content)
    delivery = daemon.run().save_file(path)
    os.utime(path)
    with contended_locks(tmp_path):
        write_in_place(path, b"junk")
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"model": content}


def test_a_writer_does_not_wait_for_a_timer_when_a_directory_is_walked(
    filesystem: Path, make_daemon: MakeDaemon
) -> None:
    """Who wants to write to a file of a directory that is still being walked waits for the walk at most."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    daemon.command("pause")
    tree = filesystem / "tree"
    tree.mkdir()
    content = os.urandom(LINK)
    large = tree / "a-model"
    large.write_bytes(content)
    for number in range(3000):
        (tree / f"log-{number}").write_bytes(b"line\n")
    waits: list[float] = []

    def write() -> None:
        until(lambda: large.stat().st_nlink > 1)
        started = time.monotonic()
        write_in_place(large, b"junk")
        waits.append(time.monotonic() - started)

    writer = threading.Thread(target=write)
    writer.start()
    delivery = daemon.run().save_directory(tree)
    writer.join()
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id][b"tree/a-model"] == content
    assert waits[0] < WRITER_SECONDS


def test_an_empty_file_is_a_file(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """An empty file is delivered empty, also when something is written to it right after."""
    daemon = make_daemon(filesystem).start()
    path = filesystem / "empty"
    path.touch()
    delivery = daemon.run().save_file(path)
    append(path, b"junk")
    assert delivery.wait(PATIENCE_SECONDS).size_bytes == 0
    assert oracle.contents(daemon.store)[delivery.id] == {b"empty": b""}


@pytest.mark.parametrize("state", [no_writer, open_writer])
def test_a_sparse_file_takes_no_more_space_in_custody(
    filesystem: Path,
    make_daemon: MakeDaemon,
    state: Callable[[Path], contextlib.AbstractContextManager[Mutation]],
) -> None:
    """What a file has in holes is a hole in the spool, too, and comes back as zeros."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    daemon.command("pause")
    path = filesystem / "sparse"
    size, islands = 24 * MIB, {5 * MIB: b"first", 20 * MIB + 17: os.urandom(MIB)}
    with path.open("wb") as file:
        file.truncate(size)
        for offset, island in islands.items():
            file.seek(offset)
            file.write(island)
    content = path.read_bytes()
    with state(path) as write:
        delivery = daemon.run().save_file(path)
        write(path, b"junk")
    payloads = filesystem / "state" / "payloads"
    assert sum(disk_bytes(kept) for kept in payloads.iterdir()) < 8 * MIB
    daemon.command("resume")
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"sparse": content}


# Of 4 GiB and 5 bytes of zeros, then "beyond".
HUGE_SHA256 = "ab2e6a25aa0bb134a1f91f4109f8f7650c80aaf908e1d8ef6224d46ff7d7cb08"


@pytest.fixture
def memory_store() -> Iterator[Path]:
    """Return a directory in memory; skip where several gigabytes of it would hurt."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not os.access("/dev/shm", os.W_OK) or min(free, shutil.disk_usage("/dev/shm").free) < 6 * GIB:
        pytest.skip("NOT TRIED: 6 GiB of memory to store a huge file in; a disk would take minutes")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def test_a_file_over_four_gibibytes_is_delivered(memory_store: Path, make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Sizes and offsets beyond 32 bits are no limit."""
    path = tmp_path / "huge"
    size = 4 * GIB + 11
    with path.open("wb") as file:
        file.seek(4 * GIB + 5)
        file.write(b"beyond")
    delivery = make_daemon(store=f"file://{memory_store}").start().run(store=str(memory_store)).save_file(path)
    write_in_place(path, b"junk")
    receipt = delivery.wait(PATIENCE_SECONDS)
    assert (receipt.size_bytes, receipt.sha256) == (size, HUGE_SHA256)
    stored = memory_store / receipt.key
    assert stored.stat().st_size == size
    with stored.open("rb") as file:
        file.seek(4 * GIB + 3)
        assert file.read() == b"\0\0beyond"


# Appends numbered lines of 64 bytes to its first argument until its input ends; a line of output when it began.
APPENDER = """
import sys, threading
with open(sys.argv[1], "wb", buffering=0) as file:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    number = 0
    while not ended.is_set():
        file.write(b"".join(b"%063d\\n" % n for n in range(number, number + 16)))
        number += 16
        if number == 16:
            print("began", flush=True)
"""


def test_a_file_that_grows_meanwhile_is_saved_as_far_as_it_was(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """Of a log that another process appends to, a prefix is stored that was there during the call."""
    daemon = make_daemon(filesystem).start()
    run = daemon.run()
    path = filesystem / "log"
    with subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as appender:
        assert appender.stdout is not None
        appender.stdout.readline()
        spans = {}
        for size in (0, 16 * KIB, 128 * KIB, 512 * KIB, 2 * MIB, 4 * MIB):
            until(lambda size=size: path.stat().st_size >= size)  # type: ignore[misc]
            before = path.stat().st_size
            job = run.save_file(path).id
            spans[job] = (before, path.stat().st_size)
        appender.communicate()
    assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
    whole = path.read_bytes()
    found = {job: files[b"log"] for job, files in oracle.contents(daemon.store).items()}
    assert found.keys() == spans.keys()
    for job, (before, after) in spans.items():
        assert before <= len(found[job]) <= after
        assert found[job] == whole[: len(found[job])]


def test_without_a_daemon_content_is_frozen_by_the_caller(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """What is saved while there is no daemon, and changed right after, is delivered once there is one."""
    daemon = make_daemon(filesystem)
    run = daemon.run(offline=True)
    chance = random.Random(SEED)
    saved = dict(save_and_change(run, filesystem / "best.pt", number, chance) for number in range(len(CASES)))
    daemon.start()
    assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
    expected = {job: {b"best.pt": content} for job, content in saved.items()}
    assert oracle.contents(daemon.store) == expected


def test_a_spool_may_be_carried_to_another_machine(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """What was saved without a daemon is delivered from a copy of the state directory, wherever that is."""
    run = make_daemon(tmp_path / "here").run(offline=True, store=str(tmp_path / "store"))
    tree = tmp_path / "tree"
    tree.mkdir()
    saved: dict[str, dict[bytes, bytes]] = {}
    for size in (0, INLINE, COPY, LINK):
        path = tree / str(size)
        path.write_bytes(os.urandom(size))
        saved[run.save_file(path).id] = {path.name.encode(): path.read_bytes()}
    saved[run.save_directory(tree).id] = {
        b"tree/" + os.fsencode(path.name): path.read_bytes() for path in tree.iterdir()
    }
    shutil.rmtree(tree)
    there = make_daemon(tmp_path / "there")
    shutil.copytree(tmp_path / "here" / "state", there.root / "state", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "here")
    there.start()
    assert [one.reason for one in there.run().flush(PATIENCE_SECONDS).troubled] == []
    assert oracle.contents(tmp_path / "store") == saved


NO_WRITE = (replace, unlink, rename)
LINKED = tuple(itertools.product((INLINE, COPY, LINK), MUTATIONS))


def link_and_change(daemon: DaemonProcess, work: Path, changes: Iterable[Mutation]) -> dict[str, dict[bytes, bytes]]:
    """Save files of each size without a daemon, change them, and return what they held, by job."""
    run = daemon.run(offline=True)
    saved: dict[str, dict[bytes, bytes]] = {}
    for size, change in LINKED:
        if change in changes:
            path = work / f"{change.__name__}-{size}"  # type: ignore[attr-defined]  # all of them are functions
            content = os.urandom(size)
            path.write_bytes(content)
            delivery = run.save_file(path)
            assert path.stat().st_nlink == 2
            saved[delivery.id] = {path.name.encode(): content}
            change(path, os.urandom(size))
    return saved


def test_a_link_without_a_daemon_keeps_what_nobody_writes_to(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """With `on_unavailable = "link"`, a file that is replaced or deleted later is delivered as it was."""
    daemon = make_daemon(filesystem, on_unavailable="link")
    saved = link_and_change(daemon, filesystem, NO_WRITE)
    daemon.start()
    assert [one.reason for one in daemon.run().flush(PATIENCE_SECONDS).troubled] == []
    assert oracle.contents(daemon.store) == saved


def test_a_link_that_was_written_to_is_held_and_says_so(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """With `on_unavailable = "link"`, a file that is written to before there is a daemon is held, never delivered."""
    daemon = make_daemon(filesystem, on_unavailable="link")
    saved = link_and_change(daemon, filesystem, [change for change in MUTATIONS if change not in NO_WRITE])
    daemon.start()
    settled = daemon.run().flush(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store) == {}
    held = {one.job for one in settled.troubled if "somebody wrote to the file after it was captured" in one.reason}
    assert held == saved.keys()


def test_a_file_that_is_being_written_is_not_trusted_to_a_link(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """With `on_unavailable = "link"`, what a writer that has the file open writes later is never delivered."""
    daemon = make_daemon(filesystem, on_unavailable="link")
    run = daemon.run(offline=True)
    saved: dict[str, dict[bytes, bytes]] = {}
    with contextlib.ExitStack() as writers:
        for size, state in ((size, open_writer) for size in (INLINE, COPY, LINK)):
            path = filesystem / f"{state.__name__}-{size}"
            content = os.urandom(size)
            path.write_bytes(content)
            write = writers.enter_context(state(path))
            saved[run.save_file(path).id] = {path.name.encode(): content}
            write(path, os.urandom(size))
        daemon.start()
        run.flush(PATIENCE_SECONDS)
    wrong = [files for job, files in oracle.contents(daemon.store).items() if files != saved[job]]
    assert [list(files) for files in wrong] == []


def test_what_was_written_while_nothing_protected_it_is_held(filesystem: Path, make_daemon: MakeDaemon) -> None:
    """After the daemon and its guard are killed, a file that is written to is held, never delivered with that."""
    daemon = make_daemon(filesystem, copy_after_seconds=600).start()
    daemon.command("pause")
    content = os.urandom(LINK)
    (filesystem / "written").write_bytes(content)
    (filesystem / "left").write_bytes(content)
    written, left = (daemon.run().save_file(filesystem / name) for name in ("written", "left"))
    guards = [int(path.name.removeprefix("guard-")) for path in (filesystem / "state").glob("guard-*")]
    # Together, as a machine's end takes both: neither has a moment to act for the other.
    for pid in guards:
        os.kill(pid, signal.SIGSTOP)
    daemon.kill()
    for pid in guards:
        os.kill(pid, signal.SIGKILL)
    write_in_place(filesystem / "written", os.urandom(LINK))
    daemon.start()
    daemon.command("resume")
    left.wait(PATIENCE_SECONDS)
    # A reflink, which is made within moments, has saved it even so; what it never may be is the later content.
    with contextlib.suppress(dropoff.DeliveryError):
        written.wait(PATIENCE_SECONDS)
    found = oracle.contents(daemon.store)
    assert found[left.id] == {b"left": content}
    assert found.get(written.id, {b"written": content}) == {b"written": content}
    assert report(written).state in {dropoff.JobState.HELD, dropoff.JobState.DELIVERED}
