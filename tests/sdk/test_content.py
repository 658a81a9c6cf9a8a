"""Copying content: holes stay holes, and what changes meanwhile is noticed."""

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from dropoff import UnstableSourceError
from dropoff.content import copy, copy_frozen, pread_all, read_frozen, stamp, write_all

MIB = 1 << 20


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Return a source and an empty target, open."""
    flags = os.O_RDWR | os.O_CREAT
    both = os.open(tmp_path / "source", flags), os.open(tmp_path / "target", flags)
    yield both
    for fd in both:
        os.close(fd)


def whole(fd: int) -> bytes:
    """Return all of a file."""
    return pread_all(fd, os.fstat(fd).st_size)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, MIB + 1])
def test_a_copy_is_the_same_bytes(files: tuple[int, int], size: int) -> None:
    """A copy has exactly the source's bytes."""
    source, target = files
    data = os.urandom(size)
    os.write(source, data)
    copy(source, target, size)
    assert whole(target) == data


@pytest.mark.parametrize(
    "pieces",
    [[], [(0, b"head")], [(60 * MIB, b"tail")], [(0, b"head"), (30 * MIB, b"middle"), (64 * MIB - 4, b"tail")]],
)
def test_holes_are_kept(files: tuple[int, int], pieces: list[tuple[int, bytes]]) -> None:
    """A sparse file's copy has the same bytes and size, and takes no more space."""
    source, target = files
    os.ftruncate(source, 64 * MIB)
    for at, data in pieces:
        os.pwrite(source, data, at)
    copy(source, target, 64 * MIB)
    assert os.fstat(target).st_size == 64 * MIB
    assert os.fstat(target).st_blocks <= max(os.fstat(source).st_blocks, 8 * len(pieces))
    for at, data in pieces:
        assert os.pread(target, len(data), at) == data
    assert whole(target) == whole(source)


def test_only_the_wanted_size_is_copied(files: tuple[int, int]) -> None:
    """What was appended since is left out, and a source that shrank gives a target of the wanted size."""
    source, target = files
    os.write(source, b"wanted and appended")
    copy(source, target, 6)
    assert whole(target) == b"wanted"
    os.ftruncate(source, 3)
    os.ftruncate(target, 0)
    copy(source, target, 6)
    assert whole(target) == b"wan\0\0\0"


def test_a_copy_can_be_broken_off(files: tuple[int, int]) -> None:
    """What is called between pieces ends the copy by raising."""
    source, target = files
    os.write(source, b"data")
    with pytest.raises(InterruptedError):
        copy(source, target, 4, _interrupt)


def _interrupt() -> None:
    raise InterruptedError


def test_a_quiet_file_is_copied_with_its_stamp(files: tuple[int, int]) -> None:
    """The stamp returned is that of the source at the moment of the copy."""
    source, target = files
    os.write(source, b"data")
    assert copy_frozen(source, target, b"name") == stamp(source)
    assert whole(target) == b"data"
    data, found = read_frozen(source, b"name")
    assert (data, found.st_size) == (b"data", 4)


class Writer:
    """Changes a file without end, in a thread."""

    def __init__(self, path: Path, change: str) -> None:
        self._file = path.open("r+b", buffering=0)
        self._size = path.stat().st_size
        self._change = change
        self._stop = threading.Event()
        self.turned = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.turned.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            if self._change == "grow":
                os.pwrite(self._file.fileno(), b"more", self._size + 4 * (turn % 1000))
            else:
                os.pwrite(self._file.fileno(), bytes([turn % 256]) * self._size, 0)
            self.turned.set()


@pytest.mark.parametrize("read", [True, False], ids=["read", "copy"])
def test_a_file_that_grows_is_frozen_as_it_was(tmp_path: Path, files: tuple[int, int], read: bool) -> None:
    """A log that another thread appends to gives its bytes of one moment, a true beginning of the file."""
    source, target = files
    os.write(source, b"line\n" * 10_000)
    with Writer(tmp_path / "source", "grow"):
        for _ in range(20):
            if read:
                data, _ = read_frozen(source, b"log")
            else:
                copy_frozen(source, target, b"log")
                data = whole(target)
            assert data[:50_000] == b"line\n" * 10_000
            assert set(data[50_000:]) <= set(b"more\0")


def is_a_moment(data: bytes) -> bool:
    """Tell whether a file that is rewritten from front to back, each time with the next byte, was ever so."""
    changes = [(before, after) for before, after in itertools.pairwise(data[::4096]) if before != after]
    return not changes or changes == [(before, (before - 1) % 256) for before, _ in changes[:1]]


@pytest.mark.parametrize("read", [True, False], ids=["read", "copy"])
def test_a_file_that_never_holds_still_is_frozen_as_it_once_was(
    tmp_path: Path, files: tuple[int, int], read: bool
) -> None:
    """A file rewritten without end is refused, or frozen as it was at one moment, never a mix of moments."""
    source, target = files
    os.write(source, bytes(MIB))
    with Writer(tmp_path / "source", "rewrite"):
        for _ in range(20):
            try:
                if read:
                    data, _ = read_frozen(source, b"hot")
                else:
                    copy_frozen(source, target, b"hot")
                    data = whole(target)
            except UnstableSourceError:
                continue
            assert len(data) == MIB
            assert is_a_moment(data)


def test_everything_is_written_whatever_a_call_takes() -> None:
    """A pipe that takes little at a time gets all of it."""
    reading, writing = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        while piece := os.read(reading, 1 << 16):
            got.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    data = os.urandom(MIB)
    write_all(writing, data)
    os.close(writing)
    thread.join()
    os.close(reading)
    assert b"".join(got) == data
