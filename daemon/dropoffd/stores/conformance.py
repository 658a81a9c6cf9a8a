# ruff: noqa: D401  # a check's docstring is what it claims, not what it does
"""What a store has to be: checks that run on every provider and every wrapper.

Each check is a coroutine that takes a store, works below a prefix of its own, and raises AssertionError where the
store is not what `dropoffd.stores.base` says. `dropoff doctor` runs them on a user's own bucket, the tests on every
server and every wrapper that we have.
"""

import asyncio
import hashlib
import secrets
import threading
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from dropoff.errors import UnstableSourceError
from dropoffd.stores.base import (
    AlreadyExistsError,
    Bytes,
    CorruptError,
    Create,
    Mode,
    NotFoundError,
    Overwrite,
    PreconditionFailedError,
    RefusedError,
    Replace,
    Stat,
    Store,
    UnavailableError,
    ignore_progress,
)

Check = Callable[[Store], Awaitable[None]]

CHECKS: list[Check] = []

WRITERS = 8
LARGE_BYTES = 32 << 20
NOWHERE = "0" * 64


def check(function: Check) -> Check:
    """Add a check to the suite."""
    CHECKS.append(function)
    return function


class OnDisk(Bytes):
    """A body of which nothing is in memory."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:  # noqa: ARG002  # the interface's
        """Have nothing."""
        return 0


class Failing(OnDisk):
    """A body that breaks after its first half."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, in small pieces, until half of all is read."""
        if offset >= self.size_bytes // 2:
            raise UnstableSourceError("unable to read the body: it breaks here")
        return super().read(min(size, 64 << 10), offset)


