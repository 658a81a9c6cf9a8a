"""A store of somebody who means harm: nothing outside the goal is touched, nothing is run, nothing is endless."""

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropoff.errors import DamagedError, DropoffError, UsageError
from dropoff.reading import StoredVersion, open_version
from support import stranger
from support.daemon import DaemonProcess

CONTENT = b"content"


class Trap:
    """Unpickled, it leaves a mark."""

    mark = ""

    def __reduce__(self) -> Any:
        """Say what unpickling runs."""
        return os.mkdir, (self.mark,)


def digest(entries: list[dict[str, Any]]) -> str:
    """Return the digest of a manifest's content, as the format says."""
    found = hashlib.sha256(b"dropoff content 1\0")
    for entry in sorted(entries, key=lambda entry: str(entry["path"]).encode()):
        found.update(str(entry["path"]).encode() + b"\0sha256:" + str(entry["sha256"]).encode() + b"\0")
    return found.hexdigest()


def entry(path: str, data: bytes = CONTENT, **said: Any) -> dict[str, Any]:
    """Return an entry."""
    return {
        "path": path, "key": "project/files/content", "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "mode": "0644", "mtime": "2026-01-01T00:00:00Z",
    } | said  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return where to download to, several directories deep; nothing outside it may change."""
    goal = tmp_path / "home" / "deep" / "goal"
    goal.mkdir(parents=True)
    (tmp_path / "home" / "deep" / "precious").write_bytes(b"precious")
    yield goal
    assert sorted(path.name for path in goal.parent.iterdir()) == ["goal", "precious"]
    assert (goal.parent / "precious").read_bytes() == b"precious"
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["deep"]


def planted(daemon: DaemonProcess, entries: list[dict[str, Any]], **said: Any) -> StoredVersion:
    """Write a manifest into the daemon's store, by hand, and look it up."""
    (daemon.store / "project/files").mkdir(parents=True, exist_ok=True)
    (daemon.store / "project/files/content").write_bytes(CONTENT)
    versions = daemon.store / "project/artifacts/evil/versions"
    versions.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": 1, "project": "project", "artifact": "evil", "type": "dataset", "version": 0,
        "digest": digest(entries), "size": 7, "created": "2026-01-01T00:00:00Z", "job": "0" * 32, "run": "run",
        "entries": entries, "references": [],
    } | said  # fmt: skip
    (versions / "000000.json").write_text(json.dumps(manifest))
    return open_version("project/evil:v0", settings=daemon.settings)


@pytest.mark.parametrize(
    "paths",
    [
        ["/etc/passwd"], ["../precious"], ["a/../../precious"], [""], ["a\0b"], ["."], ["a//b"], ["a", "a/b"],
        ["x" * 256], [".dropoff-incoming/x"],
    ],
    ids=repr,
)  # fmt: skip
def test_no_name_leads_elsewhere(daemon: DaemonProcess, home: Path, paths: list[str]) -> None:
    """A manifest with a name that leads out, or meets another, is refused before anything is written."""
    version = planted(daemon, [entry("fine"), *map(entry, paths)])
    for links in (False, True):
        with pytest.raises(DamagedError, match="unable to"):
            version.download(home, links=links)
    with pytest.raises(DamagedError, match="unable to"):
        version.get_local_copy()
    assert list(home.iterdir()) == []
    assert {path.name for path in daemon.root.iterdir()} <= {"cache", "home", "run", "state", "store"}


def test_links_in_the_way_are_not_followed(daemon: DaemonProcess, home: Path) -> None:
    """A link below the goal, whoever put it there, is refused as a folder and replaced as a file."""
    (home / "folder").symlink_to("..")
    version = planted(daemon, [entry("folder/precious")])
    with pytest.raises(UsageError, match="is no directory"):
        version.download(home)
    (home / "folder").unlink()
    (home / "file").symlink_to("../precious")
    planted(daemon, [entry("file")]).download(home)
    assert (home / "file").read_bytes() == CONTENT
    assert not (home / "file").is_symlink()


@pytest.mark.parametrize(
    "said",
    [
        {"key": "../../home/deep/precious"}, {"key": "/etc/hostname"}, {"key": "project/files/../../../home/x"},
        {"size": -1}, {"offset": -5}, {"sha256": "../../x"}, {"sha256": ""}, {"sha256": "A" * 64},
        {"path_base64": "!"}, {"size": 1 << 62}, {"size": 8}, {"offset": 3}, {"mtime": 5}, {"mode": None},
    ],
    ids=repr,
)  # fmt: skip
def test_no_entry_reads_what_it_should_not(daemon: DaemonProcess, home: Path, said: dict[str, Any]) -> None:
    """Keys that climb, sizes that cannot be and digests that are none are refused; nothing lands."""
    with pytest.raises(DropoffError, match="unable to"):
        planted(daemon, [entry("file", **said)]).download(home)
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "said",
    [
        {"version": 7}, {"artifact": "other"}, {"project": "other"}, {"digest": "0" * 64}, {"format": 2},
        {"references": 1}, {"metadata": {"a": "b" * (2 << 20)}},
    ],
    ids=lambda said: repr(said)[:40],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(daemon: DaemonProcess, said: dict[str, Any]) -> None:
    """A manifest moved from elsewhere, changed by hand, or larger than any of ours is not used."""
    with pytest.raises(DropoffError, match="unable to"):
        planted(daemon, [entry("file")], **said)
    assert daemon.command("status").returncode == 0


