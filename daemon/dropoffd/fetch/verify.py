"""Find out whether a store has what it should have."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import anyio
import anyio.to_thread

from dropoff.answers import Damage, Verified
from dropoff.errors import DamagedError
from dropoffd.fetch.deliver import File
from dropoffd.fetch.plan import PIECE_BYTES, Wanted
from dropoffd.fetch.reading import exactly
from dropoffd.stores.base import NotFoundError, Store, StoreError

AT_ONCE = 8
TOLD_MOST = 500


class Findings(NamedTuple):
    """What a look at objects found."""

    damage: list[Damage]
    objects: int
    read_bytes: int


async def verify(store: Store, files: Sequence[File], *, read_data: bool) -> Verified:
    """Look at every object that `files` name, and hash every content with `read_data`; raises StoreError."""
    found = await find_damage(store, files, anyio.CapacityLimiter(AT_ONCE), read_data=read_data)
    return Verified(
        files=len(files), objects=found.objects, read_bytes=found.read_bytes, damaged=len(found.damage),
        damage=tuple(found.damage[:TOLD_MOST]),
    )  # fmt: skip


async def find_damage(
    store: Store, files: Iterable[File], places: anyio.CapacityLimiter, *, read_data: bool
) -> Findings:
    """Do as `verify`, looking at no more objects at once than there are places."""
    by_key: dict[str, list[File]] = {}
    for file in files:
        by_key.setdefault(file.content.key, []).append(file)
    damage: list[Damage] = []
    read_bytes = 0
    troubles: list[StoreError] = []
    todo = iter(by_key.items())

    async def work() -> None:
        nonlocal read_bytes
        for key, held in todo:
            try:
                async with places:
                    found = await _looked_at(store, key, held)
                    if read_data and not found:
                        found, read = await _hashed(store, held)
                        read_bytes += read
            except StoreError as error:
                troubles.append(error)
                return
            damage.extend(found)

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, len(by_key))):
            group.start_soon(work)
    if troubles:
        raise troubles[0]
    damage.sort(key=lambda one: one.path)
    return Findings(damage, len(by_key), read_bytes)


async def _looked_at(store: Store, key: str, held: Sequence[File]) -> list[Damage]:
    try:
        stat = await store.stat(key)
    except NotFoundError:
        return [Damage(file.path, key, "it is not in the store") for file in held]
    return [
        Damage(file.path, key, cause) for file in held if (cause := _objection(stat.size_bytes, stat.sha256, file))
    ]


def _objection(size: int, sha256: str, file: File) -> str:
    content = file.content
    if content.end > size or (not file.packed and size != content.size_bytes):
        return f"the object has {size} bytes, which cannot be"
    if sha256 and not file.packed and sha256 != content.sha256:
        return f"the object is said to have sha256 {sha256}"
    return ""


async def _hashed(store: Store, held: Sequence[File]) -> tuple[list[Damage], int]:
    damage = []
    contents = {file.content for file in held}
    for content in contents:
        try:
            good = await sha256_of(store, content) == content.sha256
            cause = "" if good else "its bytes are not those of its sha256"
        except DamagedError as error:
            cause = error.message
        if cause:
            damage += [Damage(file.path, content.key, cause) for file in held if file.content == content]
    return damage, sum(content.size_bytes for content in contents)


async def sha256_of(store: Store, content: Wanted) -> str:
    """Return the digest of what a store gives for a content; raises DamagedError where it is less, and StoreError."""
    digest = hashlib.sha256()
    for start in range(content.start, content.end, PIECE_BYTES):
        piece = await exactly(store, content.key, start, min(start + PIECE_BYTES, content.end))
        await anyio.to_thread.run_sync(digest.update, piece)
    return digest.hexdigest()
