"""What tests of the daemon's parts are made of: saves, contents, a clock, a store whose faults are scripted."""

import hashlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import anyio.lowlevel
import msgspec

from dropoff.content import PAYLOADS, Capture, Content, payload_place
from dropoff.ids import JobId
from dropoff.messages import JobState, Receipt
from dropoff.saves import Category, Group, Keep, Kind, Part, Pointer, RunInfo, Save, Version
from dropoffd.capture.guard import Guard
from dropoffd.capture.homes import Homes
from dropoffd.capture.keeper import Keeper
from dropoffd.catalogue.catalogue import Catalogue
from dropoffd.catalogue.references import LookedUp, bare
from dropoffd.custody import Held, Job
from dropoffd.dispatch import Dispatch
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.reuse import Reuse
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import Body, Folder, Limits, Mode, Multipart, Progress, Stat, Store
from dropoffd.stores.registry import Stores
from dropoffd.transfer.digest import Digester
from dropoffd.transfer.worker import Worker

T = TypeVar("T")

_numbers = itertools.count(1)


def job_id(number: int) -> JobId:
    """Return a valid job id that sorts by `number`."""
    return JobId(f"{number:032x}")


def run_info(name: str = "run", project: str = "project", store: str = "file:///store") -> RunInfo:
    """Return a run."""
    return RunInfo(project=project, name=name, store=store, created_at=1e9, host="host", user="user")


def save(
    number: int | None = None,
    *,
    run: RunInfo | None = None,
    name: bytes = b"file",
    kind: Kind = Kind.FILE,
    prefix: str = "",
    priority: int = 0,
    keep: Keep = Keep.ALL,
) -> Save:
    """Return a save with an id of its own."""
    return Save(
        job=job_id(next(_numbers) if number is None else number),
        run=run or run_info(),
        kind=kind,
        name=name,
        category=Category.OUTPUT,
        source=b"/" + name,
        created_at=1e9,
        prefix=prefix,
        priority=priority,
        keep=keep,
    )


def part(
    draft: str = "draft",
    position: int = 0,
    *,
    artifact: str = "cats",
    name: bytes = b"file",
    overwrite: bool = False,
    kind: Kind = Kind.FILE,
) -> Save:
    """Return a save of an addition to an artifact."""
    said = Part(draft=draft, artifact=artifact, position=position, overwrite=overwrite)
    return msgspec.structs.replace(save(run=run_info("", "", ""), name=name, kind=kind), part=said)


def version(
    draft: str = "draft",
    steps: int = 1,
    *,
    artifact: str = "cats",
    of_type: str = "dataset",
    run: RunInfo | None = None,
    aliases: tuple[str, ...] = (),
    group: Group | None = None,
) -> Save:
    """Return a save that makes a version of a draft, or with a group contributes to one or finishes it."""
    said = Version(draft=draft, type=of_type, steps=steps, aliases=aliases, group=group)
    made = save(run=run, name=artifact.encode(), kind=Kind.VERSION)
    return msgspec.structs.replace(made, source=b"", version=said)


def referring(uri: str, path: bytes = b"a") -> Save:
    """Return a save that makes a version of one reference."""
    made = version(f"draft {next(_numbers)}", 1)
    assert made.version is not None
    pointer = Pointer(position=0, path=path, uri=uri)
    return msgspec.structs.replace(made, version=msgspec.structs.replace(made.version, pointers=(pointer,)))


def inline(data: bytes, ordinal: int = 1, path: bytes = b"") -> Content:
    """Return a content that lies in the database."""
    return Content(
        ordinal=ordinal,
        path=path,
        size_bytes=len(data),
        mode=0o644,
        mtime_ns=10**18,
        capture=Capture.INLINE,
        inline=data,
    )


def sized(size: int) -> Content:
    """Return a content that says to be of a size, for tests that never read it."""
    return Content(ordinal=1, path=b"", size_bytes=size, mode=0o644, mtime_ns=0, capture=Capture.INLINE, inline=b"")


