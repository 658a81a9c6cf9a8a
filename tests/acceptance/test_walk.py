"""Saving a directory: everything that is below it and nothing that is not, as it was at the call.

`DROPOFF_TEST_ROUNDS` sets how often a link is swapped under the walk; `DROPOFF_TEST_SEED` replays what was saved.
"""

import io
import itertools
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import dropoff.inbox  # noqa: F401  # loaded now, since a process without rights may not read modules
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

ROUNDS = int(os.environ.get("DROPOFF_TEST_ROUNDS", "20"))
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
MIB = 1 << 20
PATIENCE_SECONDS = 60.0
NOBODY = 65534
# Saves its argument with the settings in the environment.
SAVER = "import sys, dropoff; dropoff.init('project', 'run').save_directory(sys.argv[1])"


@pytest.fixture(params=["with a daemon", "without a daemon"])
def saving_daemon(request: pytest.FixtureRequest, make_daemon: MakeDaemon) -> DaemonProcess:
    """Return a daemon that runs, or one that does not yet: then it is the caller that walks."""
    daemon = make_daemon()
    return daemon.start() if request.param == "with a daemon" else daemon


def delivered(daemon: DaemonProcess, tree: Path) -> dict[bytes, bytes]:
    """Save `tree`, change and remove all of it at once, and return what is delivered, by path below it."""
    delivery = daemon.run().save_directory(tree)
    for path in tree.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            path.write_bytes(b"written after the save")
    shutil.rmtree(tree)
    if daemon.process is None:
        daemon.start()
    delivery.wait(PATIENCE_SECONDS)
    prefix = os.fsencode(tree.name) + b"/"
    found = oracle.contents(daemon.store)[delivery.id]
    assert all(name.startswith(prefix) for name in found)
    return {name.removeprefix(prefix): content for name, content in found.items()}


def make_tree(tree: Path, files: dict[str, bytes]) -> dict[bytes, bytes]:
    """Write `files` below `tree` and return them by name in bytes."""
    tree.mkdir(exist_ok=True)
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {os.fsencode(name): content for name, content in files.items()}


def keys_of(daemon: DaemonProcess) -> set[str]:
    """Return the keys that the entries of all records name."""
    return {entry["key"] for record in oracle.records(daemon.store).values() for entry in record["entries"]}


def test_a_thousand_small_files_become_one_zip(saving_daemon: DaemonProcess, tmp_path: Path) -> None:
    """Many small files are stored as one archive that any tool opens, each readable by its offset as well."""
    chance = random.Random(SEED)
    files = {f"d{n % 7}/{n}.txt": chance.randbytes(chance.randint(0, 20_000)) for n in range(1000)}
    expected = make_tree(tmp_path / "results", files)
    assert delivered(saving_daemon, tmp_path / "results") == expected
    (key,) = keys_of(saving_daemon)
    with zipfile.ZipFile(saving_daemon.store / key) as pack:
        assert pack.testzip() is None
        assert {name: pack.read(name) for name in pack.namelist()} == files
        assert {member.compress_type for member in pack.infolist()} == {zipfile.ZIP_STORED}


def test_a_few_small_files_are_stored_one_by_one(saving_daemon: DaemonProcess, tmp_path: Path) -> None:
    """Fewer than 16 small files keep their names in the store."""
    expected = make_tree(tmp_path / "results", {f"{n}.txt": b"%d" % n for n in range(15)})
    assert delivered(saving_daemon, tmp_path / "results") == expected
    assert {key.rpartition("/")[2] for key in keys_of(saving_daemon)} == {name.decode() for name in expected}


def test_small_and_large_files_are_saved_together(saving_daemon: DaemonProcess, tmp_path: Path) -> None:
    """Nested directories with files of every size, empty ones among them, are delivered whole."""
    chance = random.Random(SEED)
    sizes = (0, 1, 40_000, 65_537, MIB, MIB + 1, 3 * MIB)
    files = {
        f"{depth * 'deep/'}{number}-{size}": chance.randbytes(size)
        for depth in range(4)
        for number, size in enumerate(sizes)
    }
    expected = make_tree(tmp_path / "results", files)
    assert delivered(saving_daemon, tmp_path / "results") == expected
    large = [key for key in keys_of(saving_daemon) if not key.endswith(".zip")]
    assert len(large) == 4 * 2
    assert len(keys_of(saving_daemon)) == 4 * 2 + 1


