"""Names: whatever a file system takes as a name is kept to the byte; what could lead astray is refused."""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

import dropoff
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon

PATIENCE_SECONDS = 60.0

NAMES = {
    "spaces": b"  my best model .pt ",
    "newline": b"two\nlines\r\n",
    "not UTF-8": b"caf\xe9-\xff\xfe.bin",
    "longest": b"n" * 251 + b".bin",
    "longest and not UTF-8": b"\xff" * 255,
    "longest of two bytes each": "é".encode() * 127,
    "control characters": bytes(range(1, 32)) + b"\x7f",
    "terminal escape": b"\x1b]0;owned\x07\x1b[31mred\x1b[0m",
    "bidirectional override": "evil\u202egpj.exe".encode(),
    "unicode": "größe-雪-🙂".encode(),
    "decomposed unicode": "re\u0301sume\u0301".encode(),
    "percent": b"100%25%2F..",
    "hidden": b".hidden",
    "dots": b"...",
    "backslash": b"C:\\temp\\model",
    "glob and shell": b"*?[a]$(rm -rf ~)`x`;&|<>\"'",
    "like our own": b".incoming",
    "option": b"--help",
}


@pytest.mark.parametrize("offline", [False, True], ids=["with a daemon", "without a daemon"])
def test_a_files_name_is_kept_to_the_byte(make_daemon: MakeDaemon, tmp_path: Path, *, offline: bool) -> None:
    """A file of any name is delivered under it, by itself, in a directory, and as a directory's name."""
    daemon = make_daemon()
    if not offline:
        daemon.start()
    run = daemon.run(offline=offline)
    expected = {}
    for name in NAMES.values():
        folder = os.path.join(os.fsencode(tmp_path), b"folder")
        path = os.path.join(folder, name)
        os.makedirs(folder)
        with open(path, "wb") as file:
            file.write(name)
        expected[run.save_file(path).id] = {name: name}
        expected[run.save_directory(folder).id] = {b"folder/" + name: name}
        os.unlink(path)
        os.mkdir(path)
        with open(os.path.join(path, b"file"), "wb") as file:
            file.write(b"below it")
        expected[run.save_directory(path).id] = {name + b"/file": b"below it"}
        shutil.rmtree(folder)
    if offline:
        daemon.start()
    assert [one.reason for one in run.flush(PATIENCE_SECONDS).troubled] == []
    assert oracle.contents(daemon.store) == expected


def test_what_a_person_reads_holds_no_control_characters(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A name cannot speak to the terminal: lists, logs and errors show it escaped."""
    name = NAMES["terminal escape"] + NAMES["newline"] + NAMES["bidirectional override"]
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"x")
    delivery = daemon.run().save_file(path)
    delivery.wait(PATIENCE_SECONDS)
    shown = daemon.command("jobs").stdout + daemon.command("show", delivery.id).stdout + "".join(daemon.log)
    unsafe = {character for character in shown if not character.isprintable()} - {"\n"}
    assert unsafe == set()
    assert "owned" in shown
    os.unlink(path)
    with pytest.raises(dropoff.MissingSourceError) as raised:
        daemon.run().save_file(path)
    assert raised.value.message.isprintable()


def test_names_and_prefixes_make_the_key(daemon: DaemonProcess, tmp_path: Path) -> None:
    """`name` renames, `prefix` and folders in the name become folders of the store."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    cases: list[tuple[dict[str, Any], bytes, str]] = [
        ({}, b"model.pt", ""),
        ({"name": "other.pt"}, b"other.pt", ""),
        ({"name": "nested/other.pt"}, b"nested/other.pt", "nested/"),
        ({"name": b"caf\xe9"}, b"caf\xe9", ""),
        ({"prefix": "epoch 1"}, b"model.pt", "epoch%201/"),
        ({"prefix": "a/b/"}, b"model.pt", "a/b/"),
        ({"prefix": "a", "name": "b/c"}, b"b/c", "a/b/"),
    ]
    for arguments, name, folders in cases:
        receipt = daemon.run().save_file(path, **arguments).wait(PATIENCE_SECONDS)
        assert oracle.contents(daemon.store)[receipt.job] == {name: b"x"}
        assert receipt.key.startswith(f"project/files/{folders}{receipt.sha256[:32]}/")


