"""Bring the objects of a catalogue as they are, byte for byte: by create-if-absent what never changes."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from dropoff.errors import DamagedError, DropoffError
from dropoff.records import AliasRecord, StateRecord
from dropoffd.catalogue.belongings import Kind, kind_of
from dropoffd.catalogue.publish import create
from dropoffd.catalogue.reading import SMALL_MAX_BYTES, read, read_bytes, read_small
from dropoffd.fetch.plan import Wanted
from dropoffd.fetch.verify import sha256_of
from dropoffd.stores.base import (
    AlreadyExistsError,
    Bytes,
    CorruptError,
    Create,
    Mode,
    NotFoundError,
    PreconditionFailedError,
    RefusedError,
    Replace,
    Stat,
    Store,
    ignore_progress,
)

Changing = AliasRecord | StateRecord


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
    if theirs.size_bytes != ours.size_bytes or await _sha256(target, theirs) != await _sha256(source, ours):
        raise _conflict(target, key)
    return True


async def make(target: Store, key: str, data: bytes) -> None:
    """Create an object; one of the same bytes is fine, another raises ConflictError."""
    try:
        await create(target, key, data)
    except AlreadyExistsError:
        if await _sha256(target, await target.stat(key)) != hashlib.sha256(data).hexdigest():
            raise _conflict(target, key) from None


async def follow(source: Store, target: Store, key: str, decode: Callable[[bytes], Changing]) -> None:
    """Let an object that may change be as it is in the source, unless it was changed later in the target."""
    data = await read_bytes(source, key, SMALL_MAX_BYTES)
    ours = read(data, decode, key)
    check_time(ours.changed, key)
    mode: Mode = Create()
    with contextlib.suppress(NotFoundError):
        etag = (await target.stat(key)).etag
        if (await read_small(target, key, decode)).changed >= ours.changed:
            return
        mode = Replace(etag)
    body = Bytes(data, hashlib.sha256(data).hexdigest())
    with contextlib.suppress(AlreadyExistsError, PreconditionFailedError):  # who changed it just now knows it better
        await target.put(key, body, mode, ignore_progress)


def check_time(text: str, key: str) -> None:
    """Raise CorruptError for what is no time."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise CorruptError(f"unable to use {key}: {text!r} is no time") from None


async def listed(store: Store, prefix: str) -> AsyncIterator[tuple[Kind | None, Stat]]:
    """Yield what lies below the prefix of a run or an artifact, in the order of keys."""
    count = 0
    async for stat in store.list(prefix):
        count += 1
        if count > _LISTED_MOST:
            raise CorruptError(f"unable to use {prefix}: more than {_LISTED_MOST} objects are said to lie there")
        yield kind_of(prefix, stat.key), stat


async def _sha256(store: Store, found: Stat) -> str:
    return found.sha256 or await sha256_of(store, Wanted(sha256="", size_bytes=found.size_bytes, key=found.key))


def misplaced(key: str) -> CorruptError:
    """Return what to say of an object that tells another key than its own."""
    return CorruptError(f"unable to use {key}: it is not what belongs there", hint="somebody moved it by hand")


def _conflict(target: Store, key: str) -> ConflictError:
    return ConflictError(f"{target.url} has something else under {key}")
