"""Walking a directory: everything below it, nothing else, and a reason for what is passed over."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dropoff.content import Content, payload_name, payload_place
from dropoff.snapshot import SKIPPED_SHOWN, snapshot
from dropoff.walk import DEPTH_MAX, walk


@contextmanager
def opened(path: Path | str) -> Iterator[int]:
    """Open a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def walked(root: Path) -> tuple[dict[bytes, bytes], list[str]]:
    """Return the files that a walk finds, and what it passed over."""
    skipped: list[str] = []
    with opened(root) as fd:
        return {path: os.pread(child, 1 << 20, 0) for path, child in walk(fd, skipped.append)}, skipped


def test_every_file_is_found_in_the_order_of_names(tmp_path: Path) -> None:
    """Files at any depth are found once, ordered, with whatever names they have."""
    names = [b"a/b/c", b"a.txt", b"\xff", b"z", b"a/a", b"new\nline", b"empty/file"]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(name)
    (tmp_path / "nothing").mkdir()
    files, skipped = walked(tmp_path)
    assert files == {name: name for name in names}
    assert list(files) == [b"a/a", b"a/b/c", b"a.txt", b"empty/file", b"new\nline", b"z", b"\xff"]
    assert skipped == []


def test_links_are_followed_inside_only(tmp_path: Path) -> None:
    """A link to a file or directory inside is followed; one that leads out, loops or hangs is reported."""
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "file").write_bytes(b"data")
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "root-beside").mkdir()
    links = {
        "file-link": "real/file", "directory-link": "real", "absolute": str(root / "real/file"), "out": "../outside",
        "beside": "../root-beside", "proc": "/proc/self/environ", "dangling": "nowhere", "self": ".",
        "circle": "circle", "device": "/dev/null",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    files, skipped = walked(root)
    assert files == dict.fromkeys([b"absolute", b"directory-link/file", b"file-link", b"real/file"], b"data")
    assert skipped == [
        "beside: a link that leads outside",
        "circle: too many levels of symbolic links",
        "dangling: no such file or directory",
        "device: a link that leads outside",
        "out: a link that leads outside",
        "proc: a link that leads outside",
        "self: a loop",
    ]


def test_what_is_no_file_is_reported(tmp_path: Path) -> None:
    """Fifos, sockets and devices are passed over without being opened."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock, opened(tmp_path) as fd:
        sock.bind(f"/proc/self/fd/{fd}/socket")
        (tmp_path / "fifo-link").symlink_to("fifo")
        (tmp_path / "file").write_bytes(b"")
        files, skipped = walked(tmp_path)
    assert files == {b"file": b""}
    assert skipped == ["fifo: a fifo", "fifo-link: a link to a fifo", "socket: a socket"]


def test_another_file_system_is_not_entered(tmp_path: Path) -> None:
    """A directory that something else is mounted on is reported."""
    (tmp_path / "mounted").mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "mounted")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"mounting is not possible here: {made.stderr.strip()}")
    try:
        (tmp_path / "mounted" / "file").write_bytes(b"elsewhere")
        assert walked(tmp_path) == ({}, ["mounted: on another file system"])
    finally:
        subprocess.run(["umount", str(tmp_path / "mounted")], check=True)


def test_depth_is_bounded(tmp_path: Path) -> None:
    """A directory deeper than the limit is reported, and what is above is found."""
    path = tmp_path
    for _ in range(DEPTH_MAX + 2):
        path /= "d"
    path.mkdir(parents=True)
    (path / "too-deep").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    files, skipped = walked(tmp_path)
    assert files == {b"file": b""}
    assert [line.rsplit(": ", 1)[1] for line in skipped] == [f"deeper than {DEPTH_MAX} directories"]


def test_the_walk_closes_what_it_opened(tmp_path: Path) -> None:
    """After a walk, ended or broken off, no descriptor is left open."""
    for name in ("a", "b/c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    before = set(os.listdir("/proc/self/fd"))
    with opened(tmp_path) as fd:
        found = walk(fd, lambda _: None)
        next(found)
        next(found)
        found.close()  # type: ignore[attr-defined]
    walked(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_path_too_long_for_an_archive_does_no_harm(tmp_path: Path) -> None:
    """A file at the end of very long names is saved or reported, and the others are saved all the same."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").write_bytes(b"a")
    name = b"\xff" * 255
    with opened(tmp_path / "root") as root:
        directory = os.dup(root)
        for _ in range(70):
            os.mkdir(name, dir_fd=directory)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
        os.close(directory)
        (tmp_path / "home").mkdir()
        with opened(tmp_path / "home") as home:
            contents, skipped = snapshot(
                root, home, payload_name("0" * 32, 0), payload_place("0" * 32, 0), _refuse, lambda _: None
            )
    assert b"a" in {content.path for content in contents}
    assert len(contents) - 1 + len(skipped) == 2


def _refuse(_fd: int, _ordinal: int, _path: bytes) -> Content:
    raise AssertionError("nothing here is large")


def test_long_lists_of_what_was_passed_over_are_cut(tmp_path: Path) -> None:
    """A thousand fifos are told in a hundred lines and one that counts the rest."""
    (tmp_path / "root").mkdir()
    (tmp_path / "home").mkdir()
    for n in range(SKIPPED_SHOWN + 5):
        os.mkfifo(tmp_path / "root" / f"{n:04}")
    with opened(tmp_path / "root") as root, opened(tmp_path / "home") as home:
        contents, skipped = snapshot(root, home, "pack", b"pack", _refuse, lambda _: None)
    assert (contents, len(skipped), skipped[-1]) == ([], SKIPPED_SHOWN + 1, "... and 5 more")
    assert os.listdir(tmp_path / "home") == []
