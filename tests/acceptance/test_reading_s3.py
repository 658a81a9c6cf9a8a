"""Reading back from real S3 servers: versions and runs, by daemon and command line, also with keys that only read."""

import os
from pathlib import Path

import pytest

import dropoff
from dropoff.questions import Role
from dropoff.reading import open_run
from support.daemon import MakeDaemon
from support.fault_server import faults
from support.fault_server.calls import Operation
from support.fault_server.server import FaultServer
from support.servers.address import Address


def url(address: Address, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a server's bucket as a store, whose credentials processes find from now on."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.secret_key)
    return f"s3://{address.bucket}/artifacts?endpoint={address.endpoint}&region={address.region}"


def files(root: Path) -> dict[str, bytes]:
    """Return the files below a directory, by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with small files and one that goes in parts and comes in pieces."""
    root = tmp_path / "data"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}.txt").write_bytes(b"number %d" % number)
    (root / "large.bin").write_bytes(os.urandom((20 << 20) + 7))
    return root


def test_what_was_stored_is_read_back_from_every_server(
    make_daemon: MakeDaemon, s3_bucket: Address, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version and a run's files come back as they were; the lineage, verification and `dropoff get` work, too."""
    (tmp_path / "host").mkdir()
    daemon = make_daemon(tmp_path / "host", store=url(s3_bucket, monkeypatch)).start()
    daemon.run(name="maker").log_artifact(directory, "cats", "dataset", aliases=["best"]).wait(60)
    user = daemon.run(name="user")
    user.save_file(directory / "00.txt", tags=["t"])
    assert not user.flush(60).pending
    version = user.use_artifact("cats:best")
    assert files(Path(version.download(tmp_path / "out"))) == files(directory)
    assert files(Path(version.get_local_copy())) == files(directory)
    with version.open("large.bin", "rb") as file:
        assert file.read() == (directory / "large.bin").read_bytes()
    assert version.verify(read_data=True).damaged == 0
    assert {(link.role, link.run) for link in version.links} == {(Role.OUTPUT, "maker"), (Role.INPUT, "user")}
    run = open_run("project", "user", settings=daemon.settings)
    assert [(link.role, link.artifact) for link in run.links] == [(Role.INPUT, "cats")]
    assert [Path(file.get_local_copy()).read_bytes() for file in run.files(tags=["t"])] == [b"number 0"]
    daemon.stop()
    daemon.command("get", "project/cats", str(tmp_path / "got"))
    assert files(tmp_path / "got") == files(directory)


def test_who_may_only_read_reads(
    make_daemon: MakeDaemon,
    fault_server: FaultServer,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With credentials that may write nothing a version is used and downloaded; that its use is not noted is said."""
    (tmp_path / "host").mkdir()
    daemon = make_daemon(tmp_path / "host", store=url(fault_server.address, monkeypatch)).start()
    daemon.run(name="maker").log_artifact(directory, "cats", "dataset").wait(60)
    fault_server.inject(Operation.PUT, faults.ACCESS_DENIED)
    version = daemon.run(name="reader").use_artifact("cats")
    assert "AccessDenied" in version.unrecorded
    assert files(Path(version.download(tmp_path / "out"))) == files(directory)
    assert [link.role for link in version.links] == [Role.OUTPUT]
    assert dropoff.open_version("project/cats", settings=daemon.settings).unrecorded == ""
