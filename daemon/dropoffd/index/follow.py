"""Bring the index up to date: look into what changed in the store, read what is new, forget what is gone."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import anyio

from dropoff.records import decode_alias, decode_run, decode_state
from dropoffd.catalogue import keys
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.reading import read_manifest, read_record, read_small
from dropoffd.index import folders, rows
from dropoffd.index.database import Database
from dropoffd.index.rows import Row
from dropoffd.stores.base import CorruptError, Folder, NotFoundError, Progress, RefusedError, Stat, Store, StoreError

_READ_AT_ONCE = 16
# Larger ones one by one, so that memory stays bounded.
_LARGE_BYTES = 4 << 20
_COMMIT_EVERY = 500
_KEPT = frozenset({Holds.RUN, Holds.RECORD, Holds.MANIFEST, Holds.ALIAS, Holds.STATE})

_Read = tuple[Stat, Row | None, str]


async def follow(store: Store, database: Database, project: str, progress: Progress) -> None:
    """Make the index say what the store has now: of one project, or of all for an empty name."""
    there = [keys.project_prefix(project)] if project else [folder async for folder in store.folders("")]
    if not project:
        await database.run(partial(folders.forget_others, there=there))
    for folder in there:
        for prefix in keys.catalogue_prefixes(folder):
            await _follow(store, database, prefix, progress)


async def _follow(store: Store, database: Database, prefix: str, progress: Progress) -> None:
    known = await database.run(partial(folders.known, prefix=prefix))
    found = [folder async for folder in store.changes(prefix, known)]
    vanished = known.keys() - {folder.prefix for folder in found}
    changed = [folder for folder in found if folder.objects is not None]
    if not changed and not vanished:
        return
    there = {stat.key: stat for folder in changed for stat in folder.objects or () if keys.holds(stat.key) in _KEPT}
    before = await database.run(partial(_known, prefixes=[*(folder.prefix for folder in changed), *vanished]))
    gone = before.keys() - there.keys()
    new = iter([stat for key, stat in there.items() if before.get(key) != stat.etag])
    # First: if this is interrupted, and a folder vanishes before the next time, what is kept of it has to be found.
    await database.run(partial(folders.note, prefixes=[one.prefix for one in changed if one.prefix not in known]))
    while some := list(islice(new, _COMMIT_EVERY)):
        await database.run(partial(_keep, found=await _read_all(store, some)))
        progress(len(some))
    # Last, and at once: an index that was interrupted before has to look at these folders again.
    await database.run(partial(_settle, gone=gone, changed=changed, vanished=vanished, known=known))


def _known(connection: sqlite3.Connection, prefixes: Iterable[str]) -> dict[str, str]:
    return {key: etag for prefix in prefixes for key, etag in folders.objects(connection, prefix)}


def _settle(
    connection: sqlite3.Connection,
    gone: Iterable[str],
    changed: Iterable[Folder],
    vanished: Iterable[str],
    known: Mapping[str, str],
) -> None:
    for key in gone:
        rows.remove(connection, key)
    for prefix in vanished:
        folders.forget(connection, prefix)
    for folder in changed:
        if known.get(folder.prefix, "") != folder.etag:
            folders.keep(connection, folder.prefix, folder.etag)


def _keep(connection: sqlite3.Connection, found: Sequence[_Read]) -> None:
    for stat, row, trouble in found:
        rows.put(connection, stat.key, stat.etag, row, trouble)


async def _read_all(store: Store, some: Sequence[Stat]) -> list[_Read]:
    found: list[_Read] = []
    failures: list[StoreError] = []

    async def work(todo: Iterator[Stat]) -> None:
        for stat in todo:
            try:
                found.append((stat, await _read(store, stat.key), ""))
            except NotFoundError:  # removed since the listing
                continue
            except (CorruptError, RefusedError) as error:
                found.append((stat, None, error.message))
            except StoreError as error:
                failures.append(error)
                return

    small = iter([stat for stat in some if stat.size_bytes <= _LARGE_BYTES])
    async with anyio.create_task_group() as group:
        for _ in range(_READ_AT_ONCE):
            group.start_soon(work, small)
    await work(iter([stat for stat in some if stat.size_bytes > _LARGE_BYTES]))
    if failures:
        raise failures[0]
    return found


async def _read(store: Store, key: str) -> Row:
    row = await _row(store, key)
    rows.check(key, row)
    return row


async def _row(store: Store, key: str) -> Row:
    kind = keys.holds(key)
    if kind is Holds.RUN:
        return rows.of_run(key, await read_small(store, key, decode_run))
    if kind is Holds.RECORD:
        return rows.of_record(key, await read_record(store, key))
    if kind is Holds.ALIAS:
        return rows.of_alias(key, await read_small(store, key, decode_alias))
    if kind is Holds.STATE:
        return rows.of_state(key, await read_small(store, key, decode_state))
    manifest, data = await read_manifest(store, key)
    return rows.of_manifest(key, manifest, hashlib.sha256(data).hexdigest())


def unreadable(connection: sqlite3.Connection, prefix: str, most: int) -> tuple[str, ...]:
    """Return why some objects below a prefix, or anywhere for an empty one, could not be made sense of."""
    where, bound = ("AND key >= ? AND key < ?", folders.below(prefix)) if prefix else ("", ())
    found = connection.execute(f"SELECT trouble FROM objects WHERE trouble <> '' {where} LIMIT ?", (*bound, most))
    return tuple(trouble for (trouble,) in found)