def test_a_manifest_nested_without_end_is_refused(daemon: DaemonProcess) -> None:
    """JSON that would exhaust a parser's stack is an error like any other."""
    planted(daemon, [entry("file")])
    path = daemon.store / "project/artifacts/evil/versions/000000.json"
    path.write_text('{"format":1,"metadata":' + "[" * 200_000)
    with pytest.raises(DamagedError):
        open_version("project/evil:v0", settings=daemon.settings)
    assert daemon.command("status").returncode == 0


def test_a_version_that_changes_after_it_was_looked_up_is_refused(daemon: DaemonProcess, home: Path) -> None:
    """Nobody exchanges a manifest between the look and the download."""
    version = planted(daemon, [entry("file")])
    planted(daemon, [entry("other")])
    daemon.stop()
    daemon.start()
    with pytest.raises(DamagedError, match="changed"):
        version.download(home)
    assert list(home.iterdir()) == []


def test_nothing_is_unpickled(daemon: DaemonProcess, home: Path, tmp_path: Path) -> None:
    """A pickle is a file like any other, whatever its name: it comes as it is and runs nowhere."""
    Trap.mark = str(tmp_path / "mark")
    data = pickle.dumps(Trap())
    names = ["model.pkl", "model.pt", "array.npy", "__init__.py"]
    version = planted(daemon, [entry(name, data, content_type="application/x-python-pickle") for name in names])
    (daemon.store / "project/files/content").write_bytes(data)
    version.download(home)
    assert [Path(version.path(name)).read_bytes() == data for name in names] == [True] * 4
    with version.open("model.pkl", "rb") as file:
        assert file.read() == data
    assert not Path(Trap.mark).exists()


def test_no_object_runs_what_it_was_made_of(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Pickles in every guise that a store can give them are refused by `get`, and only said so twice is one run."""
    Trap.mark = str(tmp_path / "mark")
    data, header = pickle.dumps(Trap()), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", header.getvalue() + data)
    guises = {
        "a.npy": ("", data), "b.npy": ("npy", header.getvalue() + data), "c.npz": ("", archive.getvalue()),
        "d.npz": ("npz", data), "e.pt": ("torch", data), "f.pkl": ("", data), "g.json": ("json", data),
        "h.parquet": ("pandas-parquet", data), "i.png": ("image-png", data), "j": ("os.system", data),
        "k.safetensors": ("numpy-safetensors", data), "l.arrow": ("arrow", data), "m": ("\x1b[2J", data),
    }  # fmt: skip
    entries = [
        entry(name, content, key=f"project/files/{name}", serializer=said) for name, (said, content) in guises.items()
    ]
    version = planted(daemon, [*entries, entry("trap", data, key="project/files/f.pkl", serializer="pickle")])
    for name, (_, content) in guises.items():
        (daemon.store / "project/files" / name).write_bytes(content)
        for allowed in (False, True):
            with pytest.raises(UsageError, match="unable to") as raised:
                version.get(name, allow_pickle=allowed)
            assert "\x1b" not in str(raised.value)
    with pytest.raises(UsageError, match="it is a pickle"):
        version.get("trap")
    assert not Path(Trap.mark).exists()
    version.get("trap", allow_pickle=True)
    assert Path(Trap.mark).exists()


def test_no_file_comes_with_more_rights_than_its_reader_gives(daemon: DaemonProcess, home: Path) -> None:
    """Set-user-id, sticky and write bits for others do not come from a store."""
    old = os.umask(0o022)
    try:
        planted(daemon, [entry("file", mode="107777"), entry("odd", mode="9"), entry("none", mode="0000")]).download(
            home
        )
    finally:
        os.umask(old)
    assert {path.name: path.stat().st_mode & 0o7777 for path in home.iterdir()} == {
        "file": 0o755, "odd": 0o644, "none": 0o600,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "uri"),
    [("../precious", "file:///etc/hostname"), ("/x", "file:///etc/hostname"), ("fine/x", "file:///etc/hostname"),
     ("x", "file:///dev/zero"), ("x", "http://127.0.0.1:1/"), ("x", "http://169.254.169.254/"), ("x", "gopher://h/x")],
)  # fmt: skip
def test_no_reference_leads_where_it_should_not(daemon: DaemonProcess, home: Path, path: str, uri: str) -> None:
    """A reference whose name leads out or meets a file's, or that leads to a device or this host, brings nothing."""
    entries, references = [entry("fine")], [{"path": path, "uri": uri}]
    found = stranger.digest({"entries": entries, "references": references})
    version = planted(daemon, entries, references=references, digest=found)
    with pytest.raises(DropoffError, match="unable to"):
        version.download(home, references=True)
    assert list(home.iterdir()) == []