def test_an_empty_directory_is_delivered(saving_daemon: DaemonProcess, tmp_path: Path) -> None:
    """A directory with no file in it makes a job with no content, which is delivered."""
    (tmp_path / "results" / "nothing").mkdir(parents=True)
    assert delivered(saving_daemon, tmp_path / "results") == {}


def test_a_directory_above_what_is_saved_may_have_any_name(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A link inside is known to be inside, also where the directory's own path is reached through a link."""
    real = tmp_path / "real"
    make_tree(real, {"a": b"a"})
    (real / "b").symlink_to("a")
    (tmp_path / "results").symlink_to(real)
    delivery = daemon.run().save_directory(tmp_path / "results")
    delivery.wait(PATIENCE_SECONDS)
    assert delivery.skipped == ()
    assert oracle.contents(daemon.store)[delivery.id] == {b"results/a": b"a", b"results/b": b"a"}


def test_links_inside_are_followed_and_all_else_is_reported(saving_daemon: DaemonProcess, tmp_path: Path) -> None:
    """What is not a file of the directory is named with the reason, and neither followed nor waited for."""
    tree = tmp_path / "results"
    make_tree(tree, {"file": b"inside", "folder/other": b"other"})
    make_tree(tmp_path / "results-of-others", {"secret": b"outside"})
    links = {
        "file-link": "file",
        "folder-link": "folder",
        "absolute-link": str(tree / "file"),
        "chain": "file-link",
        "outside-file": "../results-of-others/secret",
        "outside-folder": "../results-of-others",
        "outside-absolute": "/etc/hostname",
        "loop": ".",
        "folder/up": "..",
        "itself": "itself",
        "dangling": "nowhere",
        "null": "/dev/null",
    }
    for name, target in links.items():
        (tree / name).symlink_to(target)
    os.mkfifo(tree / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tree)
    listener.bind("socket")
    os.chdir(here)
    expected_skips = {
        "absolute-link": None,
        "outside-file": "a link that leads outside",
        "outside-folder": "a link that leads outside",
        "outside-absolute": "a link that leads outside",
        "null": "a link that leads outside",
        "loop": "a loop",
        "folder/up": "a loop",
        "folder-link/up": "a loop",
        "itself": "too many levels of symbolic links",
        "dangling": "no such file or directory",
        "fifo": "a fifo",
        "socket": "a socket",
    }
    if os.geteuid() == 0:
        os.mknod(tree / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        expected_skips["device"] = "a device"
    delivery = saving_daemon.run().save_directory(tree)
    listener.close()
    if saving_daemon.process is None:
        saving_daemon.start()
    delivery.wait(PATIENCE_SECONDS)
    assert sorted(delivery.skipped) == sorted(
        f"{name}: {reason}" for name, reason in expected_skips.items() if reason is not None
    )
    assert oracle.contents(saving_daemon.store)[delivery.id] == {
        b"results/file": b"inside",
        b"results/folder/other": b"other",
        b"results/file-link": b"inside",
        b"results/folder-link/other": b"other",
        b"results/absolute-link": b"inside",
        b"results/chain": b"inside",
    }
    assert oracle.records(saving_daemon.store)[delivery.id]["skipped"] == list(delivery.skipped)


def test_links_among_directories_do_not_multiply(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A dozen directories that all link to each other are saved in bounded time, not once per way through them."""
    daemon = make_daemon().start()
    tree = tmp_path / "results"
    make_tree(tree, {f"{n}/file": b"%d" % n for n in range(12)})
    for here, there in itertools.permutations(range(12), 2):
        (tree / str(here) / f"to-{there}").symlink_to(f"../{there}")
    subprocess.run(
        [sys.executable, "-c", SAVER, str(tree)], env=os.environ | daemon.environment, check=True, timeout=20
    )


def test_a_link_swapped_during_the_walk_never_leads_outside(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Whoever turns a file or a directory into a link while it is walked gets nothing from outside stored."""
    print(f"replay: DROPOFF_TEST_ROUNDS={ROUNDS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    daemon = make_daemon().start()
    run = daemon.run()
    secret = b"what nobody saved"
    make_tree(tmp_path / "outside", {"name": secret, "folder/name": secret})
    tree = tmp_path / "results"
    make_tree(tree, {f"{n:03}": b"padding" for n in range(50)})
    (tree / "inside").mkdir()
    (tree / "inside" / "name").write_bytes(b"inside")
    ended = threading.Event()

    def swap() -> None:
        """Make `target` a link inside, a link outside, a directory or a link to a directory outside, in turn."""
        target = tree / "target"
        new = tmp_path / "new"
        for way in itertools.cycle(("inside/name", "../outside/name", "inside", "../outside", "../outside/folder")):
            if ended.is_set():
                return
            new.symlink_to(way)
            new.replace(target)

    swapper = threading.Thread(target=swap)
    swapper.start()
    saves, ways = 0, set[bool]()
    give_up = time.monotonic() + PATIENCE_SECONDS
    try:
        # A race is a race only once the link was seen to lead to either side.
        while saves < ROUNDS or len(ways) < 2:
            skipped = run.save_directory(tree).skipped
            ways.add(any("target: a link that leads outside" in line for line in skipped))
            saves += 1
            assert time.monotonic() < give_up, ways
    finally:
        ended.set()
        swapper.join()
    settled = run.flush(PATIENCE_SECONDS)
    assert (settled.pending, [one.reason for one in settled.troubled]) == (0, [])
    found = oracle.contents(daemon.store)
    assert len(found) == saves
    stolen = [(job, name) for job, files in found.items() for name, data in files.items() if secret in data]
    assert stolen == []


def test_files_that_come_and_go_during_the_walk_do_no_harm(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """While others make and delete files, the directory is saved, and what stays is in every save of it."""
    daemon = make_daemon().start()
    run = daemon.run()
    tree = tmp_path / "results"
    staying = make_tree(tree, {f"stays-{n}": b"%d" % n * 100 for n in range(40)})
    ended = threading.Event()

    def come_and_go() -> None:
        for number in itertools.count():
            path = tree / f"goes-{number % 10}"
            path.write_bytes(b"x" * 100)
            (tree / f"goes-{(number + 5) % 10}").unlink(missing_ok=True)
            if ended.is_set():
                return

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        jobs = [run.save_directory(tree).id for _ in range(10)]
    finally:
        ended.set()
        other.join()
    assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
    found = oracle.contents(daemon.store)
    for job in jobs:
        assert {name: found[job][b"results/" + name] for name in staying} == staying
        gone = {data for name, data in found[job].items() if name.startswith(b"results/goes-")}
        assert gone <= {b"", b"x" * 100}


def as_nobody(root: Path, work: Callable[[], str]) -> str:
    """Return what `work` says in a process without any rights but to what lies below `root`."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                for path in (root, *root.rglob("*")):
                    os.chown(path, NOBODY, NOBODY)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(writable, work().encode())
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    os.close(writable)
    with open(readable, encoding="utf-8") as file:
        said = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return said


def test_an_unreadable_file_is_reported(make_daemon: MakeDaemon) -> None:
    """A file or directory that the user may not read is passed over with the reason; the rest is saved."""
    with tempfile.TemporaryDirectory() as path:  # pytest's own are closed to other users
        tree = Path(path) / "results"
        make_tree(tree, {"closed/file": b"c", "open": b"o", "secret": b"s"})
        (tree / "secret").chmod(0)
        (tree / "closed").chmod(0)
        daemon = make_daemon(Path(path) / "daemon")
        daemon.root.mkdir()
        run = daemon.run(offline=True)
        skipped = as_nobody(Path(path), lambda: "\n".join(run.save_directory(tree).skipped))
        for made in (daemon.root, *daemon.root.rglob("*")):
            os.chown(made, os.geteuid(), os.getegid())  # this process's daemon delivers it
        assert skipped.splitlines() == ["closed: permission denied", "secret: permission denied"]
        daemon.start().run().flush(PATIENCE_SECONDS)
        assert list(oracle.contents(daemon.store).values()) == [{b"results/open": b"o"}]


def test_a_pack_of_odd_names_is_a_valid_zip(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Names that are no text are escaped in the archive and kept in the record."""
    tree = tmp_path / "results"
    names = [b"%d-\xff\xfe" % n for n in range(10)] + ["größe 雪 %d".encode() % n for n in range(10)]
    names += [b"a\nb", b"\x1b[31mred"]
    tree.mkdir()
    for name in names:
        (tree / os.fsdecode(name)).write_bytes(name)
    delivery = daemon.run().save_directory(tree)
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {b"results/" + name: name for name in names}
    (key,) = keys_of(daemon)
    with zipfile.ZipFile(io.BytesIO((daemon.store / key).read_bytes())) as pack:
        assert sorted(pack.read(name) for name in pack.namelist()) == sorted(names)
        assert all(name.isprintable() for name in pack.namelist())
