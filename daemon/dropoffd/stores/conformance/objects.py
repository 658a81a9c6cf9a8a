# ruff: noqa: D401  # a check's docstring is what it claims, not what it does
"""Whole objects: what was put can be got, looked at and deleted."""

import secrets

from dropoffd.stores.base import Create, NotFoundError, Overwrite, Store
from dropoffd.stores.conformance.tools import (
    LARGE_BYTES,
    Suite,
    absent,
    body,
    expect,
    keys,
    put,
    sha256,
    somewhere,
    what_is_there,
)

check = Suite()


@check
async def what_was_put_can_be_got(store: Store) -> None:
    """An object that was put has the bytes that were put."""
    key = f"{somewhere()}/object"
    await put(store, key, b"some bytes")
    assert await store.get(key) == b"some bytes"


@check
async def put_returns_what_the_store_has(store: Store) -> None:
    """The answer of `put` is what `stat` tells right after."""
    key = f"{somewhere()}/object"
    found = await put(store, key, b"some bytes")
    assert (found.key, found.size_bytes) == (key, 10)
    assert await what_is_there(store, key) == found


@check
async def stat_tells_size_and_digest(store: Store) -> None:
    """`stat` tells the key, the size and, if the store knows one, the right sha256; `head` what was noted of it."""
    key = f"{somewhere()}/object"
    await put(store, key, b"some bytes")
    found, noted = await store.stat(key), await store.head(key)
    assert (found.key, found.size_bytes) == (noted.key, noted.size_bytes) == (key, 10)
    assert {found.sha256, noted.sha256} <= {sha256(b"some bytes"), ""}
    assert found.sha256 or store.limits.verifies != "sha256"


@check
async def etags_tell_contents_apart(store: Store) -> None:
    """Another content has another etag, the same unchanged object the same."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"one")
    assert (await store.stat(key)).etag == first.etag
    second = await put(store, key, b"two", Overwrite())
    assert second.etag != first.etag


@check
async def an_empty_object_is_an_object(store: Store) -> None:
    """An object without bytes can be put, seen and read."""
    key = f"{somewhere()}/empty"
    found = await put(store, key, b"")
    assert found.size_bytes == 0
    assert await store.get(key) == b""
    assert await keys(store, key) == [key]


@check
async def a_large_object_arrives_whole(store: Store) -> None:
    """An object of many pieces has the size and digest of what was sent."""
    key = f"{somewhere()}/large"
    size = min(LARGE_BYTES, store.limits.single_max_bytes)
    data = secrets.token_bytes(1 << 20) * (size >> 20)
    found = await put(store, key, data)
    assert found.size_bytes == size
    assert found.sha256 in {sha256(data), ""}
    assert await store.get(key, size - 10) == data[-10:]


@check
async def progress_adds_up_to_the_size(store: Store) -> None:
    """The pieces that `progress` is told of are the object, no more and no less."""
    key = f"{somewhere()}/object"
    pieces: list[int] = []
    data = secrets.token_bytes((5 << 20) + 7)
    await store.put(key, body(data), Create(), pieces.append)
    assert sum(pieces) == len(data)
    assert min(pieces) > 0


@check
async def contents_may_look_like_answers(store: Store) -> None:
    """An object that reads like a store's error message is given back as it is."""
    key = f"{somewhere()}/object"
    data = b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>"
    await put(store, key, data)
    assert await store.get(key) == data
    assert await store.get(key, 21) == data[21:]


@check
async def ranges_can_be_read(store: Store) -> None:
    """Any part of an object can be read, and nothing beyond its end."""
    key = f"{somewhere()}/object"
    await put(store, key, b"0123456789")
    assert await store.get(key, 3) == b"3456789"
    assert await store.get(key, 3, 5) == b"34"
    assert await store.get(key, 0, 1) == b"0"
    assert await store.get(key, 8, 100) == b"89"
    assert await store.get(key, 5, 5) == b""


@check
async def ranges_are_received_where_they_are_wanted(store: Store) -> None:
    """A buffer is filled with any part of an object, as far as the object goes."""
    key = f"{somewhere()}/object"
    await put(store, key, b"0123456789")
    for start, size, wanted in (
        (0, 10, b"0123456789"),
        (3, 2, b"34"),
        (8, 5, b"89"),
        (10, 5, b""),
        (99, 1, b""),
        (5, 0, b""),
    ):
        buffer = bytearray(size)
        count = await store.read(key, start, memoryview(buffer))
        assert bytes(buffer[:count]) == wanted
    await expect(NotFoundError, store.read(f"{somewhere()}/nothing", 0, memoryview(bytearray(1))))


@check
async def reading_what_is_not_there_says_so(store: Store) -> None:
    """`get`, `stat` and `head` of a key that nobody put raise NotFoundError."""
    key = f"{somewhere()}/nothing"
    await expect(NotFoundError, store.get(key))
    await expect(NotFoundError, store.stat(key))
    await expect(NotFoundError, store.head(key))


@check
async def a_prefix_of_a_key_is_not_an_object(store: Store) -> None:
    """The beginning of an object's key, up to a slash, names nothing."""
    prefix = somewhere()
    await put(store, f"{prefix}/below/object", b"bytes")
    await expect(NotFoundError, store.stat(f"{prefix}/below"))
    await expect(NotFoundError, store.get(f"{prefix}/below"))


@check
async def below_an_object_there_is_nothing(store: Store) -> None:
    """A key that goes on where an object's key ends names nothing."""
    key = f"{somewhere()}/object"
    await put(store, key, b"bytes")
    await expect(NotFoundError, store.stat(f"{key}/below"))
    await expect(NotFoundError, store.get(f"{key}/below"))


@check
async def delete_removes(store: Store) -> None:
    """A deleted object is neither found nor listed, and its key is free again."""
    prefix = somewhere()
    await put(store, f"{prefix}/object", b"one")
    await store.delete(f"{prefix}/object")
    await expect(NotFoundError, store.stat(f"{prefix}/object"))
    await absent(store, prefix)
    await put(store, f"{prefix}/object", b"two")
    assert await store.get(f"{prefix}/object") == b"two"


@check
async def deleting_twice_is_fine(store: Store) -> None:
    """Deleting what is not there is no error."""
    key = f"{somewhere()}/object"
    await store.delete(key)
    await put(store, key, b"bytes")
    await store.delete(key)
    await store.delete(key)


@check
async def deleting_a_prefix_of_a_key_removes_nothing(store: Store) -> None:
    """Deleting the beginning of a key, or what would be below it, is no error and leaves the object alone."""
    prefix = somewhere()
    await put(store, f"{prefix}/below/object", b"bytes")
    await store.delete(f"{prefix}/below")
    await store.delete(f"{prefix}/below/object/further")
    assert await keys(store, prefix) == [f"{prefix}/below/object"]
