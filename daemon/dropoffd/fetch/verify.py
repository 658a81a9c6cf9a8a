"""Find out whether a store has what it should have."""

import hashlib
from collections.abc import Iterable, Sequence

import anyio
import anyio.to_thread

from dropoff.errors import DamagedError
from dropoff.messages import Damage, Verified
from dropoffd.fetch.deliver import File
from dropoffd.fetch.plan import PIECE_BYTES, Wanted
from dropoffd.fetch.reading import exactly
from dropoffd.stores.base import NotFoundError, Store, StoreError

_AT_ONCE = 8
_TOLD_MOST = 500


async def verify(store: Store, files: Iterable[File], *, read_data: bool) -> Verified:
    """Look at every object that `files` name, and hash every content with `read_data`; raises StoreError."""
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
                found = await _looked_at(store, key, held)
                if read_data and not found:
                    found, read = await _hashed(store, held)
                    read_bytes += read
            except StoreError as error:
                troubles.append(error)
                return
            damage.extend(found)

    async with anyio.create_task_group() as group:
        for _ in range(_AT_ONCE):
            group.start_soon(work)
    if troubles:
        raise troubles[0]
    damage.sort(key=lambda one: one.path)
    return Verified(
        files=sum(map(len, by_key.values())), objects=len(by_key), read_bytes=read_bytes, damaged=len(damage),
        damage=tuple(damage[:_TOLD_MOST]),
    )  # fmt: skip


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
            good = await _sha256(store, content) == content.sha256
            cause = "" if good else "its bytes are not those of its sha256"
        except DamagedError as error:
            cause = error.message
        if cause:
            damage += [Damage(file.path, content.key, cause) for file in held if file.content == content]
    return damage, sum(content.size_bytes for content in contents)


async def _sha256(store: Store, content: Wanted) -> str:
    digest = hashlib.sha256()
    for start in range(content.start, content.end, PIECE_BYTES):
        piece = await exactly(store, content.key, start, min(start + PIECE_BYTES, content.end))
        await anyio.to_thread.run_sync(digest.update, piece)
    return digest.hexdigest()