def in_file(state: Path, job: str, data: bytes, ordinal: int = 1) -> Content:
    """Return a content in a payload file, which is made."""
    place = payload_place(job, ordinal)
    (state / PAYLOADS).mkdir(exist_ok=True)
    (state / place.decode()).write_bytes(data)
    return Content(
        ordinal=ordinal,
        path=b"",
        size_bytes=len(data),
        mode=0o644,
        mtime_ns=0,
        capture=Capture.COPY,
        place=place,
    )


def held(content: Content, *, digested: bool = True) -> Held:
    """Return a content in custody, its digest known or not."""
    return Held(content=content, sha256=sha256(content.inline or b"") if digested else "")


def job(of: Save, contents: Sequence[Held]) -> Job:
    """Return a job as its row tells it."""
    size = sum(one.content.size_bytes for one in contents if one.content.capture is not Capture.PACK)
    return Job(seq=1, run=1, save=of, state=JobState.QUEUED, size_bytes=size, attempts=0, contents=tuple(contents))


def receipt(of: str) -> Receipt:
    """Return some receipt of a job."""
    return Receipt(
        job=JobId(of),
        store="file:///store",
        record="record",
        key="key",
        size_bytes=1,
        sha256="0" * 64,
        files=1,
        delivered_at=1e9,
    )


def sha256(data: bytes) -> str:
    """Return the digest of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


async def soon(attempt: Callable[[], T | None]) -> T:
    """Return what `attempt` gives once it gives something: what is done at once needs a disk that is quick."""
    while (found := attempt()) is None:  # noqa: ASYNC110  # nobody tells when a disk is quick again
        await anyio.sleep(0.01)
    return found


class Spools:
    """Opens the spool of one state directory, again and again."""

    def __init__(self, state: Path) -> None:
        self.state = state
        (state / PAYLOADS).mkdir(parents=True, exist_ok=True)
        self._open: list[Spool] = []

    async def open(self, quota_bytes: int = 1 << 40, history_jobs: int = 1000) -> Spool:
        """Return an open spool."""
        spool = Spool(str(self.state), quota_bytes, 0, history_jobs)
        await spool.open()
        self._open.append(spool)
        return spool

    async def aclose(self) -> None:
        """Close what is open."""
        for spool in self._open:
            await spool.aclose()
        self._open.clear()


class FakeClock:
    """Time that passes when told to, or when somebody sleeps."""

    def __init__(self, now: float = 1e9) -> None:
        self.seconds = 0.0
        self._epoch = now
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int, anyio.Event]] = []

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._epoch + self.seconds

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
        while self._sleepers and self._sleepers[0][0] <= self.seconds:
            heapq.heappop(self._sleepers)[2].set()

    async def sleep(self, seconds: float) -> None:
        """Return at once; that much time has passed then."""
        self.slept.append(seconds)
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()


class Fault:
    """One scripted call: what is raised before or after the true operation, or nothing."""

    def __init__(self, operation: str, error: Exception | None, *, after: bool = False) -> None:
        self.operation = operation
        self.error = error
        self.after = after


class FaultyStore:
    """A store that fails as scripted; each operation takes the next fault in line that is meant for it."""

    def __init__(self, inner: Store, faults: Sequence[Fault] = ()) -> None:
        self.inner = inner
        self.url = inner.url
        self.limits: Limits = inner.limits
        self.multipart: Multipart | None = inner.multipart
        self.script: deque[Fault] = deque(faults)
        self.calls: list[str] = []

    async def _do(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(operation)
        fault = self.script.popleft() if self.script and self.script[0].operation == operation else None
        if fault and fault.error and not fault.after:
            raise fault.error
        result = await work()
        if fault and fault.error:
            raise fault.error
        return result

    async def prepare(self) -> None:
        """Prepare the store within."""
        await self.inner.prepare()

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Put, or fail as scripted."""
        return await self._do("put", lambda: self.inner.put(key, body, mode, progress))

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Get, or fail as scripted."""
        return await self._do("get", lambda: self.inner.get(key, start, end))

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Read, or fail as scripted."""
        return await self._do("read", lambda: self.inner.read(key, start, buffer))

    async def stat(self, key: str) -> Stat:
        """Stat, or fail as scripted."""
        return await self._do("stat", lambda: self.inner.stat(key))

    async def head(self, key: str) -> Stat:
        """Head, or fail as scripted."""
        return await self._do("head", lambda: self.inner.head(key))

    def list(self, prefix: str) -> AsyncIterator[Stat]:
        """List."""
        return self.inner.list(prefix)

    def folders(self, prefix: str) -> AsyncIterator[str]:
        """List what comes next in keys."""
        return self.inner.folders(prefix)

    def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:
        """List what changed."""
        return self.inner.changes(prefix, known)

    async def delete(self, key: str) -> None:
        """Delete, or fail as scripted."""
        await self._do("delete", lambda: self.inner.delete(key))

    async def aclose(self) -> None:
        """Close the store within."""
        await self.inner.aclose()


