"""Garbage: what is named stays, what nothing names goes, and who is about to name something is seen."""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from dropoff.answers import Collected
from dropoff.errors import RefusedError
from dropoff.questions import Find, Subject
from dropoff.records import Claim, Entry, Manifest, Record, Sweep, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import claimed
from dropoffd.catalogue.newest import newest_version
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.errors import VanishedError
from dropoffd.index.index import Indexes
from dropoffd.removing import Removal
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
        self.store: DirectoryStore = DirectoryStore(str(root))

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

    async def claim(self, number: int, *named: str, hours: float = 0) -> str:
        """Claim objects for a job."""
        claim = Claim(job=job_id(number), keys=named, created=f"{time.time()}")
        return await self.put(keys.claim_key("cv", job_id(number)), encode(claim), hours=hours)

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
    claim = await shelf.claim(1, content)
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
    claim = shelf.root / keys.claim_key("cv", job_id(1))
    async with claimed(shelf.store, "cv", job_id(1), {content}, time.time()):
        assert claim.exists()
    # A collection that takes its time may have read what names objects before.
    assert claim.exists()
    (shelf.root / sweep).unlink()
    async with claimed(shelf.store, "cv", job_id(1), {content}, time.time()):
        assert claim.exists()
    assert not claim.exists()


async def test_what_is_gone_is_told(shelf: Shelf) -> None:
    """Objects that are not there any more are named, so that they are sent again."""
    content = await shelf.content("a")
    with pytest.raises(VanishedError) as told:
        async with claimed(shelf.store, "cv", job_id(1), {content, "cv/files/gone"}, time.time()):
            pytest.fail("it was named all the same")
    assert told.value.keys == {"cv/files/gone"}


class Meddling(DirectoryStore):
    """A store in which things happen right before, or after, something is asked of it."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}

    async def _happen(self, all_of_it: dict[str, Callable[[], Awaitable[None]]], key: str) -> None:
        if key in all_of_it:
            await all_of_it.pop(key)()

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return some of an object, once what is to happen before has happened."""
        await self._happen(self.before, key)
        return await super().get(key, start, end)

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Put; a sweep that names something is known as `sweep`."""
        sweeps = key.startswith("cv/sweeps/") and b"cv/files" in body.read(body.size_bytes, 0)
        await self._happen(self.before, "sweep" if sweeps else key)
        stat = await super().put(key, body, mode, progress)
        await self._happen(self.after, "sweep" if sweeps else key)
        return stat


class Meddled(Shelf):
    """A store that is filled by hand while it is looked at."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.store: Meddling = Meddling(str(root))


@pytest.fixture
def meddled(tmp_path: Path) -> Meddled:
    """Return an empty store."""
    return Meddled(tmp_path)


async def test_a_claim_and_a_new_object_after_the_announcement_are_seen(meddled: Meddled) -> None:
    """What is claimed, or stored anew, after the marking and before the removal stays."""
    first, second, third = [await meddled.content(name) for name in ("a", "b", "c")]

    async def meddle() -> None:
        await meddled.claim(1, first)
        await meddled.put(second, b"content")

    meddled.store.after["sweep"] = meddle
    done = await meddled.collect()
    assert (done.garbage, done.removed) == (3, 1)
    assert meddled.contents == {first, second}
    assert third not in meddled.contents


async def test_what_is_named_between_the_marking_and_the_announcement_stays(meddled: Meddled) -> None:
    """A delivery that began and ended after a collection had read what names objects loses nothing by it."""
    content = await meddled.content("a")

    async def deliver() -> None:
        async with claimed(meddled.store, "cv", job_id(1), {content}, time.time()):
            await meddled.record(1, content)

    meddled.store.before["sweep"] = deliver
    assert ((await meddled.collect()).removed, meddled.contents) == (0, {content})


async def test_a_claim_that_is_made_again_counts_anew(meddled: Meddled) -> None:
    """A second try of a job claims more under the same key: what it claims then stays, and so does the claim."""
    first, second = [await meddled.content(name) for name in ("a", "b")]
    await meddled.claim(1, first)
    await meddled.claim(2, hours=25)

    async def again() -> None:
        await meddled.claim(1, first, second)
        await meddled.claim(2, "something")

    meddled.store.before["sweep"] = again
    assert ((await meddled.collect()).removed, meddled.contents) == (0, {first, second})
    assert len(list(meddled.root.glob("cv/claims/*"))) == 2


