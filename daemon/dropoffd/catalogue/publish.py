"""Make a job visible: its record, by one conditional create, after all its content is stored.

A record's key holds the job id, so a retry finds the record of the try before and is done.
"""

import hashlib
import mimetypes
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from dropoff.messages import Receipt
from dropoff.records import Entry, Record, RunRecord, decode_record, encode, path_fields
from dropoff.saves import RunInfo, Save
from dropoffd.catalogue import keys
from dropoffd.custody import Held, Job
from dropoffd.errors import SourceChangedError
from dropoffd.stores.base import AlreadyExistsError, Bytes, Create, Store, ignore_progress

_FIRST_SECOND = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


async def publish_run(store: Store, run: RunInfo) -> None:
    """Store the run's own record, unless another job of the run has."""
    record = RunRecord(
        project=run.project, run=run.name, created=moment(run.created_at), host=run.host, user=run.user,
        tags=run.tags, metadata=run.metadata,
    )  # fmt: skip
    try:
        await create(store, keys.run_key(run), encode(record))
    except AlreadyExistsError:
        return


async def publish(store: Store, job: Job, places: Mapping[int, tuple[str, int | None]], now: float) -> Receipt:
    """Store the job's record and return the receipt.

    `places` tells for each content, by ordinal, its key and its offset if that key is a pack's.
    """
    save = job.save
    files = [held for held in job.contents if held.content.ordinal in places]
    record = Record(
        job=save.job, project=save.run.project, run=save.run.name, kind=save.kind, name=path_fields(save.name)[0],
        category=save.category, created=moment(save.created_at), description=save.description, tags=save.tags,
        metadata=save.metadata, skipped=job.skipped, source=path_fields(save.source)[0],
        prefix=save.prefix,
        entries=tuple(entry(save, held, *places[held.content.ordinal]) for held in files),
    )  # fmt: skip
    key = keys.record_key(save)
    data = encode(record)
    try:
        await create(store, key, data)
    except AlreadyExistsError:
        _check_same(decode_record(await store.get(key)), record)
    return Receipt(
        job=save.job,
        store=store.url,
        record=key,
        key=record.entries[0].key if save.kind.value == "file" else key,
        size_bytes=job.size_bytes,
        sha256=record.entries[0].sha256 if save.kind.value == "file" else hashlib.sha256(data).hexdigest(),
        files=len(files),
        delivered_at=now,
    )


def entry_name(save: Save, path: bytes) -> bytes:
    """Return a file's name within its run or artifact: for a directory's, below the directory's own name."""
    if save.kind.value == "file":
        return save.name
    return save.name + b"/" + path if save.name else path


async def create(store: Store, key: str, data: bytes) -> None:
    """Store a record; raises AlreadyExistsError."""
    await store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Create(), ignore_progress)


def _check_same(found: Record, ours: Record) -> None:
    if [(e.path, e.sha256) for e in found.entries] != [(e.path, e.sha256) for e in ours.entries]:
        raise SourceChangedError(
            f"unable to publish job {ours.job}: the store has its record with other content",
            hint="two spools delivered the same job with different content; look at both, then cancel this one",
        )


def entry(save: Save, held: Held, key: str, offset: int | None) -> Entry:
    """Return what a record or manifest says of a file that is stored at `key`."""
    content = held.content
    path, raw = path_fields(entry_name(save, content.path))
    return Entry(
        path=path,
        path_base64=raw,
        key=key,
        offset=offset,
        size=content.size_bytes,
        sha256=held.sha256,
        crc64nvme=held.crc64nvme,
        mode=f"{content.mode:04o}",
        mtime=moment(content.mtime_ns / 1e9),
        content_type=save.content_type or mimetypes.guess_type(os.path.basename(path))[0] or "",
        serializer=save.serializer,
    )


def moment(seconds: float) -> str:
    """Return a time as records have it (RFC 3339)."""
    # File systems know years that RFC 3339 cannot write.
    seconds = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