class NoGuard(Guard):
    """A guard for daemons that hold no lease: no process is forked."""

    def __init__(self) -> None:
        self._gone = True

    def close(self) -> None:
        """Nothing is open."""


async def nothing_known(_: str) -> None:
    """Recall nothing of any store."""


async def forget(_key: str, _value: str) -> None:
    """Remember nothing of any store."""


class OneStore(Stores):
    """Every URL is the same store, but for those that nothing serves."""

    def __init__(self, clock: FakeClock, store: Store) -> None:
        bandwidth = Bandwidth(clock, "unlimited", nothing_known, forget)
        super().__init__(clock, nothing_known, forget, bandwidth, requests_per_second=0, in_flight_max=4)
        self._store = store

    async def open(self, url: str) -> Store:
        """Return the store."""
        return await super().open(url) if url.startswith("refused:") else self._store


class Etags:
    """Knows of references what a test says: their etags, by URI."""

    def __init__(self) -> None:
        self.etags: dict[str, str] = {}

    async def look_up(self, pointers: Iterable[Pointer], store: str) -> LookedUp:  # noqa: ARG002  # the interface's
        """Return the references with these etags."""
        found = {
            pointer.position: {
                path: msgspec.structs.replace(one, etag=self.etags.get(one.uri, ""))
                for path, one in bare(pointer).items()
            }
            for pointer in pointers
        }
        return LookedUp(found, ())


RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS = 10.0, 100.0


class Deliveries:
    """The parts of a daemon that deliver, on an open spool; time and the store are the test's."""

    def __init__(self, spool: Spool, state: Path, store: Store, clock: FakeClock, places: int) -> None:
        self.spool = spool
        self._clock = clock
        keeper = Keeper(
            Homes(str(state), "", "boot"), NoGuard(), spool.quota, spool.replace_content, clock,
            copy_after_seconds=10, leases_max=10,
        )  # fmt: skip
        self.references = Etags()
        catalogue, digester = Catalogue(clock, spool, self.references), Digester(1)
        worker = Worker(spool, catalogue, keeper.open, digester, clock)
        reuse = Reuse(worker, catalogue, spool, keeper.open, digester, str(state / PAYLOADS), clock)
        self.dispatch = Dispatch(
            spool, keeper, reuse, OneStore(clock, store), clock,
            random.Random(1), places=places, retry_first_seconds=RETRY_FIRST_SECONDS,
            retry_most_seconds=RETRY_MOST_SECONDS,
        )  # fmt: skip

    async def round(self) -> None:
        """Start what is next, and return when all of it ended."""
        await self.spool.requeue_due(self._clock.now(), RETRY_MOST_SECONDS)
        self.dispatch.wake()
        async with anyio.create_task_group() as group:
            await self.dispatch._start_next(group)