@pytest.mark.parametrize("moved", ["removed", "finished"])
async def test_what_names_content_may_move_meanwhile(meddled: Meddled, moved: str) -> None:
    """A version that is removed, or made of contributions, right before it would have been read names its content."""
    content = await meddled.content("a")
    version, removed = keys.version_key("cv", "cats", 0), keys.removed_key("cv", "cats", 0)
    contribution = keys.contribution_key("cv", "cats", "group", "writer", job_id(1))
    before, after = (version, removed) if moved == "removed" else (contribution, version)
    await meddled.put(before, manifest(0, content))

    async def move() -> None:
        await meddled.put(after, manifest(0, content))
        await meddled.store.delete(before)

    meddled.store.before[before] = move
    assert ((await meddled.collect()).removed, meddled.contents) == (0, {content})


async def test_two_collections_leave_each_others_objects_alone(meddled: Meddled) -> None:
    """What another collection has announced is its own to remove; what it announced long ago is not."""
    content = await meddled.content("a")
    other = await meddled.put(keys.sweep_key("cv", job_id(7)), encode(Sweep(keys=(content,), created="")))
    assert ((await meddled.collect()).removed, meddled.contents) == (0, {content})
    meddled.age(other, 2)
    assert ((await meddled.collect()).removed, meddled.contents) == (1, set())
    meddled.age(other, 25)
    await meddled.collect()
    assert not (meddled.root / other).exists()


class Sleeping(SystemClock):
    """The clock of a machine that slept: the seconds that it was up tell nothing of that."""

    slept_seconds = 0.0

    def now(self) -> float:
        """Return the time of day."""
        return super().now() + self.slept_seconds


async def test_who_slept_in_the_midst_of_a_sweep_removes_nothing(meddled: Meddled) -> None:
    """A machine that slept until nobody respects its sweep any more gives up; the sweep stays announced."""
    content, clock = await meddled.content("a"), Sleeping()

    async def sleep() -> None:
        clock.slept_seconds = 2 * HOUR

    meddled.store.after["sweep"] = sleep
    with pytest.raises(UnavailableError, match="too slow"):
        await Collector(meddled.store, "cv", GRACE, clock).run(apply=True)
    assert meddled.contents == {content}
    assert len(list(meddled.root.glob("cv/sweeps/*"))) == 1


class Timeless(DirectoryStore):
    """A store that does not tell when objects were stored: in listings, or at all."""

    tells = False

    async def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix."""
        async for stat in super().list(prefix):
            yield msgspec.structs.replace(stat, modified_at=0.0)

    async def stat(self, key: str) -> Stat:
        """Return what is under a key."""
        stat = await super().stat(key)
        return stat if self.tells else msgspec.structs.replace(stat, modified_at=0.0)


async def test_what_is_of_no_known_age_is_no_garbage(shelf: Shelf) -> None:
    """Of a store that does not tell when objects were stored nothing is removed, and its sweeps count."""
    content = await shelf.content("a")
    shelf.store = store = Timeless(str(shelf.root))
    with pytest.raises(RefusedError, match="does not tell"):
        await shelf.collect()
    store.tells = True
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {content})
    await shelf.put(keys.sweep_key("cv", job_id(7)), encode(Sweep(keys=(content,), created="")))
    with pytest.raises(UnavailableError, match="garbage"):
        async with claimed(store, "cv", job_id(1), {content}, time.time()):
            pytest.fail("it was named all the same")


async def test_a_claim_may_be_as_large_as_a_manifest(shelf: Shelf) -> None:
    """A delivery of many files that the store has holds up no collection."""
    content = await shelf.content("a")
    await shelf.claim(1, content, *(f"cv/files/{number:0200}" for number in range(25_000)))
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {content})


async def test_what_is_removed_stays_for_the_grace(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a run saved, and a version whose removal was interrupted long ago, is garbage a grace after that."""
    saved, held = [await shelf.content(name) for name in ("a", "b")]
    await shelf.record(1, saved)
    await shelf.put(keys.version_key("cv", "cats", 3), manifest(3, held))
    removed = await shelf.put(keys.removed_key("cv", "cats", 3), manifest(3, held), hours=25)
    indexes = Indexes(str(tmp_path_factory.mktemp("cache")))
    (version,) = (await indexes.find(shelf.store, Find(store=shelf.store.url, subject=Subject.VERSION))).versions
    removal = Removal(shelf.store, "cv", SystemClock())
    await removal.add_run("run")
    await removal.add_version(version, "test")
    await removal.run(apply=True)
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {saved, held})
    # Its number is not given out again, although nobody had come so far as to let `latest` stand for it.
    assert (await newest_version(shelf.store, "cv", "cats")).number == 3
    for path in (removed, *(str(one.relative_to(shelf.root)) for one in shelf.root.glob("cv/claims/*"))):
        shelf.age(path, 25)
    assert ((await shelf.collect()).removed, shelf.contents) == (2, set())
