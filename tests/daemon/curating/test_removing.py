"""Removing: what goes, in which order, and what is left so that nobody loses by it."""

from pathlib import Path

import pytest

from daemon.curating.shelf import Shelf, manifest
from dropoff.questions import Find, Role, Subject, VersionState
from dropoff.records import AliasRecord, LinkRecord, RunRecord, StateRecord, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.newest import newest_version
from dropoffd.clock import SystemClock
from dropoffd.index.index import Indexes
from dropoffd.removing import Removal
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Return an empty store."""
    return Shelf(tmp_path)


async def test_what_is_removed_stays_for_the_grace(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a run saved, and a version whose removal was interrupted long ago, is garbage a grace after that."""
    saved, held = [await shelf.content(name) for name in ("a", "b")]
    await shelf.record(1, saved)
    await shelf.put(keys.version_key("cv", "cats", 3), manifest(3, held))
    removed = await shelf.put(keys.removed_key("cv", "cats", 3), manifest(3, held), hours=25)
    state = await shelf.put(
        keys.state_key("cv", "cats", 3), encode(StateRecord(state=VersionState.DRAFT, changed=""))
    )
    await shelf.put(keys.alias_key("cv", "cats", "best"), encode(AliasRecord(version=3, changed="", job="")))
    indexes = Indexes(str(tmp_path_factory.mktemp("cache")))
    (version,) = (await indexes.find(shelf.store, Find(store=shelf.store.url, subject=Subject.VERSION))).versions
    removal = Removal(shelf.store, "cv", SystemClock())
    await removal.add_run("run")
    await removal.add_version(version, "test")
    # Moved since it was shown: it is another version's.
    await shelf.put(keys.alias_key("cv", "cats", "best"), encode(AliasRecord(version=2, changed="", job="")))
    await removal.run(apply=True)
    assert {path.name for path in (shelf.root / "cv/artifacts/cats").rglob("*.json")} == {
        "000003.json", "best.json", "latest.json",
    }  # fmt: skip
    assert not (shelf.root / state).exists()
    assert ((await shelf.collect()).removed, shelf.contents) == (0, {saved, held})
    # Its number is not given out again, although nobody had come so far as to let `latest` stand for it.
    assert (await newest_version(shelf.store, "cv", "cats")).number == 3
    for path in (removed, *(str(one.relative_to(shelf.root)) for one in shelf.root.glob("cv/claims/*"))):
        shelf.age(path, 25)
    assert ((await shelf.collect()).removed, shelf.contents) == (2, set())


class Interrupted(DirectoryStore):
    """A store that somebody pulls the plug of when a number of objects were deleted."""

    deletes = 0

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self.deletes -= 1
        if self.deletes < 0:
            raise InterruptedError
        await super().delete(key)


async def test_a_run_that_is_half_removed_is_found(shelf: Shelf) -> None:
    """A run's own record goes last: what was interrupted can be seen, and done again."""
    record = RunRecord(project="cv", run="run", created="", host="h", user="u")
    run = await shelf.put(f"{keys.run_prefix('cv', 'run')}run.json", encode(record))
    for number in range(3):
        await shelf.record(number, f"cv/files/{number}")
    shelf.store = store = Interrupted(str(shelf.root))
    for deletes in (2, 9):
        store.deletes = deletes
        removal = Removal(store, "cv", SystemClock())
        await removal.add_run("run")
        assert (shelf.root / run).exists()
        if deletes == 2:
            with pytest.raises(InterruptedError):
                await removal.run(apply=True)
        else:
            await removal.run(apply=True)
    assert not list(shelf.root.glob("cv/runs/**/*.json"))


async def test_a_damaged_link_keeps_no_run(shelf: Shelf) -> None:
    """A link that is no link is removed with its run, and the others at both of their ends."""
    inputs = keys.run_links_prefix("cv", "run", Role.INPUT)
    await shelf.put(f"{inputs}damaged.json", b"{")
    link = LinkRecord(
        role=Role.INPUT, run_project="cv", run="run", project="cv", artifact="cats", version=1, created=""
    )
    for key in keys.link_keys(link):
        await shelf.put(key, encode(link))
    removal = Removal(shelf.store, "cv", SystemClock())
    await removal.add_run("run")
    await removal.run(apply=True)
    assert not list(shelf.root.rglob("*.json"))
