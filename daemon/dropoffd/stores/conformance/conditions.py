"""Creating, replacing and overwriting, also by several at once."""

import asyncio
import secrets

from dropoffd.stores.base import (
    AlreadyExistsError,
    Overwrite,
    PreconditionFailedError,
    Replace,
    Stat,
    Store,
    UnavailableError,
)
from dropoffd.stores.conformance.tools import (
    WRITERS,
    Suite,
    absent,
    expect,
    keys,
    put,
    sha256,
    somewhere,
    what_is_there,
)

check = Suite()


@check
async def create_never_replaces(store: Store) -> None:
    """`Create` on a key that is taken raises AlreadyExistsError and changes nothing."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    await expect(AlreadyExistsError, put(store, key, b"second"))
    await expect(AlreadyExistsError, put(store, key, b"first"))
    assert await what_is_there(store, key) == first


@check
async def of_racing_creators_one_wins(store: Store) -> None:
    """Of several writers that create one key at once exactly one succeeds, and its bytes are there, whole."""
    if not store.limits.creates_atomically:
        return
    key = f"{somewhere()}/object"
    bodies = [secrets.token_bytes(100_000 + n) for n in range(WRITERS)]
    outcomes = await asyncio.gather(*(put(store, key, data) for data in bodies), return_exceptions=True)
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Stat)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExistsError)]
    assert (len(winners), len(losers)) == (1, WRITERS - 1)
    assert await store.get(key) == bodies[winners[0]]


@check
async def overwrite_replaces_and_creates(store: Store) -> None:
    """`Overwrite` stores whether or not there was an object, and the new one is all there is."""
    prefix = somewhere()
    await put(store, f"{prefix}/object", b"a longer first content", Overwrite())
    found = await put(store, f"{prefix}/object", b"second", Overwrite())
    assert await store.get(f"{prefix}/object") == b"second"
    assert found.sha256 in {sha256(b"second"), ""}
    assert await keys(store, prefix) == [f"{prefix}/object"]


@check
async def replace_with_the_right_etag_replaces(store: Store) -> None:
    """`Replace` that names the present etag stores, and the etag is another one then."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    second = await put(store, key, b"second", Replace(first.etag))
    assert await store.get(key) == b"second"
    assert second.etag != first.etag


@check
async def replace_with_an_old_etag_changes_nothing(store: Store) -> None:
    """`Replace` that names an etag of the past raises PreconditionFailedError, and the object is as it was."""
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    second = await put(store, key, b"second", Replace(first.etag))
    await expect(PreconditionFailedError, put(store, key, b"third", Replace(first.etag)))
    assert await what_is_there(store, key) == second


@check
async def replace_of_nothing_creates_nothing(store: Store) -> None:
    """`Replace` where no object is raises PreconditionFailedError and leaves none."""
    prefix = somewhere()
    await expect(PreconditionFailedError, put(store, f"{prefix}/object", b"bytes", Replace("an-etag")))
    await absent(store, prefix)


@check
async def of_racing_replacers_one_wins(store: Store) -> None:
    """Of several writers that replace the same etag at once exactly one succeeds."""
    if not store.limits.replaces_atomically:
        return
    key = f"{somewhere()}/object"
    first = await put(store, key, b"first")
    bodies = [f"second {n}".encode() for n in range(WRITERS)]
    outcomes = await asyncio.gather(
        *(put(store, key, data, Replace(first.etag)) for data in bodies), return_exceptions=True
    )
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Stat)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, PreconditionFailedError | UnavailableError)]
    assert (len(winners), len(losers)) == (1, WRITERS - 1)
    assert await store.get(key) == bodies[winners[0]]
