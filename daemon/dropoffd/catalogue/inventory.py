"""Go through the records and manifests of a store: what each of them names is what somebody saved.

Manifests of versions that were removed, and contributions to versions that are not there yet, are gone through, too,
where they are asked for.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection

import anyio
import msgspec

from dropoff.records import Contribution, Manifest, Record
from dropoffd.catalogue import keys
from dropoffd.catalogue.keys import Holds
from dropoffd.catalogue.reading import read_contribution, read_manifest, read_record
from dropoffd.stores.base import CorruptError, NotFoundError, RefusedError, Stat, Store, StoreError

_READ_AT_ONCE = 8

Found = Record | Manifest | Contribution | CorruptError | RefusedError
Use = Callable[[Stat, Found], Awaitable[None]]

STANDING = frozenset({Holds.RECORD, Holds.MANIFEST})


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """All of a store, one project, or one run or artifact of it."""

    project: str = ""
    run: str = ""
    artifact: str = ""


async def take_inventory(store: Store, scope: Scope, use: Use, kinds: Collection[Holds] = STANDING) -> None:
    """Hand every record and manifest in scope to `use`, several at once.

    In place of one that makes no sense it is handed the reason. Raises StoreError where the store does not answer.
    """
    stats = _listed(store, scope, kinds)
    turn = anyio.Lock()
    failures: list[StoreError] = []

    async def work() -> None:
        while not failures:
            async with turn:
                stat = await anext(stats, None)
            if stat is None:
                return
            try:
                await use(stat, await _read(store, stat.key))
            except NotFoundError:  # removed since the listing
                continue
            except StoreError as error:
                failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(_READ_AT_ONCE):
            group.start_soon(work)
    if failures:
        raise failures[0]


async def _listed(store: Store, scope: Scope, kinds: Collection[Holds]) -> AsyncIterator[Stat]:
    for prefix in await _prefixes(store, scope):
        if prefix.endswith("/runs/") and Holds.RECORD not in kinds:
            continue
        async for stat in store.list(prefix):
            if keys.holds(stat.key) in kinds:
                yield stat


async def _prefixes(store: Store, scope: Scope) -> list[str]:
    if scope.artifact:
        return [keys.versions_prefix(scope.project, scope.artifact)]
    if scope.run:
        return [keys.records_prefix(scope.project, scope.run)]
    if scope.project:
        return list(keys.catalogue_prefixes(keys.project_prefix(scope.project)))
    return [prefix async for folder in store.folders("") for prefix in keys.catalogue_prefixes(folder)]


async def _read(store: Store, key: str) -> Found:
    try:
        if keys.holds(key) is Holds.RECORD:
            return await read_record(store, key)
        if keys.holds(key) is Holds.CONTRIBUTION:
            return await read_contribution(store, key)
        return (await read_manifest(store, key))[0]
    except (CorruptError, RefusedError) as error:
        return error
