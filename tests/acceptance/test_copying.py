"""`dropoff export` and `import`: a project goes from a directory to a bucket and back, and is what it was."""

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
from support import oracle
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


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return a daemon that is gone, and in whose store a project has all that one can have."""
    root = tmp_path_factory.mktemp("origin")
    daemon = DaemonProcess(root / "host").start()
    data = root / "data"
    data.mkdir()
    for number in range(40):
        (data / f"{number:02}.txt").write_bytes(b"number %d" % number)
    (data / "large.bin").write_bytes(os.urandom(LARGE))
    maker = daemon.run(name="maker")
    maker.save_file(data / "00.txt", "code", prefix="a (b)/caf\u00e9")
    maker.save_directory(data)
    maker.log_artifact(data, "cats", "dataset", aliases=["best"])
    (data / "01.txt").write_bytes(b"changed")
    artifact = dropoff.Artifact("cats", "dataset", settings=daemon.settings)
    artifact.add_dir(data)
    artifact.add_reference("https://example.org/raw.tar")
    maker.log_artifact(artifact, aliases=["nightly"])
    maker.log_artifact(data / "02.txt", "dogs:and more".replace(":", " "), "model")
    assert not maker.flush(60).pending
    user = daemon.run(name="user")
    user.use_artifact("cats:best")
    user.save_file(data / "03.txt")
    assert not user.flush(60).pending
    daemon.stop()
    yield daemon
    daemon.end()


def objects(store: Path) -> dict[str, bytes]:
    """Return every object of a store that is a directory."""
    found = [path for path in store.rglob("*") if path.is_file() and ".incoming" not in path.parts]
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def copied(daemon: DaemonProcess, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command that copies, and return what it tells."""
    done = daemon.command(*arguments, "--json", check=False)
    assert done.returncode == code, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_project_comes_back_from_a_bucket_as_it_was(
    origin: DaemonProcess, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directory to bucket to directory: every object is there, byte for byte, and a second copy has nothing to do."""
    bucket = new_bucket(start_server("rgw").address)
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    there = url(bucket, "team/artifacts")
    told = copied(origin, "export", there, "--project", "project")
    wanted = {"runs": 2, "records": 3, "versions": 3, "links": 5, "present": 0, "unknown": 0, "damaged": 0}
    assert {name: told[name] for name in wanted} == wanted
    again = copied(origin, "export", there, "--project", "project")
    assert (again["objects"], again["versions"], again["records"], again["links"]) == (0, 0, 0, 0)
    copied(origin, "import", there, "--project", "project", "--to", str(tmp_path / "back"))
    assert objects(tmp_path / "back") == objects(origin.store)
    assert oracle.contents(tmp_path / "back") == oracle.contents(origin.store)
    assert not list((origin.root / "cache" / "copying").glob("*"))
    assert client(bucket).list_multipart_uploads(Bucket=bucket.bucket).get("Uploads", []) == []


def test_a_copy_that_was_killed_goes_on(
    origin: DaemonProcess, fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL what is visible lacks nothing, and the next copy sends what the store has not confirmed."""
    for name, value in environment(fault_server.address).items():
        monkeypatch.setenv(name, value)
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