def test_the_whole_path_can_be_the_name(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `preserve_path` the path as given is the name, without a leading slash or detours."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    run = daemon.run()
    given = ("a/b/file", "./a/../a//b/file", str(tmp_path / "a" / "b" / "file"))
    deliveries = [run.save_file(path, preserve_path=True) for path in given]
    tree = run.save_directory("a/b", preserve_path=True)
    dropoff.wait(*deliveries, tree, timeout=PATIENCE_SECONDS)
    found = oracle.contents(daemon.store)
    whole = os.fsencode(tmp_path / "a" / "b" / "file").lstrip(b"/")
    assert [found[one.id] for one in deliveries] == [{b"a/b/file": b"x"}, {b"a/b/file": b"x"}, {whole: b"x"}]
    assert found[tree.id] == {b"a/b/file": b"x"}


def test_directories_without_a_name_of_their_own_get_one(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places "." and ".." are saved under the names of the directories that they stand for."""
    (tmp_path / "above" / "here").mkdir(parents=True)
    (tmp_path / "above" / "here" / "file").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "above" / "here")
    for place, expected in {".": b"here/file", "..": b"above/here/file"}.items():
        delivery = daemon.run().save_directory(place)
        delivery.wait(PATIENCE_SECONDS)
        assert oracle.contents(daemon.store)[delivery.id] == {expected: b"x"}


REFUSED_NAMES = ["", "/", "/etc/passwd", "..", "a/../../b", "a/..", ".", "./a", "a//b", "a/", "nul\0byte", "n" * 256]
REFUSED_NAMES += ["a/" * 3000 + "b", "\ud800"]


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=lambda name: repr(name[:12]))
def test_a_name_that_leads_astray_is_refused(make_daemon: MakeDaemon, tmp_path: Path, name: str) -> None:
    """Empty, absolute, climbing, overlong and unencodable names are refused at the call, with a hint."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    with pytest.raises(dropoff.UsageError) as raised:
        make_daemon().run().save_file(path, name=name)
    assert raised.value.hint


@pytest.mark.parametrize("prefix", ["/", "/abs", "..", "a/../b", "nul\0byte", "n" * 256, "\udcff"], ids=repr)
def test_a_prefix_that_leads_astray_is_refused(make_daemon: MakeDaemon, tmp_path: Path, prefix: str) -> None:
    """Prefixes are text below the project's own folder, or refused at the call, with a hint."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    with pytest.raises(dropoff.UsageError) as raised:
        make_daemon().run().save_file(path, prefix=prefix)
    assert raised.value.hint


@pytest.mark.parametrize("path", ["", "nul\0byte", "nowhere", "\ud800"], ids=repr)
def test_a_path_that_cannot_be_is_refused(make_daemon: MakeDaemon, path: str) -> None:
    """A path that names nothing, or could name nothing, is an error of usage with a hint."""
    with pytest.raises(dropoff.UsageError) as raised:
        make_daemon().run().save_file(path)
    assert raised.value.hint


def test_a_climbing_path_is_no_name(make_daemon: MakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads out of the working directory cannot be preserved as a name."""
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(dropoff.UsageError, match="climbs out"):
        make_daemon().run().save_file("../file", preserve_path=True)


def test_directories_of_any_length_will_do(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """State and runtime directories may be longer than a socket's address can be."""
    root = tmp_path / ("long " + "x" * 200) / ("longer " + "y" * 200)
    daemon = make_daemon(root).start()
    address = root / "run" / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as direct, pytest.raises(OSError, match="too long"):
        direct.connect(str(address))
    assert address.is_socket()
    path = tmp_path / "model.pt"
    path.write_bytes(b"x" * 3_000_000)
    delivery = daemon.run().save_file(path)
    offline = daemon.run(offline=True).save_file(path)
    dropoff.wait(delivery, offline, timeout=PATIENCE_SECONDS)
    assert len(oracle.contents(daemon.store)) == 2
    assert '"delivered"' in daemon.command("show", delivery.id, "--json").stdout
    assert daemon.stop() == 0


def test_a_file_from_the_far_future_is_delivered(make_daemon: MakeDaemon) -> None:
    """A time stamp that no calendar can hold is no reason to keep a file."""
    here = Path("/dev/shm")
    if not os.access(here, os.W_OK):
        pytest.skip("NOT TRIED: needs a tmpfs, which keeps any time stamp")
    daemon = make_daemon().start()
    path = here / f"dropoff-test-{os.getpid()}"
    path.write_bytes(b"x")
    try:
        os.utime(path, (10**12, 10**12))
        delivery = daemon.run().save_file(path)
    finally:
        path.unlink()
    delivery.wait(PATIENCE_SECONDS)
    assert oracle.contents(daemon.store)[delivery.id] == {os.fsencode(path.name): b"x"}
