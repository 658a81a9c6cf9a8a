"""Answer whoever wants to read: what a store has, where it came from, and the content itself.

The daemon answers callers with this, and the command line itself where no daemon runs. What a store says is checked
before it is believed; what it says of one version is kept for a while, since pages of it and its files are asked for
one after the other.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from dropoff.answers import (
    Answer,
    EntryList,
    EntryReport,
    Fetched,
    LinkList,
    RecordList,
    RunReport,
    Verified,
    VersionReport,
)
from dropoff.errors import DamagedError, NotStoredError, UsageError
from dropoff.messages import encode
from dropoff.names import display
from dropoff.questions import (
    Audit,
    Entries,
    Fetch,
    Find,
    FindRun,
    FindVersion,
    Links,
    Reading,
    RecordId,
    Records,
    RunId,
    Stored,
    Stream,
    Verify,
    VersionId,
)
from dropoff.records import Entry, Manifest, Reference, entry_path
from dropoff.wire import FRAME_MAX_BYTES
from dropoffd.auditing import Auditor
from dropoffd.catalogue import links
from dropoffd.catalogue.aliases import LATEST
from dropoffd.catalogue.inventory import Scope
from dropoffd.catalogue.lookup import (
    Holdings,
    find_project,
    find_record,
    find_run,
    find_version,
    holdings,
    list_records,
)
from dropoffd.clock import Clock
from dropoffd.fetch.cache import Cache
from dropoffd.fetch.deliver import Deliverer, File, file_of, select
from dropoffd.fetch.fetcher import Fetcher
from dropoffd.fetch.referred import Referred
from dropoffd.fetch.stream import stream
from dropoffd.fetch.verify import verify
from dropoffd.index.index import Indexes
from dropoffd.paging import page
from dropoffd.stores.base import CorruptError, DeniedError, Progress, Store, ignore_progress
from dropoffd.stores.elsewhere.elsewhere import Elsewhere

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PAGE_MOST = 2000
_KEPT_MOST = 4
_KEPT_ENTRIES_MOST = 1_000_000


class Opens(Protocol):
    """Whoever opens stores."""

    async def open(self, url: str) -> Store:
        """Return the store at `url`; raises RefusedError for a URL that no provider serves."""


class Reader:
    """Reads stores for everybody; `cache` keeps what was fetched, `indexes` what stores have."""

    def __init__(self, stores: Opens, cache: Cache, indexes: Indexes, clock: Clock, elsewhere: Elsewhere) -> None:
        self._stores = stores
        self._indexes = indexes
        self._clock = clock
        self._deliverer = Deliverer(Fetcher(clock), cache)
        self._referred = Referred(elsewhere)
        self._kept: dict[Stored, Holdings] = {}
        self._table: dict[type, Callable[[Any], Awaitable[Answer]]] = {
            FindVersion: self._find_version,
            FindRun: self._find_run,
            Records: self._records,
            Links: self._links,
            Entries: self._entries,
            Verify: self._verify,
        }

    async def answer(self, request: Reading, fd: int | None = None, progress: Progress = ignore_progress) -> Answer:
        """Return the answer; `fd` came with the request and stays its owner's to close.

        Raises NotStoredError, DamagedError, UsageError, StoreError, and OSError for what goes wrong on this machine.
        """
        try:
            if isinstance(request, Fetch):
                answer: Answer = await self._fetch(request, fd, progress)
            elif isinstance(request, Stream):
                answer = await self._stream(request, fd)
            elif isinstance(request, Find):
                answer = await self._indexes.find(await self._stores.open(request.store), request, progress)
            elif isinstance(request, Audit):
                answer = await self._audit(request, progress)
            else:
                answer = await self._table[type(request)](request)
        except CorruptError as error:
            raise DamagedError(error.message, hint=error.hint) from error
        if len(encode(answer)) > FRAME_MAX_BYTES:
            raise DamagedError("unable to tell what the store says: it is more than any call of ours could store")
        return answer

    async def _find_version(self, asked: FindVersion) -> VersionReport:
        store = await self._stores.open(asked.store)
        manifest, sha256 = await find_version(store, asked.project, asked.artifact, asked.which)
        unrecorded = ""
        if asked.user is not None:
            try:
                await store.prepare()
                await links.used_input(store, asked.user, manifest, self._clock.now())
            except DeniedError as error:  # who may only read can use it all the same
                unrecorded = error.message
                _log.warning("use not recorded cause=%s", error.message)
        one = VersionId(
            store=asked.store, project=asked.project, artifact=asked.artifact, number=manifest.version, sha256=sha256
        )
        self._keep(one, await holdings(manifest))
        return _version_report(one, manifest, unrecorded)

    async def _find_run(self, asked: FindRun) -> RunReport:
        run = await find_run(await self._stores.open(asked.run.store), asked.run)
        return RunReport(
            id=asked.run, created=run.created, host=run.host, user=run.user, tags=run.tags, metadata=run.metadata,
            finished=run.finished,
        )  # fmt: skip

    async def _records(self, asked: Records) -> RecordList:
        reports, more = await list_records(await self._stores.open(asked.run.store), asked)
        shown = page(reports)
        return RecordList(tuple(shown), more if len(shown) == len(reports) else shown[-1].id.job)

    async def _links(self, asked: Links) -> LinkList:
        store = await self._stores.open(asked.of.store)
        if isinstance(asked.of, RunId):
            return LinkList(tuple(await links.of_run(store, asked.of.project, asked.of.run)))
        of = asked.of
        manifest, _ = await find_version(store, of.project, of.artifact, f"v{of.number}")
        return LinkList(tuple(await links.of_version(store, manifest)))

    async def _entries(self, asked: Entries) -> EntryList:
        held = await self._holdings(asked.of)
        reports = [_entry_report(path, one) for path, one in held.entries.items() if path > asked.after]
        reports += [_reference_report(path, one) for path, one in held.references.items() if path > asked.after]
        reports.sort(key=lambda report: report.path)
        shown = page(reports[: max(1, min(asked.limit, _PAGE_MOST))])
        return EntryList(tuple(shown), more=len(shown) < len(reports))

    async def _verify(self, asked: Verify) -> Verified:
        store = await self._stores.open(asked.of.store)
        held = await self._holdings(asked.of)
        return await verify(store, _chosen(held, (), {}), read_data=asked.read_data)

    async def _audit(self, asked: Audit, progress: Progress) -> Verified:
        store = await self._stores.open(asked.store)
        if asked.artifact:  # told apart from one that has no version to look at
            await find_version(store, asked.project, asked.artifact, LATEST)
        elif asked.run:
            await find_run(store, RunId(store=asked.store, project=asked.project, run=asked.run))
        elif asked.project:
            await find_project(store, asked.project)
        scope = Scope(project=asked.project, run=asked.run, artifact=asked.artifact)
        return await Auditor(store, read_data=asked.read_data, progress=progress).run(scope)

    async def _fetch(self, asked: Fetch, fd: int | None, progress: Progress) -> Fetched:
        store = await self._stores.open(asked.of.store)
        held = await self._holdings(asked.of)
        wanted = select(held.references, asked.paths) if asked.references and fd is not None else []
        referred = {entry_path(one): one for one in wanted}
        files = _chosen(held, asked.paths, referred)
        fetched = 0
        if referred and fd is not None:
            fetched = await self._referred.into_directory(
                asked.of.store, referred, (file.path for file in files), fd, umask=asked.umask, progress=progress
            )
        if fd is None:
            done = await self._deliverer.into_cache(store, files, progress)
        else:
            done = await self._deliverer.into_directory(
                store, files, fd, umask=asked.umask, links=asked.links, progress=progress
            )
        size = sum(file.content.size_bytes for file in files) + fetched
        return Fetched(
            files=len(files) + len(referred), size_bytes=size, fetched_bytes=done.fetched_bytes + fetched,
            place=done.place,
        )  # fmt: skip

    async def _stream(self, asked: Stream, fd: int | None) -> Fetched:
        if fd is None:
            raise UsageError("unable to stream without a pipe")
        store = await self._stores.open(asked.of.store)
        held = await self._holdings(asked.of)
        (file,) = _chosen(held, (asked.path,), {}, one=True)
        await stream(store, file.content, fd)
        size = file.content.size_bytes
        return Fetched(files=1, size_bytes=size, fetched_bytes=size, sha256=file.content.sha256)

    async def _holdings(self, of: Stored) -> Holdings:
        if of in self._kept:
            return self._kept[of]
        store = await self._stores.open(of.store)
        if isinstance(of, RecordId):
            held = await find_record(store, of)
        else:
            manifest, sha256 = await find_version(store, of.project, of.artifact, f"v{of.number}")
            if of.sha256 not in {"", sha256}:
                raise DamagedError(
                    f"unable to use {of.project}/{of.artifact}:v{of.number}: its manifest changed meanwhile",
                    hint="a version never changes: somebody replaced it by hand, or emptied the store",
                )
            held = await holdings(manifest)
        self._keep(of, held)
        return held

    def _keep(self, of: Stored, held: Holdings) -> None:
        entries = len(held.entries) + sum(len(one.entries) for one in self._kept.values())
        if len(self._kept) >= _KEPT_MOST or entries > _KEPT_ENTRIES_MOST:
            self._kept.clear()
        self._kept[of] = held


def _version_report(one: VersionId, manifest: Manifest, unrecorded: str) -> VersionReport:
    return VersionReport(
        id=one, artifact_type=manifest.type, digest=manifest.digest, size_bytes=manifest.size,
        files=len(manifest.entries), references=len(manifest.references), created=manifest.created, run=manifest.run,
        description=manifest.description, tags=manifest.tags, metadata=manifest.metadata,
        ttl_seconds=manifest.ttl_seconds, skipped=manifest.skipped, unrecorded=unrecorded, job=manifest.job,
    )  # fmt: skip


def _entry_report(path: bytes, entry: Entry) -> EntryReport:
    return EntryReport(
        path=path, size_bytes=entry.size, sha256=entry.sha256, mode=entry.mode, mtime=entry.mtime,
        content_type=entry.content_type, serializer=entry.serializer,
    )  # fmt: skip


def _reference_report(path: bytes, one: Reference) -> EntryReport:
    return EntryReport(path=path, size_bytes=one.size, uri=one.uri, etag=one.etag)


def _chosen(
    held: Holdings, paths: Iterable[bytes], referred: Mapping[bytes, Reference], *, one: bool = False
) -> list[File]:
    """Return the files that are meant beside references; raises NotStoredError for a name that nothing has."""
    files = {path: file_of(path, entry) for path, entry in held.entries.items()}
    for path in paths:
        if path in held.references and path not in referred:
            raise UsageError(
                f"unable to download {display(path)!r}: it is a reference to {held.references[path].uri!r}",
                hint="it lies elsewhere and was never stored; references=True fetches it from there",
            )
        found = bool(select(files, (path,))) or bool(select(referred, (path,)))
        if path not in files and (one or not found):
            raise NotStoredError(f"unable to find {display(path)!r}: it has no such file", hint="see its entries")
    return select(files, paths)
