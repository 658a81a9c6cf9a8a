# ruff: noqa: D401  # a check's docstring is what it claims, not what it does
"""Bodies that are not what they say, break, or are given up: nothing of them stays."""

import secrets

from dropoff.errors import UnstableSourceError
from dropoffd.stores.base import Bytes, CorruptError, Create, Overwrite, Replace, Store, ignore_progress
from dropoffd.stores.conformance.tools import (
    NOWHERE,
    Failing,
    Halting,
    Short,
    Suite,
    absent,
    body,
    cancel_at_half,
    expect,
    put,
    sha256,
    somewhere,
    what_is_there,
)

check = Suite()


@check
async def bytes_that_are_not_their_digest_are_corrupt(store: Store) -> None:
    """A body whose bytes have another digest raises CorruptError, and nothing appears under the key."""
    prefix = somewhere()
    for mode in (Create(), Overwrite()):
        lying = Bytes(b"some bytes", NOWHERE)
        await expect(CorruptError, store.put(f"{prefix}/object", lying, mode, ignore_progress))
    await absent(store, prefix)


@check
async def a_corrupt_body_does_not_harm_what_is_there(store: Store) -> None:
    """A body whose bytes have another digest leaves the object that was there alone."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    for mode in (Overwrite(), Replace(first.etag)):
        await expect(CorruptError, store.put(key, Bytes(b"second", NOWHERE), mode, ignore_progress))
    assert await what_is_there(store, key) == first
    assert await store.get(key) == b"first"


@check
async def a_body_that_ends_early_is_corrupt(store: Store) -> None:
    """A body with fewer bytes than its length raises CorruptError and leaves nothing."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    for sha in (sha256(data), sha256(data[: len(data) // 2])):
        await expect(CorruptError, store.put(f"{prefix}/object", Short(data, sha), Create(), ignore_progress))
    await absent(store, prefix)


@check
async def a_body_that_fails_leaves_nothing(store: Store) -> None:
    """What reading the body raises comes through as it is, and nothing appears under the key."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    failing = Failing(data, sha256(data))
    await expect(UnstableSourceError, store.put(f"{prefix}/object", failing, Create(), ignore_progress))
    await absent(store, prefix)


@check
async def a_cancelled_put_leaves_nothing(store: Store) -> None:
    """A put that is cancelled after half of its bytes ends, and nothing appears under the key."""
    prefix = somewhere()
    data = secrets.token_bytes(3 << 20)
    halting = Halting(data, sha256(data))
    await cancel_at_half(halting, store.put(f"{prefix}/object", halting, Create(), halting.progress))
    await absent(store, prefix)


@check
async def a_body_is_read_again_for_another_put(store: Store) -> None:
    """The same body can be put twice, whole each time."""
    prefix = somewhere()
    once = body(secrets.token_bytes(2 << 20))
    for name in ("one", "two"):
        found = await store.put(f"{prefix}/{name}", once, Create(), ignore_progress)
        assert found.size_bytes == 2 << 20
    assert await store.get(f"{prefix}/one") == await store.get(f"{prefix}/two")
