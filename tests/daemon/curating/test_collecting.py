"""Garbage: what is named stays, what nothing names goes, and who is about to name something is seen."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from dropoff.answers import Collected
from dropoff.errors import RefusedError
from dropoff.records import Claim, Entry, Manifest, Record, Sweep, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import claimed
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.errors import VanishedError
from dropoffd.stores.base import Body, Bytes, Mode, Overwrite, Progress, Stat, UnavailableError, ignore_progress
from dropoffd.stores.directory.store import DirectoryStore

from dropoff.saves import Category, Kind  # isort: skip
from daemon.making import job_id  # isort: skip

pytestmark = pytest.mark.anyio

HOUR = 3600.0
GRACE = 24 * HOUR


class Shelf:
    """A store that is filled by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DirectoryStore(str(root))

    async def put(self, key: str, data: bytes = b"content", hours: float = 0) -> str:
        """Store an object so many hours ago."""
        await self.store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)
        self.age(key, hours)
        return key

    def age(self, key: str, hours: float) -> None:
        """Let an object have been stored so many hours ago."""
        moment = time.time() - hours * HOUR
        os.utime(self.root / key, (moment, moment))

    async def content(self, name: str, hours: float = 48) -> str:
        """Store a content so many hours ago."""
        return await self.put(f"cv/files/{name}", hours=hours)

    async def record(self, number: int, *named: str) -> None:
        """Store a record that names objects."""
        record = Record(
            job=job_id(number), project="cv", run="run", kind=Kind.FILE, name="a", category=Category.OUTPUT,
            created="", entries=entries(named),
        )  # fmt: skip
        await self.put(f"{keys.records_prefix('cv', 'run')}{record.job}.json", encode(record))

    async def collect(self, *, apply: bool = True, grace: float = GRACE) -> Collected:
        """Collect garbage."""
        return await Collector(self.store, "cv", grace, SystemClock()).run(apply=apply)

    @property
    def contents(self) -> set[str]:
        """The keys of content that is there."""
        return {str(path.relative_to(self.root)) for path in self.root.glob("cv/files/**/*") if path.is_file()}


def entries(named: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return entries that name objects."""
    return tuple(Entry(path=key, key=key, size=7, sha256="3" * 64, mode="0644", mtime="") for key in named)


def manifest(number: int, *named: str) -> bytes:
    """Return a manifest that names objects."""
    made = Manifest(
        project="cv", artifact="cats", type="dataset", version=number, digest="", size=7, created="",
        job=job_id(number), run="run", entries=entries(named),
    )  # fmt: skip
    return encode(made)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Return an empty store."""
    return Shelf(tmp_path)


async def test_only_what_is_old_and_named_by_nothing_goes(shelf: Shelf) -> None:
    """Content that a record or manifest names stays, young content stays, the rest goes, and nothing else does."""
    named, version, young, garbage = [await shelf.content(name) for name in ("a", "b", "c", "d")]
    shelf.age(young, 23)
    await shelf.record(1, named)
    await shelf.put(keys.version_key("cv", "cats", 0), manifest(0, version))
    await shelf.put("nlp/files/other", hours=48)
    planned = await shelf.collect(apply=False)
    assert (planned.kept, planned.garbage, planned.garbage_bytes, planned.removed) == (3, 1, 7, 0)
    assert shelf.contents == {named, version, young, garbage}
    done = await shelf.collect()
    assert (done.removed, done.removed_bytes) == (1, 7)
    assert shelf.contents == {named, version, young}
    assert (shelf.root / "nlp/files/other").exists()
    assert not list(shelf.root.glob("cv/sweeps/*"))


async def test_what_a_removed_version_named_stays_for_the_grace(shelf: Shelf) -> None:
    """A manifest of a removed version protects what it names as long as it is young; then both go."""
    content = await shelf.content("a")
    removed = await shelf.put(keys.removed_key("cv", "cats", 0), manifest(0, content), hours=23)
    assert (await shelf.collect()).removed == 0
    shelf.age(removed, 25)
    assert (await shelf.collect()).removed == 1
    assert not (shelf.root / removed).exists()


async def test_what_cannot_be_read_could_name_anything(shelf: Shelf) -> None:
    """With a record that nobody can read, garbage is counted, and nothing of it is removed."""
    content = await shelf.content("a")
    await shelf.put(f"{keys.records_prefix('cv', 'run')}{job_id(1)}.json", b"{")
    assert len((await shelf.collect(apply=False)).unreadable) == 1
    with pytest.raises(RefusedError, match="unable to collect"):
        await shelf.collect()
    assert shelf.contents == {content}


async def test_a_claim_protects_until_it_is_old(shelf: Shelf) -> None:
    """What a delivery has claimed is no garbage; a claim that was left behind is, once it is old."""
    content = await shelf.content("a")
    claim = await shelf.put(
        keys.claim_key("cv", job_id(1)), encode(Claim(job=job_id(1), keys=(content,), created=""))
    )
    assert (await shelf.collect()).removed == 0
    shelf.age(claim, 25)
    assert (await shelf.collect()).removed == 1
    assert not (shelf.root / claim).exists()


async def test_who_counts_on_what_is_being_removed_waits(shelf: Shelf) -> None:
    """A sweep that says it removes an object holds deliveries of it up, unless it is long dead."""
    content = await shelf.content("a")
    sweep = await shelf.put(keys.sweep_key("cv", job_id(7)), encode(Sweep(keys=(content,), created="")))
    with pytest.raises(UnavailableError, match="garbage"):
        async with claimed(shelf.store, "cv", job_id(1), {content}, time.time()):
            pytest.fail("it was named all the same")
    shelf.age(sweep, 2)
    async with claimed(shelf.store, "cv", job_id(1), {content}, time.time()):
        assert (shelf.root / keys.claim_key("cv", job_id(1))).exists()
    assert not (shelf.root / keys.claim_key("cv", job_id(1))).exists()


async def test_what_is_gone_is_told(shelf: Shelf) -> None:
    """Objects that are not there any more are named, so that they are sent again."""
    content = await shelf.content("a")
    with pytest.raises(VanishedError) as told:
        async with claimed(shelf.store, "cv", job_id(1), {content, "cv/files/gone"}, time.time()):
            pytest.fail("it was named all the same")
    assert told.value.keys == {"cv/files/gone"}


class Meddling(DirectoryStore):
    """A store in which something happens right after a sweep was announced."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.meanwhile = self._nothing

    async def _nothing(self) -> None:
        pass

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Put; after an announcement that names something, let it happen."""
        stat = await super().put(key, body, mode, progress)
        if key.startswith("cv/sweeps/") and b"cv/files" in body.read(body.size_bytes, 0):
            await self.meanwhile()
        return stat


async def test_a_claim_and_a_new_object_after_the_announcement_are_seen(tmp_path: Path) -> None:
    """What is claimed, or stored anew, after the marking and before the removal stays."""
    shelf = Shelf(tmp_path)
    store = shelf.store = Meddling(str(tmp_path))
    first, second, third = [await shelf.content(name) for name in ("a", "b", "c")]

    async def meddle() -> None:
        await shelf.put(keys.claim_key("cv", job_id(1)), encode(Claim(job=job_id(1), keys=(first,), created="")))
        await shelf.put(second, b"content")

    store.meanwhile = meddle
    done = await shelf.collect()
    assert (done.garbage, done.removed) == (3, 1)
    assert shelf.contents == {first, second}
    assert third not in shelf.contents
