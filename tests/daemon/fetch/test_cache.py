"""The cache: bounded, and nobody's to rely on."""

import hashlib
import os
from pathlib import Path

import pytest

from dropoffd.fetch.cache import Cache


def admit(cache: Cache, data: bytes, used: float | None = None) -> str:
    """Bring a content into the cache, last used at a time."""
    sha256 = hashlib.sha256(data).hexdigest()
    with cache.incoming() as incoming:
        cache.admit(sha256, incoming, incoming.write(data))
    if used is not None:
        os.utime(cache.path(sha256), ns=(int(used * 10**9), os.stat(cache.path(sha256)).st_mtime_ns))
    return sha256


def bytes_below(path: Path) -> int:
    """Return the space that files below take, each once."""
    return sum({one.stat().st_ino: one.stat().st_size for one in path.rglob("*") if one.is_file()}.values())


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    """Over the bound contents go, oldest use first, until there is some room again."""
    cache = Cache(str(tmp_path), 1000)
    contents = [admit(cache, bytes([n]) * 300, used=n) for n in range(1, 6)]
    assert cache.find(contents[0], 300)  # a use like any other
    cache.trim()
    left = [bool(cache.find(sha256, 300)) for sha256 in contents]
    assert left == [True, False, False, True, True]
    cache.trim()
    assert [bool(cache.find(sha256, 300)) for sha256 in contents] == left


def test_a_tree_keeps_its_contents_and_goes_with_them(tmp_path: Path) -> None:
    """Space is counted once, whatever names it has; a content in a tree goes with the tree."""
    cache = Cache(str(tmp_path), 1000)
    old, shared = admit(cache, b"a" * 400, used=1), admit(cache, b"b" * 400, used=2)
    for name, contents in (("1", [old, shared]), ("2", [shared])):
        tree = cache.tree(name, [(sha256[:4].encode(), sha256) for sha256 in contents])
        os.utime(tree, (int(name), int(name)))
    cache.trim()
    assert cache.find(old, 400)
    os.utime(cache.path(old), ns=(10**9, os.stat(cache.path(old)).st_mtime_ns))
    admit(cache, b"c" * 400, used=100)
    cache.trim()
    assert bytes_below(tmp_path) <= 1000
    assert not (tmp_path / "fetched/trees/1").exists()
    assert (tmp_path / "fetched/trees/2").exists()


def test_another_process_counts_what_is_there(tmp_path: Path) -> None:
    """A cache that was filled before is within its bound, too."""
    for n in range(5):
        admit(Cache(str(tmp_path), 1 << 30), bytes([n]) * 300, used=n)
    Cache(str(tmp_path), 1000).trim()
    assert bytes_below(tmp_path) <= 1000


def test_a_content_that_was_written_to_is_not_given_out(tmp_path: Path) -> None:
    """What somebody changed in place, or cut, is not found any more."""
    cache = Cache(str(tmp_path), 1000)
    for change in (b"other", b"", b"longer than before"):
        sha256 = admit(cache, b"right")
        path = Path(cache.path(sha256))
        path.chmod(0o600)
        path.write_bytes(change)
        assert cache.find(sha256, 5) is None
        assert not path.exists()


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """Nobody else can put content there: a directory that is open to others is not used."""
    (tmp_path / "fetched").mkdir(mode=0o755)
    with pytest.raises(PermissionError), Cache(str(tmp_path), 1000).incoming():
        pass
