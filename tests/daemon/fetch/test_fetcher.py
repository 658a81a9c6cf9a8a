"""Fetching from stores that fail, lie and vanish: real files, a real S3 server whose faults are scripted."""

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from daemon.making import FakeClock, forget, nothing_known
from dropoff.errors import DamagedError
from dropoffd.clock import SystemClock
from dropoffd.fetch.fetcher import Fetcher
from dropoffd.fetch.incoming import Incoming
from dropoffd.fetch.plan import PIECE_BYTES, Wanted
from dropoffd.stores.base import Bytes, Overwrite, Store, UnavailableError, ignore_progress
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.registry import provider
from dropoffd.stores.retry import RetryingStore
from support.fault_server.calls import Operation
from support.fault_server.faults import Close, Refuse, Reset, Stage
from support.fault_server.server import FaultServer
from support.servers.address import Address

pytestmark = pytest.mark.anyio

PIECES = 5
LARGE = os.urandom((PIECES - 1) * PIECE_BYTES + 12345)


class Goal:
    """A directory that contents are fetched into, by their sha256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self.told = 0

    async def fetch(self, store: Store, *wanted: Wanted, clock: FakeClock | None = None) -> None:
        """Fetch contents from a store."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        incoming = Incoming(fd, ".in")

        def land(content: Wanted, name: str) -> None:
            os.rename(name, content.sha256, src_dir_fd=incoming.fd, dst_dir_fd=fd)

        def progress(size: int) -> None:
            self.told += size

        try:
            await Fetcher(clock or SystemClock()).fetch(store, wanted, incoming, land, progress)
        finally:
            incoming.close()
            os.close(fd)

    def has(self, *contents: bytes) -> bool:
        """Tell whether these contents are there and nothing else, hidden or not."""
        found = {path.name: path.read_bytes() for path in self.path.iterdir() if path.is_file()}
        remains = self.path / ".in"
        return found == {sha256(data): data for data in contents} and not remains.exists()


@pytest.fixture
def goal(tmp_path: Path) -> Goal:
    """Return an empty goal."""
    return Goal(tmp_path / "goal")


def sha256(data: bytes) -> str:
    """Return a digest in hex."""
    return hashlib.sha256(data).hexdigest()


async def stored(store: Store, key: str, data: bytes) -> Wanted:
    """Put an object by one request and return it as something to fetch."""
    await store.put(key, Bytes(data, sha256(data)), Overwrite(), ignore_progress)
    return Wanted(sha256=sha256(data), size_bytes=len(data), key=key)


class LyingStore(DirectoryStore):
    """A directory whose n-th answers are not what is in it."""

    def __init__(self, root: Path, lie: Callable[[bytes], bytes], times: int) -> None:
        super().__init__(str(root))
        self._lie = lie
        self._times = times
        self.gets = 0

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Return some of an object's bytes, or something else."""
        self.gets += 1
        count = await super().read(key, start, buffer)
        if self._times:
            self._times -= 1
            said = self._lie(bytes(buffer[:count]))
            buffer[: len(said)] = said
            return len(said)
        return count