class Short(OnDisk):
    """A body that ends before its length."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, none beyond half of all."""
        return super().read(max(0, min(size, self.size_bytes // 2 - offset)), offset)


class Halting(OnDisk):
    """A body whose reading stands still at its half, once it is being sent, until it is let go."""

    def __init__(self, data: bytes, sha256: str) -> None:
        super().__init__(data, sha256)
        self.halted = asyncio.Event()
        self._sent = False
        self._loop = asyncio.get_running_loop()
        self._go = threading.Event()

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes, in small pieces, at the half when it may go on."""
        if self._sent and offset >= self.size_bytes // 2:
            self._loop.call_soon_threadsafe(self.halted.set)
            self._go.wait()
        return super().read(min(size, 64 << 10), offset)

    def progress(self, _: int) -> None:
        """Take note that it is being sent."""
        self._sent = True

    def let_go(self) -> None:
        """Let the reading go on."""
        self._go.set()


async def cancel_at_half(halting: Halting, attempt: Awaitable[object]) -> None:
    """Await the sending of a body until half of it is sent, and cancel that."""

    async def send() -> None:
        await attempt

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await halting.halted.wait()
        group.cancel_scope.cancel()
        halting.let_go()


def body(data: bytes) -> Bytes:
    """Return `data` as a body that is what it says."""
    return Bytes(data, sha256(data))


def sha256(data: bytes) -> str:
    """Return the digest of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def somewhere() -> str:
    """Return a prefix that nobody else uses."""
    return f"conformance/{secrets.token_hex(8)}"


async def put(store: Store, key: str, data: bytes, mode: Mode | None = None) -> Stat:
    """Store `data`, by default only if nothing is there."""
    return timeless(await store.put(key, body(data), mode or Create(), ignore_progress))


async def what_is_there(store: Store, key: str) -> Stat:
    """Return what `stat` tells, but for when it was stored, which an answer to `put` need not tell."""
    return timeless(await store.stat(key))


def timeless(stat: Stat) -> Stat:
    """Return it without when the object was stored."""
    return msgspec.structs.replace(stat, modified_at=0.0)


async def keys(store: Store, prefix: str) -> list[str]:
    """Return the keys below a prefix in the order of the listing."""
    return [found.key async for found in store.list(prefix)]


async def expect(kind: type[Exception], attempt: Awaitable[object]) -> None:
    """Await what must fail in just this way."""
    try:
        await attempt
    except kind:
        return
    raise AssertionError(f"nothing was raised where {kind.__name__} was due")


async def absent(store: Store, prefix: str) -> None:
    """Assert that nothing is visible below a prefix."""
    assert await keys(store, prefix) == []


@check
async def what_was_put_can_be_got(store: Store) -> None:
    """An object that was put has the bytes that were put."""
    key = f"{somewhere()}/object"
    await put(store, key, b"some bytes")
    assert await store.get(key) == b"some bytes"


@check
async def put_returns_what_the_store_has(store: Store) -> None:
    """The answer of `put` is what `stat` tells right after."""
    key = f"{somewhere()}/object"
    found = await put(store, key, b"some bytes")
    assert (found.key, found.size_bytes) == (key, 10)
    assert await what_is_there(store, key) == found


@check
async def stat_tells_size_and_digest(store: Store) -> None:
    """`stat` tells the key, the size and, if the store knows one, the right sha256; `head` what was noted of it."""
    key = f"{somewhere()}/object"
    await put(store, key, b"some bytes")
    found, noted = await store.stat(key), await store.head(key)
    assert (found.key, found.size_bytes) == (noted.key, noted.size_bytes) == (key, 10)
    assert {found.sha256, noted.sha256} <= {sha256(b"some bytes"), ""}
    assert found.sha256 or store.limits.verifies != "sha256"


@check
async def etags_tell_contents_apart(store: Store) -> None:
    """Another content has another etag, the same unchanged object the same."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"one")
    assert (await store.stat(key)).etag == first.etag
    second = await put(store, key, b"two", Overwrite())
    assert second.etag != first.etag


@check
async def an_empty_object_is_an_object(store: Store) -> None:
    """An object without bytes can be put, seen and read."""
    key = f"{somewhere()}/empty"
    found = await put(store, key, b"")
    assert found.size_bytes == 0
    assert await store.get(key) == b""
    assert await keys(store, key) == [key]


@check
async def a_large_object_arrives_whole(store: Store) -> None:
    """An object of many pieces has the size and digest of what was sent."""
    key = f"{somewhere()}/large"
    size = min(LARGE_BYTES, store.limits.single_max_bytes)
    data = secrets.token_bytes(1 << 20) * (size >> 20)
    found = await put(store, key, data)
    assert found.size_bytes == size
    assert found.sha256 in {sha256(data), ""}
    assert await store.get(key, size - 10) == data[-10:]


@check
async def progress_adds_up_to_the_size(store: Store) -> None:
    """The pieces that `progress` is told of are the object, no more and no less."""
    key = f"{somewhere()}/object"
    pieces: list[int] = []
    data = secrets.token_bytes((5 << 20) + 7)
    await store.put(key, body(data), Create(), pieces.append)
    assert sum(pieces) == len(data)
    assert min(pieces) > 0


@check
async def contents_may_look_like_answers(store: Store) -> None:
    """An object that reads like a store's error message is given back as it is."""
    key = f"{somewhere()}/object"
    data = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"
    await put(store, key, data)
    assert await store.get(key) == data
    assert await store.get(key, 21) == data[21:]


@check
async def ranges_can_be_read(store: Store) -> None:
    """Any part of an object can be read, and nothing beyond its end."""
    key = f"{somewhere()}/object"
    await put(store, key, b"0123456789")
    assert await store.get(key, 3) == b"3456789"
    assert await store.get(key, 3, 5) == b"34"
    assert await store.get(key, 0, 1) == b"0"
    assert await store.get(key, 8, 100) == b"89"
    assert await store.get(key, 5, 5) == b""


@check
async def ranges_are_received_where_they_are_wanted(store: Store) -> None:
    """A buffer is filled with any part of an object, as far as the object goes."""
    key = f"{somewhere()}/object"
    await put(store, key, b"0123456789")
    for start, size, wanted in (
        (0, 10, b"0123456789"),
        (3, 2, b"34"),
        (8, 5, b"89"),
        (10, 5, b""),
        (99, 1, b""),
        (5, 0, b""),
    ):
        buffer = bytearray(size)
        count = await store.read(key, start, memoryview(buffer))
        assert bytes(buffer[:count]) == wanted
    await expect(NotFoundError, store.read(f"{somewhere()}/nothing", 0, memoryview(bytearray(1))))


@check
async def reading_what_is_not_there_says_so(store: Store) -> None:
    """`get`, `stat` and `head` of a key that nobody put raise NotFoundError."""
    key = f"{somewhere()}/nothing"
    await expect(NotFoundError, store.get(key))
    await expect(NotFoundError, store.stat(key))
    await expect(NotFoundError, store.head(key))


@check
async def a_prefix_of_a_key_is_not_an_object(store: Store) -> None:
    """The beginning of an object's key, up to a slash, names nothing."""
    prefix = somewhere()
    await put(store, f"{prefix}/below/object", b"bytes")
    await expect(NotFoundError, store.stat(f"{prefix}/below"))
    await expect(NotFoundError, store.get(f"{prefix}/below"))


@check
async def below_an_object_there_is_nothing(store: Store) -> None:
    """A key that goes on where an object's key ends names nothing."""
    key = f"{somewhere()}/object"
    await put(store, key, b"bytes")
    await expect(NotFoundError, store.stat(f"{key}/below"))
    await expect(NotFoundError, store.get(f"{key}/below"))


@check
async def delete_removes(store: Store) -> None:
    """A deleted object is neither found nor listed, and its key is free again."""
    prefix = somewhere()
    await put(store, f"{prefix}/object", b"one")
    await store.delete(f"{prefix}/object")
    await expect(NotFoundError, store.stat(f"{prefix}/object"))
    await absent(store, prefix)
    await put(store, f"{prefix}/object", b"two")
    assert await store.get(f"{prefix}/object") == b"two"


@check
async def deleting_twice_is_fine(store: Store) -> None:
    """Deleting what is not there is no error."""
    key = f"{somewhere()}/object"
    await store.delete(key)
    await put(store, key, b"bytes")
    await store.delete(key)
    await store.delete(key)


@check
async def deleting_a_prefix_of_a_key_removes_nothing(store: Store) -> None:
    """Deleting the beginning of a key, or what would be below it, is no error and leaves the object alone."""
    prefix = somewhere()
    await put(store, f"{prefix}/below/object", b"bytes")
    await store.delete(f"{prefix}/below")
    await store.delete(f"{prefix}/below/object/further")
    assert await keys(store, prefix) == [f"{prefix}/below/object"]


@check
async def create_never_replaces(store: Store) -> None:
    """`Create` on a key that is taken raises AlreadyExistsError and changes nothing."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    await expect(AlreadyExistsError, put(store, key, b"second"))
    await expect(AlreadyExistsError, put(store, key, b"first"))
    assert await what_is_there(store, key) == first


@check
async def of_racing_creators_one_wins(store: Store) -> None:
    """Of several writers that create one key at once exactly one succeeds, and its bytes are there, whole."""
    if not store.limits.creates_atomically:
        return
    key = f"{somewhere()}/object"
    bodies = [secrets.token_bytes(100_000 + n) for n in range(WRITERS)]
    outcomes = await asyncio.gather(*(put(store, key, data) for data in bodies), return_exceptions=True)
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Stat)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExistsError)]
    assert (len(winners), len(losers)) == (1, WRITERS - 1)
    assert await store.get(key) == bodies[winners[0]]


@check
async def overwrite_replaces_and_creates(store: Store) -> None:
    """`Overwrite` stores whether or not there was an object, and the new one is all there is."""
    prefix = somewhere()
    await put(store, f"{prefix}/object", b"a longer first content", Overwrite())
    found = await put(store, f"{prefix}/object", b"second", Overwrite())
    assert await store.get(f"{prefix}/object") == b"second"
    assert found.sha256 in {sha256(b"second"), ""}
    assert await keys(store, prefix) == [f"{prefix}/object"]


@check
async def replace_with_the_right_etag_replaces(store: Store) -> None:
    """`Replace` that names the present etag stores, and the etag is another one then."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    second = await put(store, key, b"second", Replace(first.etag))
    assert await store.get(key) == b"second"
    assert second.etag != first.etag


@check
async def replace_with_an_old_etag_changes_nothing(store: Store) -> None:
    """`Replace` that names an etag of the past raises PreconditionFailedError, and the object is as it was."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    second = await put(store, key, b"second", Replace(first.etag))
    await expect(PreconditionFailedError, put(store, key, b"third", Replace(first.etag)))
    assert await what_is_there(store, key) == second


@check
async def replace_of_nothing_creates_nothing(store: Store) -> None:
    """`Replace` where no object is raises PreconditionFailedError and leaves none."""
    prefix = somewhere()
    await expect(PreconditionFailedError, put(store, f"{prefix}/object", b"bytes", Replace("an-etag")))
    await absent(store, prefix)


@check
async def of_racing_replacers_one_wins(store: Store) -> None:
    """Of several writers that replace the same etag at once exactly one succeeds."""
    if not store.limits.replaces_atomically:
        return
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    bodies = [f"second {n}".encode() for n in range(WRITERS)]
    outcomes = await asyncio.gather(
        *(put(store, key, data, Replace(first.etag)) for data in bodies), return_exceptions=True
    )
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Stat)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, PreconditionFailedError | UnavailableError)]
    assert (len(winners), len(losers)) == (1, WRITERS - 1)
    assert await store.get(key) == bodies[winners[0]]


@check
async def the_list_is_in_the_order_of_keys(store: Store) -> None:
    """A listing has every key below its prefix once, in the order of their bytes, with true sizes."""
    prefix = somewhere()
    names = ["b", "a/z", "a/b/c", "a.b", "a-b", "A", "a0", "c/d"]
    for size, name in enumerate(names):
        await put(store, f"{prefix}/{name}", b"x" * size)
    found = [(stat.key, stat.size_bytes) async for stat in store.list(f"{prefix}/")]
    assert found == sorted((f"{prefix}/{name}", size) for size, name in enumerate(names))


@check
async def a_prefix_need_not_end_at_a_slash(store: Store) -> None:
    """A prefix is the beginning of a text, not a folder."""
    prefix = somewhere()
    for name in ("run-1/a", "run-10/b", "run-2/c", "other"):
        await put(store, f"{prefix}/{name}", b"")
    assert await keys(store, f"{prefix}/run-1") == [f"{prefix}/run-1/a", f"{prefix}/run-10/b"]
    assert await keys(store, f"{prefix}/run-1/") == [f"{prefix}/run-1/a"]
    assert await keys(store, f"{prefix}/run-1/a") == [f"{prefix}/run-1/a"]
    assert await keys(store, f"{prefix}/nothing") == []


@check
async def folders_are_the_next_step_in_keys(store: Store) -> None:
    """What comes next in keys, up to a slash, is told once, in order, and without what lies directly there."""
    prefix = somewhere()
    for name in ("run-1/a", "run-1/deep/b", "run-2/c", "other/d", "direct"):
        await put(store, f"{prefix}/{name}", b"")
    runs = [f"{prefix}/run-1/", f"{prefix}/run-2/"]
    assert [one async for one in store.folders(f"{prefix}/")] == [f"{prefix}/other/", *runs]
    assert [one async for one in store.folders(f"{prefix}/run-")] == runs
    assert [one async for one in store.folders(f"{prefix}/direct/")] == []


@check
async def what_changed_is_told_by_folders(store: Store) -> None:
    """Followed by folders a store tells all that is there, and then all that came, went or was replaced."""
    prefix, here = somewhere(), dict[str, set[tuple[str, str]]]()
    known = dict[str, str]()

    async def follow() -> set[str]:
        told = [folder async for folder in store.changes(f"{prefix}/", known)]
        for gone in here.keys() - {folder.prefix for folder in told}:
            del here[gone]
        for folder in told:
            known[folder.prefix] = folder.etag
            if folder.objects is not None:
                here[folder.prefix] = {(stat.key, stat.etag) for stat in folder.objects}
        return {key for objects in here.values() for key, _ in objects}

    names = [f"{prefix}/{name}" for name in ("a/1", "a/2", "a/deep/3", "b/4", "5")]
    for name in names:
        await put(store, name, b"")
    assert await follow() == set(names)
    await put(store, f"{prefix}/a/deep/6", b"")
    await store.delete(f"{prefix}/b/4")
    await put(store, f"{prefix}/5", b"another", Overwrite())
    assert await follow() == {*names, f"{prefix}/a/deep/6"} - {f"{prefix}/b/4"}
    assert set.union(*here.values()) == {(stat.key, stat.etag) async for stat in store.list(f"{prefix}/")}


@check
async def it_is_told_when_an_object_was_stored(store: Store) -> None:
    """A look and a listing tell the same second, and a later object none that is earlier."""
    prefix = somewhere()
    await put(store, f"{prefix}/1", b"")
    await put(store, f"{prefix}/2", b"")
    looked = [int((await store.stat(f"{prefix}/{n}")).modified_at) for n in (1, 2)]
    listed = [int(stat.modified_at) async for stat in store.list(f"{prefix}/")]
    assert listed == looked
    assert 0 < looked[0] <= looked[1]


@check
async def the_whole_store_can_be_listed(store: Store) -> None:
    """The empty prefix lists objects and nothing that is the store's own."""
    prefix = somewhere()
    first = await put(store, f"{prefix}/object", b"first")
    await put(store, f"{prefix}/object", b"second", Replace(first.etag))
    everything = await keys(store, "")
    assert f"{prefix}/object" in everything
    assert [key for key in everything if not key.startswith("conformance/")] == []


@check
async def odd_but_legal_keys_are_kept_apart(store: Store) -> None:
    """Every character that the catalogue puts into keys, and long components, come back as they went."""
    prefix = somewhere()
    names = ["a b", "per%20cent", "%2Ehidden", "it's", "(1)!", "a+b", "tilde~", "UPPER", "upper", "x" * 240, "a..b"]
    for name in names:
        await put(store, f"{prefix}/{name}", name.encode())
    assert await keys(store, f"{prefix}/") == sorted(f"{prefix}/{name}" for name in names)
    for name in names:
        assert await store.get(f"{prefix}/{name}") == name.encode()


@check
async def keys_that_are_no_plain_paths_are_refused(store: Store) -> None:
    """A key that is empty, absolute, or has an empty, `.` or `..` component raises RefusedError everywhere."""
    for key in ("", "/absolute", "a//b", "a/", "a/./b", "./a", "a/../b", "../outside", "..", "nul\0byte"):
        await expect(RefusedError, put(store, key, b"bytes"))
        await expect(RefusedError, put(store, key, b"bytes", Overwrite()))
        await expect(RefusedError, store.get(key))
        await expect(RefusedError, store.stat(key))
        await expect(RefusedError, store.delete(key))


@check
async def components_over_the_limit_are_refused(store: Store) -> None:
    """A key with a component longer than the limit raises RefusedError and leaves nothing."""
    prefix = somewhere()
    await expect(RefusedError, put(store, f"{prefix}/{'x' * (store.limits.component_max_bytes + 1)}", b"bytes"))
    await absent(store, prefix)


@check
async def bytes_that_are_not_their_digest_are_corrupt(store: Store) -> None:
    """A body whose bytes have another digest raises CorruptError, and nothing appears under the key."""
    prefix = somewhere()
    for mode in (Create(), Overwrite()):
        lying = Bytes(b"some bytes", NOWHERE)
        await expect(CorruptError, store.put(f"{prefix}/object", lying, mode, ignore_progress))
    await absent(store, prefix)


@check
async def a_corrupt_body_does_not_harm_what_is_there(store: Store) -> None:
    """A body whose bytes have another digest leaves the object that was there alone."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    for mode in (Overwrite(), Replace(first.etag)):
        await expect(CorruptError, store.put(key, Bytes(b"second", NOWHERE), mode, ignore_progress))
    assert await what_is_there(store, key) == first
    assert await store.get(key) == b"first"


@check
async def a_body_that_ends_early_is_corrupt(store: Store) -> None:
    """A body with fewer bytes than its length raises CorruptError and leaves nothing."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    for sha in (sha256(data), sha256(data[: len(data) // 2])):
        await expect(CorruptError, store.put(f"{prefix}/object", Short(data, sha), Create(), ignore_progress))
    await absent(store, prefix)


@check
async def a_body_that_fails_leaves_nothing(store: Store) -> None:
    """What reading the body raises comes through as it is, and nothing appears under the key."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    failing = Failing(data, sha256(data))
    await expect(UnstableSourceError, store.put(f"{prefix}/object", failing, Create(), ignore_progress))
    await absent(store, prefix)


@check
async def a_cancelled_put_leaves_nothing(store: Store) -> None:
    """A put that is cancelled after half of its bytes ends, and nothing appears under the key."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    halting = Halting(data, sha256(data))
    await cancel_at_half(halting, store.put(f"{prefix}/object", halting, Create(), halting.progress))
    await absent(store, prefix)


@check
async def a_body_is_read_again_for_another_put(store: Store) -> None:
    """The same body can be put twice, whole each time."""
    prefix = somewhere()
    once = body(secrets.token_bytes(2 << 20))
    for name in ("one", "two"):
        found = await store.put(f"{prefix}/{name}", once, Create(), ignore_progress)
        assert found.size_bytes == 2 << 20
    assert await store.get(f"{prefix}/one") == await store.get(f"{prefix}/two")
