"""Garbage: what is named stays, what nothing names goes, and who is about to name something is seen."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from daemon.curating.shelf import GRACE, HOUR, Shelf, manifest
from daemon.making import Fault, FaultyStore, job_id
from dropoff.errors import RefusedError
from dropoff.records import Sweep, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import claimed
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.errors import VanishedError
from dropoffd.stores.base import Body, Mode, Progress, Stat, UnavailableError, Upload
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio


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


async def test_a_claim_that_cannot_be_taken_back_fails_no_delivery(shelf: Shelf) -> None:
    """What was named is named: a store that does not answer then keeps the claim, and nothing is raised."""
    content = await shelf.content("a")
    store = FaultyStore(shelf.store, [Fault("stat", None), Fault("delete", UnavailableError("no answer"))])
    async with claimed(store, "cv", job_id(1), {content}, time.time()):
        pass
    assert not store.script
    assert (shelf.root / keys.claim_key("cv", job_id(1))).exists()


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

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await super().delete(key)
        await self._happen(self.after, f"delete {key}")


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


async def test_a_claim_that_is_taken_back_unaware_of_a_collection_counts(meddled: Meddled) -> None:
    """A delivery that found nobody collecting, and ended when one had begun to read what names objects, is safe."""
    content = await meddled.content("a")
    version = await meddled.put(keys.version_key("cv", "cats", 0), manifest(0))
    delivery = claimed(meddled.store, "cv", job_id(1), {content}, time.time())
    await delivery.__aenter__()

    async def end() -> None:
        await meddled.put(keys.version_key("cv", "cats", 1), manifest(1, content))
        await delivery.__aexit__(None, None, None)

    meddled.store.before[version] = end
    assert ((await meddled.collect()).removed, meddled.contents) == (0, {content})
    assert not list(meddled.root.glob("cv/claims/*"))


async def test_contributions_are_waited_for(shelf: Shelf) -> None:
    """What writers brought stays for a month, however short the grace, and goes then."""
    content = await shelf.content("a", hours=32 * 24)
    contribution = await shelf.put(
        keys.contribution_key("cv", "cats", "group", "writer", job_id(1)), manifest(0, content), hours=29 * 24
    )
    made = json.loads((shelf.root / contribution).read_bytes()) | {"group": "group", "writer": "writer"}
    await shelf.put(contribution, json.dumps(made).encode(), hours=29 * 24)
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {content})
    shelf.age(contribution, 31 * 24)
    assert ((await shelf.collect()).removed, shelf.contents) == (1, set())
    assert not (shelf.root / contribution).exists()


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


@pytest.mark.parametrize("anew", [False, True], ids=["gone", "stored anew"])
async def test_a_lost_answer_takes_nothing_that_came_since(meddled: Meddled, anew: bool) -> None:
    """After a removal that nobody answered the collection looks again: what was stored meanwhile stays."""
    content = await meddled.content("a")
    store = FaultyStore(meddled.store, [Fault("delete", UnavailableError("no answer"), after=True)])

    async def store_anew() -> None:
        await meddled.put(content, b"content")

    if anew:
        meddled.store.after[f"delete {content}"] = store_anew
    done = await Collector(store, "cv", GRACE, SystemClock()).run(apply=True)
    assert not store.script
    assert (done.removed, meddled.contents) == ((0, {content}) if anew else (1, set()))


async def test_what_another_collection_removed_is_not_counted(meddled: Meddled) -> None:
    """An object that is gone before this collection asks for its removal is somebody else's work."""
    content = await meddled.content("a")

    async def be_faster() -> None:
        (meddled.root / content).unlink()

    meddled.store.after["sweep"] = be_faster
    assert ((await meddled.collect()).removed, meddled.contents) == (0, set())


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
    done = await shelf.collect()
    assert (done.garbage, done.removed, shelf.contents) == (0, 0, {content})
    await shelf.put(keys.sweep_key("cv", job_id(7)), encode(Sweep(keys=(content,), created="")))
    with pytest.raises(UnavailableError, match="garbage"):
        async with claimed(store, "cv", job_id(1), {content}, time.time()):
            pytest.fail("it was named all the same")


async def test_a_claim_may_be_as_large_as_a_manifest(shelf: Shelf) -> None:
    """A delivery of many files that the store has holds up no collection."""
    content = await shelf.content("a")
    await shelf.claim(1, content, *(f"cv/files/{number:0200}" for number in range(25_000)))
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {content})


class Unfinished:
    """Uploads in parts that were begun so long ago, by their keys; those that were ended are gone."""

    def __init__(self, **days: float) -> None:
        self.begun_at = {
            f"cv/files/{key}": time.time() - age * 24 * HOUR if age else 0.0 for key, age in days.items()
        }

    async def uploads(self, prefix: str) -> AsyncIterator[Upload]:
        """Yield those below a prefix."""
        for key, begun_at in list(self.begun_at.items()):
            if key.startswith(prefix):
                yield Upload(key, "id", begun_at)

    async def abandon(self, key: str, _: str) -> None:
        """End one."""
        del self.begun_at[key]


async def test_uploads_that_nobody_finishes_are_ended(shelf: Shelf) -> None:
    """Those that were begun more than a week ago, and neither others nor those of which that is not known."""
    uploads = shelf.store.multipart = Unfinished(young=6, old=8, unknown=0)  # type: ignore[assignment]
    assert (await shelf.collect()).uploads == 1
    assert list(uploads.begun_at) == ["cv/files/young", "cv/files/unknown"]
