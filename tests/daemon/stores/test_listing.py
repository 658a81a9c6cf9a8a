"""What a directory store lists, and when it need not look again."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dropoffd.stores.base import Bytes, Folder, Overwrite, RefusedError, ignore_progress
from dropoffd.stores.directory import listing
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what lets a minute pass: from then on no change is recent."""
    passed = 0

    def wait() -> None:
        nonlocal passed
        passed += 60 * 10**9

    monkeypatch.setattr(listing, "time_ns", lambda: time.time_ns() + passed)
    return wait


async def put(store: DirectoryStore, *keys: str) -> None:
    """Store empty objects."""
    for key in keys:
        await store.put(key, Bytes(b"", hashlib.sha256().hexdigest()), Overwrite(), ignore_progress)


async def look(store: DirectoryStore, known: dict[str, str]) -> dict[str, list[str] | None]:
    """Return the names that are told of each folder, and take note of the etags."""
    told = [folder async for folder in store.changes("p/", known)]
    known.clear()
    known.update((folder.prefix, folder.etag) for folder in told)

    def names(folder: Folder) -> list[str] | None:
        return None if folder.objects is None else sorted(os.path.basename(stat.key) for stat in folder.objects)

    return {folder.prefix: names(folder) for folder in told}


async def test_a_folder_that_rests_is_not_looked_into_again(tmp_path: Path, later: Callable[[], None]) -> None:
    """Its objects are told once; after a change they are told again, but not those of other folders."""
    store, known = DirectoryStore(str(tmp_path)), dict[str, str]()
    await put(store, "p/a/1", "p/a/b/2", "p/c/3")
    later()
    assert await look(store, known) == {"p/": [], "p/a/": ["1"], "p/a/b/": ["2"], "p/c/": ["3"]}
    assert await look(store, known) == {"p/": None, "p/a/": None, "p/a/b/": None, "p/c/": None}
    await put(store, "p/a/b/4")
    later()
    assert await look(store, known) == {"p/": None, "p/a/": None, "p/a/b/": ["2", "4"], "p/c/": None}
    await store.delete("p/c/3")
    await put(store, "p/d/5")
    later()
    assert await look(store, known) == {"p/": [], "p/a/": None, "p/a/b/": None, "p/c/": [], "p/d/": ["5"]}
    os.unlink(tmp_path / "p/d/5")
    os.rmdir(tmp_path / "p/d")
    assert await look(store, known) == {"p/": [], "p/a/": None, "p/a/b/": None, "p/c/": None}


async def test_a_folder_that_just_changed_is_looked_into_again(tmp_path: Path, later: Callable[[], None]) -> None:
    """As long as the clock may not have moved on since, another change could look the same."""
    store, known = DirectoryStore(str(tmp_path)), dict[str, str]()
    await put(store, "p/1")
    for _ in range(2):
        assert await look(store, known) == {"p/": ["1"]}
    later()
    assert await look(store, known) == {"p/": ["1"]}
    assert await look(store, known) == {"p/": None}


async def test_what_cannot_be_looked_into_is_an_error(tmp_path: Path) -> None:
    """A listing is whole or none: what is missing from it might be removed for that."""
    store = DirectoryStore(str(tmp_path))
    await put(store, "p/1")
    os.symlink("loop", tmp_path / "p/loop")
    with pytest.raises(RefusedError, match=r"unable to use the store .*p/loop") as caught:
        _ = [stat async for stat in store.list("p/")]
    assert "remove this link" in caught.value.hint
    with pytest.raises(RefusedError, match=r"unable to use the store .*p/loop"):
        _ = [folder async for folder in store.changes("p/", {})]


async def test_folders_behind_links_are_listed(tmp_path: Path) -> None:
    """Who moved a part of the store to another disk and left a link has all of it listed, as it is read."""
    store = DirectoryStore(str(tmp_path / "store"))
    await put(store, "p/a/1", "p/b/2")
    os.rename(tmp_path / "store/p/b", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "store/p/b")
    assert [stat.key async for stat in store.list("p/")] == ["p/a/1", "p/b/2"]
    assert [stat.key async for stat in store.list("p/b/")] == ["p/b/2"]
    assert (await look(store, {}))["p/b/"] == ["2"]
