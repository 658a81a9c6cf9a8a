"""Aliases: small objects that stand for a version, moved by compare-and-swap.

`latest` only ever moves forward. Any other moves where it is told, once for each call: what is about to be
replaced is noted first, so that a try after a crash neither repeats the move nor undoes somebody's later one.
"""

import hashlib
from collections.abc import Awaitable, Callable

from dropoff.records import AliasRecord, decode_alias, encode
from dropoffd.catalogue.publish import moment
from dropoffd.catalogue.reading import read
from dropoffd.stores.base import (
    AlreadyExistsError,
    Bytes,
    Create,
    NotFoundError,
    PreconditionFailedError,
    Replace,
    Store,
    UnavailableError,
    ignore_progress,
)

LATEST = "latest"
ALIAS_MAX_BYTES = 64 << 10
# Somebody else succeeds each time that we do not, so this many in a row are a store that misbehaves.
_TRIES = 100


async def alias_of(store: Store, key: str) -> AliasRecord | None:
    """Return what an alias stands for, or None if there is none."""
    try:
        return read(await store.get(key, 0, ALIAS_MAX_BYTES), decode_alias, key)
    except NotFoundError:
        return None


async def advance(store: Store, key: str, new: AliasRecord) -> None:
    """Let an alias stand for `new` unless it stands for that version or a later one."""
    for _ in range(_TRIES):
        etag, current = await _look(store, key)
        if current is not None and current.version >= new.version:
            return
        if await swap(store, key, etag, encode(new)):
            return
    raise _contended(key)


async def move(
    store: Store, key: str, new: AliasRecord, noted: str | None, note: Callable[[str], Awaitable[None]]
) -> None:
    """Let an alias stand for `new`, once.

    `noted` is what an earlier try was about to replace, "" for nothing there, None if there was no such try.
    """
    for _ in range(_TRIES):
        etag, current = await _look(store, key)
        if current is not None and current.job == new.job:
            return
        if noted is not None and noted != etag:  # it was moved, and then again by somebody else
            return
        if noted is None:
            await note(etag)
        if await swap(store, key, etag, encode(new)):
            return
        noted = None
    raise _contended(key)


async def let_stand(store: Store, key: str, new: AliasRecord) -> None:
    """Let an alias stand for `new`, whatever it stood for: a person says so, once."""

    async def nothing(_: str) -> None:
        """Forget what it stood for: no other try will ask."""

    await move(store, key, new, None, nothing)


async def take_away(store: Store, key: str) -> bool:
    """Remove an alias; False if there is none."""
    if await alias_of(store, key) is None:
        return False
    await store.delete(key)
    return True


async def _look(store: Store, key: str) -> tuple[str, AliasRecord | None]:
    # The etag first: if the alias moves between the two, the swap fails.
    try:
        etag = (await store.stat(key)).etag
    except NotFoundError:
        return "", None
    return etag, await alias_of(store, key)


async def swap(store: Store, key: str, etag: str, data: bytes) -> bool:
    """Store a small object in place of that with an etag, empty for none; False if it is another by now."""
    body = Bytes(data, hashlib.sha256(data).hexdigest())
    try:
        await store.put(key, body, Replace(etag) if etag else Create(), ignore_progress)
    except (AlreadyExistsError, PreconditionFailedError):
        return False
    return True


def alias_record(version: int, now: float, job: str) -> AliasRecord:
    """Return what an alias is to say."""
    return AliasRecord(version=version, changed=moment(now), job=job)


def _contended(key: str) -> UnavailableError:
    return UnavailableError(f"unable to move {key}: it kept changing", hint="it is tried again by itself")