def flipped(data: bytes) -> bytes:
    """Return other bytes of the same length."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_a_bit_that_flips_on_the_way_is_fetched_again(tmp_path: Path, goal: Goal, data: bytes) -> None:
    """One damaged answer costs a second fetch; what lands is right."""
    store = LyingStore(tmp_path / "store", flipped, times=1)
    await goal.fetch(store, await stored(store, "key", data))
    assert goal.has(data)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_a_bit_that_flipped_in_the_store_is_refused(tmp_path: Path, goal: Goal, data: bytes) -> None:
    """A content that stays damaged raises DamagedError naming it, and nothing of it lands."""
    store = LyingStore(tmp_path / "store", flipped, times=1000)
    wanted = await stored(store, "key", data)
    with pytest.raises(DamagedError, match="fetch key"):
        await goal.fetch(store, wanted)
    assert [path.name for path in goal.path.iterdir() if path.is_file()] == []


async def test_what_a_damaged_try_left_is_not_built_on(tmp_path: Path, goal: Goal) -> None:
    """After damage that was mended in the store the next fetch begins anew and is right."""
    store = LyingStore(tmp_path / "store", flipped, times=2 * PIECES)
    wanted = await stored(store, "key", LARGE)
    with pytest.raises(DamagedError):
        await goal.fetch(store, wanted)
    await goal.fetch(store, wanted)
    assert goal.has(LARGE)


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_an_object_that_is_shorter_is_refused(tmp_path: Path, goal: Goal, data: bytes) -> None:
    """An object that ends too early, or answers that do, raise DamagedError at once."""
    store = LyingStore(tmp_path / "store", lambda data: data[:-1], times=1000)
    wanted = await stored(store, "key", data)
    with pytest.raises(DamagedError, match="bytes from"):
        await goal.fetch(store, wanted)


async def test_an_object_that_says_to_be_huge_takes_no_space(tmp_path: Path, goal: Goal) -> None:
    """A content that is said to be far larger than its object ends at the first bytes that are not there."""
    store = DirectoryStore(str(tmp_path / "store"))
    wanted = await stored(store, "key", b"small")
    lie = Wanted(sha256=wanted.sha256, size_bytes=1 << 36, key="key")
    with pytest.raises(DamagedError, match="bytes from"):
        await goal.fetch(store, lie)
    assert sum(path.stat().st_blocks * 512 for path in goal.path.rglob("*")) < 2 * PIECE_BYTES


async def test_an_interrupted_fetch_goes_on_where_it_was(tmp_path: Path, goal: Goal) -> None:
    """Pieces that an earlier fetch got are not asked for again."""
    answers = iter(range(3))

    def three_times(data: bytes) -> bytes:
        if next(answers, None) is None:
            raise UnavailableError("unable: gone")
        return data

    store = LyingStore(tmp_path / "store", three_times, times=10**9)
    wanted = await stored(store, "key", LARGE)
    with pytest.raises(UnavailableError):
        await goal.fetch(store, wanted, clock=FakeClock())
    assert (goal.path / ".in").exists()
    store.gets, store._times = 0, 0
    await goal.fetch(store, wanted)
    assert goal.has(LARGE)
    assert store.gets == PIECES - 3


async def test_a_note_that_says_too_much_costs_a_second_fetch(tmp_path: Path, goal: Goal) -> None:
    """After a power cut the note may know of pieces that the disk has not: the digest finds that out."""
    store = LyingStore(tmp_path / "store", lambda data: data, times=0)
    wanted = await stored(store, "key", LARGE)
    (goal.path / ".in").mkdir(mode=0o700)
    part = goal.path / ".in" / f"{wanted.sha256}.part"
    part.write_bytes(b"\0" * len(LARGE))
    note = part.with_name(f"{part.name}.have")
    note.write_text(f"0 {PIECE_BYTES}\n{PIECE_BYTES} {2 * PIECE_BYTES}\ngarbage\n{2 * PIECE_BYTES} 25")
    await goal.fetch(store, wanted)
    assert goal.has(LARGE)
    assert store.gets == PIECES - 2 + PIECES


async def test_two_fetches_of_one_content_do_not_meet(tmp_path: Path, goal: Goal) -> None:
    """Two fetches into one directory at once both succeed."""
    store = DirectoryStore(str(tmp_path / "store"))
    wanted = await stored(store, "key", LARGE)
    async with anyio.create_task_group() as group:
        group.start_soon(goal.fetch, store, wanted)
        group.start_soon(goal.fetch, store, wanted)
    assert [path.read_bytes() == LARGE for path in goal.path.iterdir() if path.is_file()] == [True]


async def test_progress_adds_up(tmp_path: Path, goal: Goal) -> None:
    """All bytes are told of once, also those that were there and those fetched twice."""
    store = LyingStore(tmp_path / "store", flipped, times=1)
    await goal.fetch(store, await stored(store, "key", LARGE), await stored(store, "other", b"small"))
    assert goal.told == len(LARGE) + 5


@asynccontextmanager
async def bucket(address: Address, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Open a bucket as the daemon does."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.secret_key)
    url = f"s3://{address.bucket}/prefix?endpoint={address.endpoint}&region={address.region}&style=path"
    clock = SystemClock()
    store = RetryingStore(await provider(url, clock, nothing_known, forget), clock)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    "fault", [Reset(Stage.ANSWER, 1 << 20), Close(Stage.ANSWER, 3 << 20), Reset(Stage.RECEIVED)], ids=repr
)
async def test_a_connection_that_breaks_in_an_answer_costs_that_piece(
    fault_server: FaultServer, goal: Goal, monkeypatch: pytest.MonkeyPatch, fault: Reset
) -> None:
    """After a reset or an end in the middle of a body only that range is asked for again."""
    async with bucket(fault_server.address, monkeypatch) as store:
        await store.prepare()
        data = LARGE[: 2 * PIECE_BYTES]
        wanted = await stored(store, "key", data)
        fault_server.journal.clear()
        fault_server.inject(Operation.GET, fault)
        await goal.fetch(store, wanted)
    assert goal.has(data)
    assert len(fault_server.journal.requests(Operation.GET)) == 3


async def test_ranges_are_fetched_from_every_server(
    s3_bucket: Address, goal: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large objects in ranges, members of packs, and empty files come from each kind of server."""
    async with bucket(s3_bucket, monkeypatch) as store:
        await store.prepare()
        whole = await stored(store, "key", LARGE[: PIECE_BYTES + 5])
        member = Wanted(sha256=sha256(LARGE[7:99]), size_bytes=92, key="key", start=7)
        empty = await stored(store, "empty", b"")
        await goal.fetch(store, whole, member, empty)
    assert goal.has(LARGE[: PIECE_BYTES + 5], LARGE[7:99], b"")


async def test_an_object_that_vanishes_is_named(
    fault_server: FaultServer, goal: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is deleted while it is fetched raises DamagedError with its key."""
    async with bucket(fault_server.address, monkeypatch) as store:
        await store.prepare()
        wanted = await stored(store, "key", LARGE[: 2 * PIECE_BYTES])
        fault_server.inject(Operation.GET, Refuse(status=404, code="NoSuchKey"))
        with pytest.raises(DamagedError, match="key: it is not in the store"):
            await goal.fetch(store, wanted)
