"""How a delivery makes sure of objects that it found in the store while garbage is collected: claim, then look.

A delivery that names objects which it did not store just now does this, in this order: it claims them, it looks
whether a sweep is removing them, it looks whether they are there, and it names them. A sweep says what it is about
to remove, looks for claims, looks at each object, and removes it (`collecting.py`). Whichever comes first, one of
the two sees the other: where the delivery sees no sweep, either its claim was there before the sweep looked, or the
sweep was over before the delivery looked at the objects.

What names objects, though, a collection reads but once, at its beginning. So whoever names something while one is
under way leaves the claim, which the sweeps to come will see. A collection lets that be known before it looks for
claims for the first time, and reads what names objects after that: a claim that was taken back before its first look
was for something that it reads.
"""

import hashlib
import logging
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import anyio

from dropoff.records import Claim, Sweep, decode_sweep, encode
from dropoffd.catalogue import keys
from dropoffd.catalogue.publish import moment
from dropoffd.catalogue.reading import read_small
from dropoffd.errors import VanishedError
from dropoffd.stores.base import (
    Bytes,
    NotFoundError,
    Overwrite,
    Stat,
    Store,
    StoreError,
    UnavailableError,
    ignore_progress,
)

_log = logging.getLogger(__name__)

# An object that was stored, or claimed, so long ago is looked at again before it is named. Well within the shortest
# time for which a collection leaves alone what nobody names.
PROVEN_SECONDS = 6 * 3600.0
# Nobody removes for so long what he once said he would: a sweep gives up much earlier (`collecting.py`).
SWEEP_MOST_SECONDS = 3600.0
_LOOKS_AT_ONCE = 16


@asynccontextmanager
async def claimed(store: Store, project: str, job: str, wanted: Collection[str], now: float) -> AsyncIterator[None]:
    """Make sure of objects for as long as the block lasts, in which they are named.

    Raises VanishedError for those that are gone, and UnavailableError while some of them are being removed.
    """
    if not wanted:
        yield
        return
    key = await claim(store, project, job, wanted, now)
    sweeps = [stat async for stat in store.list(keys.sweeps_prefix(project))]
    # The store's own time: that of the claim that was just made.
    current = (await store.stat(key)).modified_at if sweeps else 0.0
    if await announced(store, sweeps, current) & set(wanted):
        raise UnavailableError(f"unable to deliver job {job}: what it needs in the store is being removed as garbage")
    gone = await _gone(store, wanted)
    if gone:
        raise VanishedError(gone)
    yield
    if not sweeps:
        try:
            await store.delete(key)
        except StoreError as error:  # it keeps garbage a day longer, which is no reason to deliver all of it again
            _log.info("claim left behind key=%s cause=%s", key, error)


def is_proven(moment: float, now: float) -> bool:
    """Tell whether an object that was surely there at a moment, by the same clock as `now`, is so still."""
    return 0 <= now - moment <= PROVEN_SECONDS


async def claim(store: Store, project: str, job: str, wanted: Collection[str], now: float) -> str:
    """Let nobody remove objects as garbage that are there, for as long as the claim is young; return its key."""
    key = keys.claim_key(project, job)
    await overwrite(store, key, encode(Claim(job=job, keys=tuple(wanted), created=moment(now))))
    return key


async def overwrite(store: Store, key: str, data: bytes) -> Stat:
    """Store a small object, whatever is there."""
    return await store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)


async def announced(store: Store, sweeps: Iterable[Stat], now: float) -> set[str]:
    """Return what sweeps say that they remove, but for those that are long over; `now` by the store's clock."""
    found: set[str] = set()
    for stat in sweeps:
        # Of one whose time the store does not tell nobody knows that.
        if stat.modified_at and now - stat.modified_at > SWEEP_MOST_SECONDS:
            continue
        try:
            sweep: Sweep = await read_small(store, stat.key, decode_sweep)
        except NotFoundError:  # over since the listing
            continue
        found.update(sweep.keys)
    return found


async def _gone(store: Store, wanted: Collection[str]) -> set[str]:
    gone: set[str] = set()
    failures: list[StoreError] = []
    todo = iter(wanted)

    async def look() -> None:
        for key in todo:
            try:
                await store.stat(key)
            except NotFoundError:
                gone.add(key)
            except StoreError as error:
                failures.append(error)
                return

    async with anyio.create_task_group() as group:
        for _ in range(min(_LOOKS_AT_ONCE, len(wanted))):
            group.start_soon(look)
    if failures:
        raise failures[0]
    return gone
