"""Every store, bare and wrapped, held against the conformance suite, and what only a directory can get wrong."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dropoffd.clock import SystemClock
from dropoffd.stores.base import Create, DeniedError, Overwrite, RefusedError, Store, UnavailableError
from dropoffd.stores.conformance import CHECKS, Check, bodies, conditions, listing
from dropoffd.stores.conformance import tools as suite
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.retry import RetryingStore

pytestmark = pytest.mark.anyio

# A new provider or wrapper is one more line here.
STORES: dict[str, Callable[[Path], Store]] = {
    "directory": lambda root: DirectoryStore(str(root)),
    "directory-retrying": lambda root: RetryingStore(DirectoryStore(str(root)), SystemClock()),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return each store, empty."""
    return STORES[request.param](tmp_path / "store")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(store: Store, check: Check) -> None:
    """The store is what the interface says in this respect."""
    await check(store)


def files(root: Path) -> list[Path]:
    """Return every file below a directory, hidden ones included."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != "lock")


@pytest.mark.parametrize(
    "check",
    [
        bodies.bytes_that_are_not_their_digest_are_corrupt,
        bodies.a_body_that_ends_early_is_corrupt,
        bodies.a_body_that_fails_leaves_nothing,
        bodies.a_cancelled_put_leaves_nothing,
        conditions.replace_of_nothing_creates_nothing,
        listing.components_over_the_limit_are_refused,
    ],
    ids=lambda check: check.__name__,
)
async def test_a_directory_keeps_no_remains_of_what_failed(tmp_path: Path, check: Check) -> None:
    """After a put that failed there is no file at all, also none under a temporary name."""
    await check(DirectoryStore(str(tmp_path)))
    assert files(tmp_path) == []


async def test_remains_of_a_crash_are_not_listed(tmp_path: Path) -> None:
    """A temporary file that a killed daemon left is not an object, whatever the prefix."""
    store = DirectoryStore(str(tmp_path))
    await suite.put(store, "project/object", b"bytes")
    (tmp_path / ".incoming" / "0123").write_bytes(b"half")
    for prefix in ("", "p", "project/", ".", ".incoming"):
        assert await suite.keys(store, prefix) == (["project/object"] if "project/".startswith(prefix) else [])


async def test_a_listing_does_not_leave_the_root(tmp_path: Path) -> None:
    """A prefix that climbs or is absolute is refused, or yields nothing."""
    store = DirectoryStore(str(tmp_path / "store"))
    await suite.put(store, "object", b"bytes")
    (tmp_path / "outside").write_bytes(b"not the store's")
    for prefix in ("../", "../outside", f"{tmp_path}/"):
        with contextlib.suppress(RefusedError):
            assert await suite.keys(store, prefix) == []
            assert [folder async for folder in store.folders(prefix)] == []
            assert [folder async for folder in store.changes(prefix, {}) if folder.objects] == []


async def test_the_digest_of_a_file_without_its_attribute_is_computed(tmp_path: Path) -> None:
    """`stat` tells the sha256 also where the file system, or a copy by hand, kept no attribute."""
    store = DirectoryStore(str(tmp_path))
    (tmp_path / "object").write_bytes(b"by hand")
    assert (await store.stat("object")).sha256 == suite.sha256(b"by hand")


async def test_objects_are_plain_files_under_their_keys(tmp_path: Path) -> None:
    """A person finds each object as a file under its key, and only there."""
    store = DirectoryStore(str(tmp_path))
    await suite.put(store, "a/b/object", b"bytes")
    assert files(tmp_path) == [tmp_path / "a/b/object"]
    assert (tmp_path / "a/b/object").read_bytes() == b"bytes"


async def test_a_root_that_vanished_is_made_again(tmp_path: Path) -> None:
    """A store whose directory somebody removed while it was open takes objects again."""
    store = DirectoryStore(str(tmp_path / "store"))
    await suite.put(store, "a/one", b"one")
    shutil.rmtree(tmp_path / "store")
    await suite.put(store, "a/two", b"two")
    assert await suite.keys(store, "") == ["a/two"]


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in which not even root can write."""
    root = tmp_path / "immutable"
    root.mkdir()
    made = subprocess.run(["chattr", "+i", str(root)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"chattr +i is not possible here: {made.stderr.strip()}")
    yield root
    subprocess.run(["chattr", "-i", str(root)], check=True)


async def test_a_root_without_permission_is_denied_with_a_hint(immutable: Path) -> None:
    """A directory that may not be written to raises DeniedError that says what to do."""
    store = DirectoryStore(str(immutable))
    for mode in (Create(), Overwrite()):
        with pytest.raises(DeniedError, match="unable to use the store") as caught:
            await suite.put(store, "object", b"bytes", mode)
        assert str(immutable) in caught.value.hint


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of 1 MiB."""
    root = tmp_path / "small"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not possible here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", str(root)], check=True)


async def test_a_full_disk_is_unavailable(small: Path) -> None:
    """A disk without space raises UnavailableError, which is tried again, and keeps no remains."""
    store = DirectoryStore(str(small))
    with pytest.raises(UnavailableError):
        await suite.put(store, "object", bytes(2 << 20))
    assert files(small) == []
    await suite.put(store, "object", bytes(1000))
