"""What writers tell each other who make a version together, where they come in each other's way."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from daemon.making import job_id
from dropoff.records import Entry, Manifest, encode
from dropoff.saves import Group
from dropoffd.catalogue import groups, keys
from dropoffd.catalogue.publish import create
from dropoffd.stores.base import (
    Body,
    CorruptError,
    Mode,
    NotFoundError,
    Progress,
    RefusedError,
    Stat,
    UnavailableError,
)
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio

DAY = 86400.0


class Meddling(DirectoryStore):
    """A store in which something happens right before an object is put."""

    before: tuple[str, Callable[[], Awaitable[object]]] | None = None

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Put."""
        if self.before is not None and self.before[0] == key:
            happens, self.before = self.before[1], None
            await happens()
        return await super().put(key, body, mode, progress)


def says(number: int, *, kind: str = "dataset") -> Manifest:
    """Return what a call says, the later the higher its number, with one file."""
    named = Entry(path=f"{number}", key=f"cv/files/{number}", size=1, sha256="3" * 64, mode="0644", mtime="")
    return Manifest(
        project="cv", artifact="cats", type=kind, version=0, digest="", size=1, created=f"2026-11-26T08:0{number}Z",
        job=job_id(number), run="run", entries=(named,),
    )  # fmt: skip


def by(writer: str) -> Group:
    """Return the group as a writer has it."""
    return Group(name="g", writer=writer)


FINISHES = Group(name="g", finish=True)


@pytest.fixture
def store(tmp_path: Path) -> Meddling:
    """Return an empty store."""
    return Meddling(str(tmp_path))


def paths(finished: groups.Finished) -> list[str]:
    """Return what a group's version holds."""
    return [entry.path for entry in finished.manifest.entries]


async def test_what_comes_too_late_takes_nothing_away(store: Meddling) -> None:
    """A writer that contributes again while the group is being finished is refused; what it brought before counts."""
    await groups.contribute(store, by("w"), says(1))

    async def again() -> None:
        with pytest.raises(UnavailableError):
            await groups.contribute(store, by("w"), says(2))

    store.before = (keys.finished_key("cv", "cats", "g"), again)
    assert paths(await groups.finish(store, FINISHES, says(3), 0)) == ["1"]
    with pytest.raises(RefusedError, match="finished without this"):
        await groups.contribute(store, by("w"), says(2))
    assert paths(await groups.finish(store, FINISHES, says(4), 0)) == ["1"]
    assert len([stat async for stat in store.list(keys.contributions_prefix("cv", "cats", "g"))]) == 1


async def test_the_last_that_a_writer_brings_counts(store: Meddling) -> None:
    """Whatever is stored last: and all of it goes once the version is there."""
    for number in (2, 1):
        await groups.contribute(store, by("w"), says(number))
    finished = await groups.finish(store, FINISHES, says(3), 0)
    assert paths(finished) == ["2"]
    await groups.clear(store, FINISHES, finished.manifest, 0)
    assert [stat async for stat in store.list(keys.contributions_prefix("cv", "cats", "g"))] == []


async def test_what_is_another_ones_is_not_taken_for_a_contribution(store: Meddling) -> None:
    """A contribution that says that it lies elsewhere is refused: nothing that it names is touched for its sake."""
    key = keys.contribution_key("cv", "cats", "g", "w", job_id(1))
    await create(store, key, encode(groups.contribution(by("x"), says(1))))
    with pytest.raises(CorruptError, match="moved it by hand"):
        await groups.finish(store, FINISHES, says(2), 0)


async def test_who_fails_to_finish_opens_nothing_that_others_closed(store: Meddling) -> None:
    """One that finishes a group in vain opens it again, but not for those whom another keeps out who finishes it."""

    async def in_vain() -> None:
        store.before = (keys.closed_key("cv", "cats", "g", job_id(2)), contributed)
        with pytest.raises(RefusedError, match="contributed to a 'model'"):
            await groups.finish(store, FINISHES, says(2), 0)
        with pytest.raises(UnavailableError):
            await groups.contribute(store, by("c"), says(4))

    async def contributed() -> None:
        with pytest.raises(UnavailableError):
            await groups.contribute(store, by("b"), says(1, kind="model"))

    await groups.contribute(store, by("a"), says(0))
    store.before = (keys.finished_key("cv", "cats", "g"), in_vain)
    assert paths(await groups.finish(store, FINISHES, says(3), 0)) == ["0"]


async def test_a_group_that_cannot_be_finished_is_open(store: Meddling) -> None:
    """What contradicts the rest can be put right by who brought it."""
    await groups.contribute(store, by("a"), says(1))

    async def contributed() -> None:
        await groups.contribute(store, by("b"), says(2, kind="model"))

    store.before = (keys.closed_key("cv", "cats", "g", job_id(3)), contributed)
    with pytest.raises(RefusedError, match="contributed to a 'model'"):
        await groups.finish(store, FINISHES, says(3), 0)
    await groups.contribute(store, by("b"), says(4))
    assert paths(await groups.finish(store, FINISHES, says(5), 0)) == ["1", "4"]


async def test_who_finishes_after_a_crash_finds_the_version(store: Meddling) -> None:
    """A version that was made, and not written down, is known by its job, whatever others made before it."""
    await groups.contribute(store, by("a"), says(1))
    made = (await groups.finish(store, FINISHES, says(2), 0)).manifest
    for number, one in enumerate((says(7), made)):
        await create(
            store, keys.version_key("cv", "cats", number), encode(msgspec.structs.replace(one, version=number))
        )
    assert (await groups.finish(store, FINISHES, says(3), 0)).number == 1


async def test_what_is_said_when_it_is_finished_comes_last(store: Meddling) -> None:
    """Of metadata under one key the finisher's counts, then the last contribution's."""
    for number in (1, 2):
        said = {"a": number, "b": number} if number == 1 else {"b": number, "c": number}
        await groups.contribute(store, by(f"{number}"), msgspec.structs.replace(says(number), metadata=said))
    finishes = msgspec.structs.replace(says(3), metadata={"c": 3})
    assert (await groups.finish(store, FINISHES, finishes, 0)).manifest.metadata == {"a": 1, "b": 2, "c": 3}


async def test_a_version_that_was_removed_is_not_made_again(store: Meddling) -> None:
    """Who finishes a group whose version was removed since is told so, and waits for nobody."""
    await groups.contribute(store, by("a"), says(1))
    finished = await groups.finish(store, FINISHES, says(2), 0)
    await groups.clear(store, FINISHES, finished.manifest, 0)
    with pytest.raises(NotFoundError):
        await store.stat(keys.contribution_key("cv", "cats", "g", "a", job_id(1)))
    with pytest.raises(RefusedError, match="v0 was removed"):
        await groups.finish(store, FINISHES, says(2), 0)


async def test_what_was_contributed_long_ago_is_made_sure_of(store: Meddling) -> None:
    """Contributions are waited for for a month: of what an old one names it is not sure that it is there."""
    key = await groups.contribute(store, by("a"), says(1))
    stored = (await store.stat(key)).modified_at
    assert (await groups.finish(store, FINISHES, says(2), stored + 60)).unproven == frozenset()
    assert (await groups.finish(store, FINISHES, says(2), stored + DAY)).unproven == {"cv/files/1"}
