"""Look up what a store has: versions, runs, and what runs saved; checked before it is believed."""

import re
from collections.abc import Iterable

import anyio
import anyio.to_thread
import msgspec

from dropoff.answers import RecordReport
from dropoff.errors import NotStoredError, UsageError
from dropoff.ids import is_job_id
from dropoff.questions import RecordId, Records, RunId
from dropoff.records import (
    Contribution,
    Entry,
    Manifest,
    Record,
    Reference,
    RunRecord,
    content_digest,
    decode_run,
    entry_path,
)
from dropoff.saves import Kind
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import LATEST, alias_of
from dropoffd.catalogue.newest import Newest, newest_standing, newest_version, version_at
from dropoffd.catalogue.reading import check_entries, read_record, read_small
from dropoffd.stores.base import CorruptError, NotFoundError, Store, StoreError

_NUMBER = re.compile(r"v(\d{1,18})")
_READ_AT_ONCE = 16
_RECORDS_MOST = 1000


class Holdings(msgspec.Struct, frozen=True):
    """What a manifest or record lists, by name: in the order of names, as their bytes are."""

    entries: dict[bytes, Entry]
    references: dict[bytes, Reference]


async def find_version(store: Store, project: str, artifact: str, which: str) -> tuple[Manifest, str]:
    """Return a version's manifest and its sha256; `which` is v3, an alias, or "latest".

    Raises NotStoredError, and CorruptError for a manifest that is not what its key says.
    """
    number = _NUMBER.fullmatch(which)
    if number:
        found = await version_at(store, project, artifact, int(number[1]))
    elif which == LATEST:
        found = await newest_version(store, project, artifact)
        if found.manifest is None:  # removed, and the number with it; those before may be there
            found = await newest_standing(store, project, artifact)
    else:
        alias = await alias_of(store, keys.alias_key(project, artifact, which))
        found = await version_at(store, project, artifact, alias.version) if alias else Newest(-1)
    if found.manifest is None:
        raise NotStoredError(
            f"unable to find {project}/{artifact}:{which} in {store.url}: it is not there",
            hint="a version is there once all its files are delivered: `dropoff status`; check project and name",
        )
    said = (found.manifest.project, found.manifest.artifact, found.manifest.version)
    if said != (project, artifact, found.number):
        raise CorruptError(
            f"unable to use {project}/{artifact}:v{found.number}: its manifest is that of {said!r}",
            hint="somebody moved it by hand",
        )
    return found.manifest, found.sha256


async def holdings(manifest: Manifest) -> Holdings:
    """Return what a version holds; raises CorruptError unless that is what its digest says."""

    def checked() -> Holdings:
        name = f"{manifest.project}/{manifest.artifact}:v{manifest.version}"
        check_entries(manifest.entries, name)
        if content_digest(manifest.entries, manifest.references) != manifest.digest:
            raise CorruptError(f"unable to use {name}: its files are not those of its digest")
        return _held(manifest.entries, manifest.references, name)

    return await anyio.to_thread.run_sync(checked)


async def find_project(store: Store, project: str) -> None:
    """Raise NotStoredError unless there is something of a project."""
    async for _ in store.folders(keys.project_prefix(project)):
        return
    raise NotStoredError(
        f"unable to find the project {project} in {store.url}: there is nothing of it", hint="`dropoff ls` lists them"
    )


async def find_run(store: Store, run: RunId) -> RunRecord:
    """Return a run's own record; raises NotStoredError."""
    try:
        return await read_small(store, f"{keys.run_prefix(run.project, run.run)}run.json", decode_run)
    except NotFoundError as error:
        raise NotStoredError(
            f"unable to find the run {run.project}/{run.run} in {store.url}: it is not there",
            hint="a run is there once something of it is delivered: `dropoff status`; check project and name",
        ) from error


async def find_record(store: Store, of: RecordId) -> Holdings:
    """Return what one save stored; raises NotStoredError."""
    if not is_job_id(of.job):
        raise UsageError(f"unable to look {of.job!r} up: it is no job's id")
    key = f"{keys.records_prefix(of.project, of.run)}{of.job}.json"
    try:
        record = await read_record(store, key)
    except NotFoundError as error:
        raise NotStoredError(f"unable to find {key} in {store.url}: it is not there") from error
    return held_by(record, key)


def held_by(record: Record | Contribution, key: str) -> Holdings:
    """Return what a record or contribution says was stored; raises CorruptError where that makes no sense."""
    check_entries(record.entries, key)
    return _held(record.entries, (), key)


def _held(entries: Iterable[Entry], references: Iterable[Reference], name: str) -> Holdings:
    entries, references = tuple(entries), tuple(references)
    files = {entry_path(one): one for one in sorted(entries, key=entry_path)}
    others = {entry_path(one): one for one in sorted(references, key=entry_path)}
    if len(files) + len(others) != len(entries) + len(references) or files.keys() & others.keys():
        raise CorruptError(f"unable to use {name}: a path stands in it twice")
    return Holdings(files, others)


async def list_records(store: Store, asked: Records) -> tuple[list[RecordReport], str]:
    """Return some of what a run saved, and the job after which there is more; empty where there is none."""
    prefix = keys.records_prefix(asked.run.project, asked.run.run)
    jobs = [stat.key.removeprefix(prefix).removesuffix(".json") async for stat in store.list(prefix)]
    jobs = sorted(job for job in jobs if is_job_id(job) and job > asked.after)
    chosen = jobs[: max(1, min(asked.limit, _RECORDS_MOST))]
    found: dict[str, Record] = {}
    troubles: list[StoreError] = []
    todo = iter(chosen)

    async def read() -> None:
        for job in todo:
            try:
                found[job] = await read_record(store, f"{prefix}{job}.json")
            except NotFoundError:  # removed since the listing
                continue
            except StoreError as error:
                troubles.append(error)
                return

    async with anyio.create_task_group() as group:
        for _ in range(_READ_AT_ONCE):
            group.start_soon(read)
    if troubles:
        raise troubles[0]
    reports = [_report(asked.run, job, found[job]) for job in chosen if job in found and _wanted(found[job], asked)]
    return reports, chosen[-1] if len(jobs) > len(chosen) else ""


def _wanted(record: Record, asked: Records) -> bool:
    whole = f"{record.prefix}/{record.name}" if record.prefix else record.name
    return (
        asked.category in {None, record.category}
        and asked.name in {"", record.name}
        and set(asked.tags) <= set(record.tags)
        and (not asked.prefix or f"{whole}/".startswith(f"{asked.prefix.rstrip('/')}/"))
    )


def _report(run: RunId, job: str, record: Record) -> RecordReport:
    return RecordReport(
        id=RecordId(store=run.store, project=run.project, run=run.run, job=job), name=record.name, kind=record.kind,
        category=record.category, created=record.created, description=record.description, tags=record.tags,
        metadata=record.metadata, size_bytes=sum(entry.size for entry in record.entries), files=len(record.entries),
        sha256=record.entries[0].sha256 if record.kind is Kind.FILE and record.entries else "",
    )  # fmt: skip
