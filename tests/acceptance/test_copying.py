"""A project goes from a directory to a bucket and back, and anybody can read it in both."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dropoff
from support import oracle, stranger
from support.daemon import DaemonProcess
from support.fault_server.calls import Operation
from support.fault_server.faults import Silence, Stage
from support.fault_server.server import FaultServer
from support.servers.address import Address
from support.servers.client import client
from support.servers.fixtures import StartServer
from support.servers.server import new_bucket
from support.stores import environment, url

LARGE = (20 << 20) + 7
ODD = "dogs & more"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with small files, one that goes in parts, an empty one and a name that is no text."""
    root = tmp_path_factory.mktemp("data")
    for number in range(20):
        (root / f"{number:02}.txt").write_bytes(b"number %d" % number)
    (root / "large.bin").write_bytes(os.urandom(LARGE))
    (root / "empty").touch()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_bytes(b"latin")
    return root


@pytest.fixture(scope="module")
def origin(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return a daemon that is gone, and in whose store a project has all that one can have."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("origin")).start()
    maker = daemon.run(name="maker")
    maker.save_file(data / "00.txt", "code", prefix="a (b)/caf\u00e9")
    maker.save_directory(data, name="saved")
    artifact = dropoff.Artifact("cats", "dataset", settings=daemon.settings)
    artifact.add_dir(data)
    artifact.add_reference("http://127.0.0.1/raw.tar")
    maker.log_artifact(artifact, aliases=["best"])
    maker.log_artifact(data / "01.txt", "cats", "dataset", aliases=["nightly"])
    maker.log_artifact(data / "02.txt", ODD, "model")
    assert not maker.flush(60).pending
    user = daemon.run(name="user")
    user.use_artifact("cats:best")
    user.save_file(data / "03.txt")
    assert not user.flush(60).pending
    daemon.stop()
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def bucket(origin: DaemonProcess, start_server: StartServer) -> Address:
    """Return a bucket of Ceph's gateway with a copy of that store below `team/`."""
    address = new_bucket(start_server("rgw").address)
    origin.environment |= environment(address)
    told = copied(origin, "export", url(address, "team"), "--project", "project")
    wanted = {"runs": 2, "records": 3, "versions": 3, "links": 5, "present": 0, "unknown": 0, "damaged": 0}
    assert {name: told[name] for name in wanted} == wanted
    return address


def copied(daemon: DaemonProcess, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command that copies, and return what it tells."""
    done = daemon.command(*arguments, "--json", check=False)
    assert done.returncode == code, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def objects(store: Path) -> dict[str, bytes]:
    """Return every object of a store that is a directory."""
    found = [path for path in store.rglob("*") if path.is_file() and ".incoming" not in path.parts]
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def test_a_project_comes_back_from_a_bucket_as_it_was(origin: DaemonProcess, bucket: Address, tmp_path: Path) -> None:
    """Directory to bucket to directory: every object is there, byte for byte; a second copy has nothing to do."""
    told = copied(origin, "import", url(bucket, "team"), "--project", "project", "--to", str(tmp_path / "back"))
    assert objects(tmp_path / "back") == objects(origin.store)
    assert oracle.contents(tmp_path / "back") == oracle.contents(origin.store)
    again = copied(origin, "import", url(bucket, "team"), "--project", "project")
    assert (again["objects"], again["present"]) == (
        0,
        sum(told[name] for name in ("runs", "records", "versions", "links")),
    )
    assert not list((origin.root / "cache" / "copying").glob("*"))
    assert client(bucket).list_multipart_uploads(Bucket=bucket.bucket).get("Uploads", []) == []


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_a_stranger_reads_it_all(
    origin: DaemonProcess, request: pytest.FixtureRequest, data: Path, place: str
) -> None:
    """With a JSON parser and a way to get objects every file of a version and a run is read and verified."""
    shelves: stranger.Shelves = stranger.Directory(origin.store)
    if place == "bucket":
        address = request.getfixturevalue("bucket")
        shelves = stranger.Bucket(client(address), address.bucket, "team/")
    names = os.listdir(os.fsencode(data))
    wanted = {name: Path(os.fsdecode(os.path.join(os.fsencode(data), name))).read_bytes() for name in names}
    best = stranger.version(shelves, "project", "cats", "best")
    assert stranger.files(shelves, best["entries"]) == wanted
    assert sum("offset" in entry for entry in best["entries"]) == len(wanted) - 1
    assert [one["uri"] for one in best["references"]] == ["http://127.0.0.1/raw.tar"]
    newest = stranger.version(shelves, "project", "cats")
    assert stranger.files(shelves, newest["entries"]) == {b"01.txt": b"number 1"}
    odd = stranger.version(shelves, "project", ODD)
    assert stranger.files(shelves, odd["entries"]) == {b"02.txt": b"number 2"}
    one, directory = stranger.records(shelves, "project", "maker")
    assert stranger.files(shelves, one["entries"]) == {b"00.txt": b"number 0"}
    saved = stranger.files(shelves, directory["entries"])
    assert saved == {b"saved/" + name: content for name, content in wanted.items()}


def test_a_conflict_has_an_exit_code_of_its_own(origin: DaemonProcess, data: Path, tmp_path: Path) -> None:
    """Where the target has another version under a number, that is named, nothing of it comes, and 10 is returned."""
    other = DaemonProcess(tmp_path / "other").start()
    try:
        other.run().log_artifact(data / "05.txt", "cats", "dataset").wait(30)
    finally:
        other.end()
    done = origin.command("export", str(other.store), "--project", "project", "--artifact", "cats", check=False)
    assert (done.returncode, done.stderr) == (10, "")
    assert "CONFLICT" in done.stdout
    assert "project/artifacts/cats/versions/000000.json" in done.stdout
    assert [len(manifest["entries"]) for manifest in oracle.manifests(other.store)] == [1]
    assert not list(other.store.rglob("large.bin"))


def test_a_copy_that_was_killed_goes_on(
    origin: DaemonProcess, fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL what is visible lacks nothing, and the next copy sends what the store has not confirmed."""
    for name, value in environment(fault_server.address).items():
        monkeypatch.setitem(origin.environment, name, value)
    there, staged = url(fault_server.address, "copy"), origin.root / "cache" / "copying"
    key = next(key for key in objects(origin.store) if key.endswith("/large.bin"))
    fault_server.inject(Operation.PART, Silence(Stage.RECEIVED), key=f"copy/{key}", part=3)
    command = [sys.executable, "-m", "dropoffd", "export", there, "--project", "project"]
    first = subprocess.Popen(command, env=origin._whole_environment(), stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    fault_server.journal.wait(lambda: len(fault_server.journal.requests(Operation.PART, key=f"copy/{key}")) == 3)
    # The upload, and two of its parts.
    while not any(len(path.read_bytes().splitlines()) == 3 for path in staged.glob("*.upload")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.wait()
    half = downloaded(fault_server, tmp_path / "half")
    oracle.contents(half)
    assert set(objects(half)) < set(objects(origin.store))
    fault_server.journal.clear()
    copied(origin, "export", there, "--project", "project")
    assert objects(downloaded(fault_server, tmp_path / "whole")) == objects(origin.store)
    sent = [seen.call.part for seen in fault_server.journal.requests(Operation.PART, key=f"copy/{key}")]
    assert (sent, fault_server.uploads, list(staged.glob("*"))) == ([3], [], [])


def downloaded(server: FaultServer, directory: Path) -> Path:
    """Write what a server has below `copy/` into a directory."""
    for key in server.objects:
        if key.startswith("copy/"):
            path = directory / key.removeprefix("copy/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(server.content(key))
    return directory
