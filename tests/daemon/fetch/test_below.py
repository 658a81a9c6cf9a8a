"""Writing below a directory, with things in the way."""

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dropoff.errors import UsageError
from dropoffd.fetch.below import Below
from dropoffd.fetch.incoming import Incoming


class Place:
    """A directory to write below, and one beside it where nothing may ever come."""

    def __init__(self, home: Path) -> None:
        self.root = home / "root"
        self.outside = home / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "file").write_bytes(b"not ours")
        self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        self.below = Below(self._fd, 0o022)
        self._incoming = Incoming(self._fd, ".in")

    def write(self, path: bytes, data: bytes = b"data", mode: int = 0o644) -> None:
        """Write a file as a download does."""
        self.below.move(self._incoming.fd, self._incoming.write(data), path, mode)

    def close(self) -> None:
        """Close it; whatever was tried, nothing outside changed."""
        self._incoming.close()
        os.close(self._fd)
        assert [path.name for path in self.outside.iterdir()] == ["file"]
        assert (self.outside / "file").read_bytes() == b"not ours"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return such a place."""
    made = Place(tmp_path)
    yield made
    made.close()


def test_files_get_their_folders_and_permissions(place: Place) -> None:
    """Folders are made as needed; of the recorded permission bits the umask and set-user-id go."""
    place.write(b"a/b/c", mode=0o6777)
    assert (place.root / "a/b/c").read_bytes() == b"data"
    assert (place.root / "a/b/c").stat().st_mode & 0o7777 == 0o755
    assert (place.root / "a/b").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("target", ["../outside", "/etc", "."])
def test_a_folder_that_is_a_link_is_refused(place: Place, target: str) -> None:
    """A symbolic link in the way is not followed, wherever it leads."""
    (place.root / "a").symlink_to(target)
    for path in (b"a/file", b"a/b/file"):
        with pytest.raises(UsageError, match="is no directory"):
            place.write(path)
        assert not place.below.holds(path, 8, hashlib.sha256(b"not ours").hexdigest())


def test_a_file_that_is_a_link_is_replaced(place: Place) -> None:
    """A link where a file belongs is replaced by the file, and what it led to stays as it was."""
    (place.root / "file").symlink_to("../outside/file")
    assert not place.below.holds(b"file", 8, hashlib.sha256(b"not ours").hexdigest())
    place.write(b"file")
    assert not (place.root / "file").is_symlink()
    os.link(place.outside / "file", place.root / "linked")
    place.write(b"linked")
    assert (place.root / "linked").read_bytes() == b"data"


def test_devices_and_pipes_in_the_way_are_replaced_and_never_opened_for_writing(place: Place) -> None:
    """A pipe or device where a file belongs is replaced without a byte going into it; looking does not hang."""
    os.mkfifo(place.root / "pipe")
    assert not place.below.holds(b"pipe", 0, hashlib.sha256(b"").hexdigest())
    place.write(b"pipe")
    assert (place.root / "pipe").read_bytes() == b"data"
    if os.geteuid() == 0:
        os.mknod(place.root / "null", 0o020666, os.makedev(1, 3))
        assert not place.below.holds(b"null", 0, hashlib.sha256(b"").hexdigest())
        place.write(b"null")
        assert (place.root / "null").read_bytes() == b"data"


def test_a_directory_or_file_in_the_way_is_refused(place: Place) -> None:
    """A directory where a file belongs, and a file where a folder does, are the caller's and stay."""
    (place.root / "directory" / "full").mkdir(parents=True)
    (place.root / "file").write_bytes(b"mine")
    for path in (b"directory", b"file/below"):
        with pytest.raises(UsageError, match="unable to write"):
            place.write(path)
    assert (place.root / "file").read_bytes() == b"mine"


def test_an_incoming_directory_of_somebody_elses_making_is_refused(tmp_path: Path) -> None:
    """Where unverified content would lie is no link, and nobody else's to write to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ("link", "open"):
            with pytest.raises(OSError, match=r"link|open"):
                Incoming(fd, name)
    finally:
        os.close(fd)


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(place: Place) -> None:
    """While somebody swaps a folder for a link again and again, nothing is ever written through the link."""
    done = threading.Event()
    folder = place.root / "folder"

    def swap() -> None:
        while not done.is_set():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(FileExistsError):
                folder.symlink_to("../outside")
            with contextlib.suppress(OSError):
                folder.unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    written = refused = 0
    try:
        for _ in range(2000):
            try:
                place.write(b"folder/written")
                written += 1
            except (UsageError, OSError):
                refused += 1
    finally:
        done.set()
        swapper.join()
    assert written + refused == 2000
    assert written
