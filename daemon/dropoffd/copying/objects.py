"""Bring records, manifests and links: as they are, byte for byte, by create-if-absent."""

import hashlib
from collections.abc import AsyncIterator

from dropoff.errors import DamagedError, DropoffError
from dropoffd.catalogue.belongings import Kind, kind_of
from dropoffd.catalogue.publish import create
from dropoffd.catalogue.reading import MANIFEST_MAX_BYTES, read_bytes
from dropoffd.stores.base import AlreadyExistsError, CorruptError, NotFoundError, RefusedError, Store

# A store of somebody who means harm may list for ever.
_LISTED_MOST = 5_000_000


# Of one thing, which is left out; others are copied.
DAMAGE = (CorruptError, DamagedError, RefusedError)


class ConflictError(DropoffError):
    """The target has something else under a key that only one of both can have."""


async def has_same(source: Store, target: Store, key: str) -> bool:
    """Tell whether the target has the source's object; raises ConflictError if it has another."""
    try:
        theirs = await target.stat(key)
    except NotFoundError:
        return False
    ours = await source.head(key)
    if theirs.sha256 and ours.sha256:
        same = theirs.sha256 == ours.sha256
    else:
        same = theirs.size_bytes == ours.size_bytes and await _all(source, key) == await _all(target, key)
    if not same:
        raise _conflict(target, key)
    return True


async def make(target: Store, key: str, data: bytes) -> None:
    """Create an object; one of the same bytes is fine, another raises ConflictError."""
    try:
        await create(target, key, data)
    except AlreadyExistsError:
        found = await target.stat(key)
        sha256 = found.sha256 or hashlib.sha256(await _all(target, key)).hexdigest()
        if sha256 != hashlib.sha256(data).hexdigest():
            raise _conflict(target, key) from None


async def listed(store: Store, prefix: str) -> AsyncIterator[tuple[Kind | None, str]]:
    """Yield what lies below the prefix of a run or an artifact, and its key, in the order of keys."""
    count = 0
    async for stat in store.list(prefix):
        count += 1
        if count > _LISTED_MOST:
            raise CorruptError(f"unable to use {prefix}: more than {_LISTED_MOST} objects are said to lie there")
        yield kind_of(prefix, stat.key), stat.key


async def _all(store: Store, key: str) -> bytes:
    return await read_bytes(store, key, MANIFEST_MAX_BYTES)


def misplaced(key: str) -> CorruptError:
    """Return what to say of an object that tells another key than its own."""
    return CorruptError(f"unable to use {key}: it is not what belongs there", hint="somebody moved it by hand")


def _conflict(target: Store, key: str) -> ConflictError:
    return ConflictError(f"{target.url} has something else under {key}")
