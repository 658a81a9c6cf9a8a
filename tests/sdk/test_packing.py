"""Packs: ZIP files that any tool opens, and whose members are read by offset alone."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from dropoff.packing import PackWriter, new_file


def pack(path: Path, members: Sequence[tuple[bytes, bytes]]) -> list[int]:
    """Write a pack and return the members' offsets."""
    directory = os.open(path.parent, os.O_RDONLY)
    fd = new_file(directory, path.name)
    os.close(directory)
    writer = PackWriter(fd)
    offsets = [writer.add(name, data) for name, data in members]
    assert writer.members == len(members)
    assert writer.finish() == os.fstat(fd).st_size
    os.close(fd)
    return offsets


def test_a_pack_is_a_valid_zip(tmp_path: Path) -> None:
    """A stranger's ZIP reader finds every member, its bytes and no damage."""
    members = [(b"a", b""), (b"b/c", b"x" * 1000), ("\N{SNOWMAN}".encode(), os.urandom(1 << 20)), (b"x" * 255, b"1")]
    pack(tmp_path / "pack.zip", members)
    with zipfile.ZipFile(tmp_path / "pack.zip") as found:
        assert found.testzip() is None
        assert [(name.encode(), found.read(name)) for name in found.namelist()] == members
        assert {info.compress_type for info in found.infolist()} == {zipfile.ZIP_STORED}


def test_members_are_read_by_offset(tmp_path: Path) -> None:
    """A member's bytes lie in the pack from its offset on, uncompressed."""
    members = [(b"%d" % n, os.urandom(n * 37)) for n in range(50)]
    offsets = pack(tmp_path / "pack.zip", members)
    whole = (tmp_path / "pack.zip").read_bytes()
    assert [whole[at : at + len(data)] for at, (_, data) in zip(offsets, members, strict=True)] == [
        data for _, data in members
    ]


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536, 70_000])
def test_more_members_than_a_plain_zip_holds(tmp_path: Path, count: int) -> None:
    """At and beyond 65,535 members the pack is still one that readers open whole."""
    offsets = pack(tmp_path / "pack.zip", [(b"%d" % n, b"%d" % n) for n in range(count)])
    with zipfile.ZipFile(tmp_path / "pack.zip") as found:
        assert len(found.infolist()) == count
        assert found.read(str(count - 1)) == b"%d" % (count - 1)
        assert found.getinfo("7").header_offset < offsets[7]
        if count == 65_536:
            assert found.testzip() is None


def test_an_empty_pack_is_a_zip(tmp_path: Path) -> None:
    """A pack without members is an empty archive."""
    pack(tmp_path / "pack.zip", [])
    with zipfile.ZipFile(tmp_path / "pack.zip") as found:
        assert found.infolist() == []


def test_names_are_escaped(tmp_path: Path) -> None:
    """Names that are no text, or would play with a terminal, are readable in the archive."""
    pack(tmp_path / "pack.zip", [(b"\xff\n\x1b[31m", b"1")])
    with zipfile.ZipFile(tmp_path / "pack.zip") as found:
        assert found.namelist() == [r"\xff\n\x1b[31m"]


def test_equal_members_make_equal_packs(tmp_path: Path) -> None:
    """The same files make the same bytes, whenever and wherever."""
    for name in ("one", "two"):
        pack(tmp_path / name, [(b"a", b"1"), (b"b", b"2")])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """A pack is made anew or not at all, and only its owner can read it."""
    pack(tmp_path / "pack.zip", [])
    assert (tmp_path / "pack.zip").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        pack(tmp_path / "pack.zip", [])
