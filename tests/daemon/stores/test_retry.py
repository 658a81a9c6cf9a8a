"""The wrapper that tries again: against a true directory whose faults are scripted."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.making import FakeClock, Fault, FaultyStore
from dropoffd.stores.base import (
    AlreadyExistsError,
    Bytes,
    CorruptError,
    Create,
    DeniedError,
    NotFoundError,
    Overwrite,
    RefusedError,
    Replace,
    ThrottledError,
    UnavailableError,
    ignore_progress,
)
from dropoffd.stores.conformance import tools as suite
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.retry import TRIES, RetryingStore

pytestmark = pytest.mark.anyio

Make = Callable[..., tuple[RetryingStore, FaultyStore, FakeClock]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a maker of a retrying store on a directory with scripted faults."""

    def made(*faults: Fault) -> tuple[RetryingStore, FaultyStore, FakeClock]:
        clock = FakeClock()
        faulty = FaultyStore(DirectoryStore(str(tmp_path)), faults)
        return RetryingStore(faulty, clock), faulty, clock

    return made


def away() -> UnavailableError:
    """Return what a store raises that cannot now."""
    return UnavailableError("unable to use the store: it is away")


@pytest.mark.parametrize("operation", ["put", "get", "stat"])
async def test_a_store_that_stumbles_is_tried_again(make: Make, operation: str) -> None:
    """Each operation succeeds after two failures, with short growing pauses, and every fault was met."""
    store, faulty, clock = make(*(Fault(operation, away()) for _ in range(TRIES - 1)))
    await faulty.inner.put("object", suite.body(b"old"), Overwrite(), ignore_progress)
    if operation == "put":
        assert (await suite.put(store, "object", b"new", Overwrite())).size_bytes == 3
    elif operation == "get":
        assert await store.get("object", 1) == b"ld"
    else:
        assert (await store.stat("object")).sha256 == suite.sha256(b"old")
    assert not faulty.script
    assert faulty.calls == [operation] * TRIES
    assert len(clock.slept) == TRIES - 1
    assert all(0 <= pause <= 2 for pause in clock.slept)


async def test_a_removal_that_may_be_done_is_not_tried_again(make: Make) -> None:
    """A delete that the store put off is tried again; one whose answer was lost is not."""
    store, faulty, _ = make(Fault("delete", ThrottledError("slow down")), Fault("delete", away(), after=True))
    await faulty.inner.put("object", suite.body(b"old"), Overwrite(), ignore_progress)
    with pytest.raises(UnavailableError, match="it is away"):
        await store.delete("object")
    assert await suite.keys(store, "o") == []
    assert (faulty.calls, faulty.script) == (["delete", "delete"], deque())


async def test_a_store_that_stays_away_is_the_schedulers(make: Make) -> None:
    """After the last try the store's own error comes through, and the pauses were short."""
    store, faulty, clock = make(*(Fault("stat", away()) for _ in range(TRIES)))
    with pytest.raises(UnavailableError, match="it is away"):
        await store.stat("object")
    assert not faulty.script
    assert clock.seconds < 5


@pytest.mark.parametrize("kind", [DeniedError, RefusedError, CorruptError, NotFoundError])
async def test_what_will_not_change_is_not_tried_again(make: Make, kind: type[Exception]) -> None:
    """Only a store that cannot now is asked twice."""
    store, faulty, clock = make(Fault("put", kind("unable to do this")))
    with pytest.raises(kind):
        await suite.put(store, "object", b"bytes")
    assert (faulty.calls, clock.slept) == (["put"], [])


async def test_a_lost_answer_is_no_conflict(make: Make) -> None:
    """A create that took effect although its answer was lost succeeds at the second try."""
    store, faulty, _ = make(Fault("put", away(), after=True))
    found = await suite.put(store, "object", b"bytes")
    assert suite.timeless(found) == await suite.what_is_there(faulty.inner, "object")
    assert not faulty.script


async def test_somebody_elses_object_is_a_conflict(make: Make) -> None:
    """A create that finds another content after a failure raises AlreadyExistsError, and leaves it alone."""
    store, faulty, _ = make(Fault("put", away()))
    await faulty.inner.put("object", suite.body(b"theirs"), Create(), ignore_progress)
    with pytest.raises(AlreadyExistsError):
        await suite.put(store, "object", b"ours")
    assert await store.get("object") == b"theirs"
    assert not faulty.script


async def test_the_first_try_of_a_create_takes_nothing_for_its_own(make: Make) -> None:
    """An object that was there before, though the same, raises AlreadyExistsError: the caller decides."""
    store, faulty, _ = make()
    await suite.put(store, "object", b"same")
    with pytest.raises(AlreadyExistsError):
        await suite.put(store, "object", b"same")
    assert faulty.calls == ["put", "put"]


async def test_a_lost_answer_to_a_replacement_is_no_conflict(make: Make) -> None:
    """A replacement that took effect although its answer was lost succeeds at the second try."""
    store, faulty, _ = make()
    first = await suite.put(store, "object", b"first")
    faulty.script.append(Fault("put", away(), after=True))
    found = await suite.put(store, "object", b"second", Replace(first.etag))
    assert suite.timeless(found) == await suite.what_is_there(faulty.inner, "object")
    assert await store.get("object") == b"second"


async def test_a_lost_answer_and_a_stumble_after_it(make: Make) -> None:
    """The look at what the lost answer was about may stumble, too."""
    store, faulty, _ = make(Fault("put", away(), after=True), Fault("put", away()))
    assert (await suite.put(store, "object", b"bytes")).size_bytes == 5
    assert not faulty.script


async def test_each_try_sends_the_whole_body(make: Make) -> None:
    """A body is read from its beginning at every try."""
    store, faulty, _ = make(Fault("put", away(), after=True))
    read: list[int] = []

    class Watched(Bytes):
        def read(self, size: int, offset: int) -> bytes:
            read.append(offset)
            return super().read(size, offset)

    await store.put("object", Watched(b"bytes", suite.sha256(b"bytes")), Overwrite(), ignore_progress)
    assert read == [0, 0]
    assert not faulty.script
