# ruff: noqa: D401  # a check's docstring is what it claims, not what it does
"""What a store that takes objects in parts has to be: checks like the others, for stores that do.

What is sent is small: one part of the least size that the store allows, and a shorter one after it.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence

from dropoff.errors import UnstableSourceError
from dropoffd import crc
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    Bytes,
    CorruptError,
    Create,
    Mode,
    Multipart,
    NoSuchUploadError,
    NotFoundError,
    Overwrite,
    Part,
    PreconditionFailedError,
    RefusedError,
    Replace,
    Stat,
    Store,
    ignore_progress,
)
from dropoffd.stores.conformance.tools import (
    Failing,
    Halting,
    Short,
    Suite,
    absent,
    cancel_at_half,
    expect,
    keys,
    put,
    sha256,
    somewhere,
    timeless,
    what_is_there,
)

_LEAST_BYTES = 1 << 20
_DAY_SECONDS = 86400.0

check = Suite()


class Changing(Bytes):
    """A body that is another one from the second time on that it is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, "")
        self._left = len(data)

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes; the first of them is another one once all were read."""
        piece = super().read(size, offset)
        changed = bytes([piece[0] ^ 1]) + piece[1:] if piece and self._left <= 0 else piece
        self._left -= len(piece)
        return changed

    def read_cached(self, buffer: memoryview, offset: int) -> int:  # noqa: ARG002  # the interface's
        """Have nothing."""
        return 0


class Sending:
    """An upload of some pieces, as this suite makes them."""

    def __init__(self, store: Store, key: str, pieces: Sequence[bytes]) -> None:
        self.key = key
        self.pieces = pieces
        self.data = b"".join(pieces)
        self.multipart = multipart(store)
        self.upload = ""

    async def begin(self) -> "Sending":
        """Begin it."""
        self.upload = await self.multipart.begin(self.key, sha256(self.data))
        return self

    async def part(self, number: int, body: Body | None = None) -> Part:
        """Store one part."""
        sent = body or Bytes(self.pieces[number - 1], "")
        return await self.multipart.put_part(self.key, self.upload, number, sent, ignore_progress)

    async def parts(self) -> list[Part]:
        """Store all parts in their order."""
        return [await self.part(number) for number in range(1, len(self.pieces) + 1)]

    async def finish(self, parts: Sequence[Part], mode: Mode | None = None) -> Stat:
        """Make the object."""
        stat = await self.multipart.finish(self.key, self.upload, parts, sha256(self.data), mode or Create())
        return timeless(stat)

    async def abandon(self) -> None:
        """Give it up."""
        await self.multipart.abandon(self.key, self.upload)

    async def listed(self) -> bool:
        """Tell whether the store counts it among the unfinished."""
        found = [one.upload async for one in self.multipart.uploads(self.key)]
        return self.upload in found


def multipart(store: Store) -> Multipart:
    """Return the store's way to take parts."""
    if store.multipart is None:
        raise AssertionError(f"{store.url} takes no parts")
    return store.multipart


async def begun(store: Store, key: str = "", *, pieces: Sequence[bytes] = ()) -> Sending:
    """Begin an upload, of two parts unless told otherwise."""
    return await Sending(store, key or f"{somewhere()}/object", pieces or (filling(store), b"and the end")).begin()


def filling(store: Store) -> bytes:
    """Return the smallest part that another one may follow."""
    size = max(_LEAST_BYTES, store.limits.part_min_bytes)
    return (secrets.token_bytes(64 << 10) * (size // (64 << 10) + 1))[:size]


@check
async def parts_make_the_object(store: Store) -> None:
    """The object has the bytes of its parts in their order, and its size and digest are told as for any other."""
    sending = await begun(store)
    found = await sending.finish(await sending.parts())
    assert (found.key, found.size_bytes, found.sha256) == (sending.key, len(sending.data), sha256(sending.data))
    assert await what_is_there(store, sending.key) == found
    assert await store.get(sending.key) == sending.data
    seam = len(sending.pieces[0])
    assert await store.get(sending.key, seam - 3, seam + 3) == sending.data[seam - 3 : seam + 3]


@check
async def parts_may_come_in_any_order(store: Store) -> None:
    """Parts that are stored at once and the last one first make the object in the order of their numbers."""
    sending = await begun(store, pieces=(filling(store), filling(store), b"and the end"))
    last = await sending.part(3)
    first, second = await asyncio.gather(sending.part(1), sending.part(2))
    await sending.finish([first, second, last])
    assert await store.get(sending.key) == sending.data


@check
async def one_part_is_enough(store: Store) -> None:
    """An object of a single part, smaller than others have to be, is an object."""
    sending = await begun(store, pieces=(b"all of it",))
    found = await sending.finish(await sending.parts())
    assert (found.size_bytes, await store.get(sending.key)) == (9, b"all of it")


@check
async def a_part_can_be_replaced(store: Store) -> None:
    """A part that is stored again takes the place of the first: it alone is listed, and it is in the object."""
    sending = await begun(store)
    first = await sending.part(1)
    await sending.part(2, Bytes(b"in the first place", ""))
    last = await sending.part(2)
    assert [part.number for part in await sending.multipart.parts(sending.key, sending.upload)] == [1, 2]
    await sending.finish([first, last])
    assert await store.get(sending.key) == sending.data


@check
async def parts_are_listed_as_they_were_confirmed(store: Store) -> None:
    """`parts` tells of each stored part the number, the size and the etag that `put_part` told, in order."""
    sending = await begun(store)
    assert await sending.multipart.parts(sending.key, sending.upload) == []
    second = await sending.part(2)
    first = await sending.part(1)
    found = await sending.multipart.parts(sending.key, sending.upload)
    assert [(part.number, part.size_bytes, part.etag) for part in found] == [
        (part.number, part.size_bytes, part.etag) for part in (first, second)
    ]
    assert [part.size_bytes for part in found] == [len(piece) for piece in sending.pieces]
    assert first.etag
    await sending.abandon()


@check
async def parts_tell_what_was_sent(store: Store) -> None:
    """The CRC-64/NVME of the parts, put together, is that of the content."""
    sending = await begun(store)
    whole = crc.crc64nvme()
    whole.update(sending.data)
    found = await sending.parts()
    assert crc.combined((part.crc64nvme, part.size_bytes) for part in found) == whole.written()
    await sending.abandon()


@check
async def nothing_appears_before_the_end(store: Store) -> None:
    """Until the upload is finished there is no object, and the upload is listed; then there is one, and it is not."""
    sending = await begun(store)
    found = await sending.parts()
    await expect(NotFoundError, store.stat(sending.key))
    await absent(store, sending.key)
    assert await sending.listed()
    await sending.finish(found)
    assert await keys(store, sending.key) == [sending.key]
    assert not await sending.listed()


@check
async def unfinished_uploads_are_listed(store: Store) -> None:
    """`uploads` tells key, id and beginning of each upload below a prefix, which need not end at a slash."""
    prefix = somewhere()
    sendings = [await begun(store, f"{prefix}/{name}") for name in ("run-1/a", "run-10/b", "run-10/b", "run-2/c")]
    found = [one async for one in sendings[0].multipart.uploads(f"{prefix}/run-1")]
    assert sorted((one.key, one.upload) for one in found) == sorted((one.key, one.upload) for one in sendings[:3])
    assert max(abs(one.begun_at - time.time()) for one in found) < _DAY_SECONDS
    for sending in sendings:
        await sending.abandon()
    assert [one async for one in sendings[0].multipart.uploads(f"{prefix}/")] == []


@check
async def uploads_of_one_key_are_apart(store: Store) -> None:
    """Two uploads of one key have parts of their own, and giving up one leaves the other alone."""
    one = await begun(store)
    other = await begun(store, one.key)
    found = await one.parts()
    assert await other.multipart.parts(other.key, other.upload) == []
    await other.part(1)
    await other.abandon()
    await one.finish(found)
    assert await store.get(one.key) == one.data


@check
async def an_upload_that_was_given_up_is_unknown(store: Store) -> None:
    """After `abandon` all that is asked of the upload raises NoSuchUploadError, and there is no object."""
    sending = await begun(store)
    found = await sending.parts()
    await sending.abandon()
    await expect(NoSuchUploadError, sending.multipart.parts(sending.key, sending.upload))
    await expect(NoSuchUploadError, sending.part(1))
    await expect(NoSuchUploadError, sending.finish(found))
    await absent(store, sending.key)


@check
async def giving_up_twice_is_fine(store: Store) -> None:
    """Giving up an upload that is given up, or finished, is no error and harms nothing."""
    sending = await begun(store)
    await sending.abandon()
    await sending.abandon()
    await sending.begin()
    await sending.finish(await sending.parts())
    await sending.abandon()
    assert await store.get(sending.key) == sending.data


@check
async def finishing_twice_tells_the_same(store: Store) -> None:
    """`finish` of what is finished, as after an answer that was lost, returns what the store has."""
    sending = await begun(store)
    found = await sending.parts()
    assert await sending.finish(found) == await sending.finish(found)


@check
async def finishing_what_somebody_else_finished_tells_the_same(store: Store) -> None:
    """`finish` where the same content was stored meanwhile returns what the store has, and ends the upload."""
    one = await begun(store)
    other = await begun(store, one.key, pieces=one.pieces)
    found = await other.parts()
    assert await one.finish(await one.parts()) == await other.finish(found)
    assert not await other.listed()


@check
async def parts_that_the_store_does_not_have_are_lost(store: Store) -> None:
    """`finish` with a part that was never stored raises NoSuchUploadError, and there is no object."""
    sending = await begun(store)
    first = await sending.part(1)
    never = Part(number=2, size_bytes=5, etag=first.etag, crc64nvme=first.crc64nvme, checksum=first.checksum)
    await expect(NoSuchUploadError, sending.finish([first, never]))
    await absent(store, sending.key)
    await sending.abandon()


@check
async def finishing_never_replaces_what_is_there(store: Store) -> None:
    """`finish` in the mode `Create` where an object is raises AlreadyExistsError and leaves that object alone."""
    sending = await begun(store)
    found = await sending.parts()
    there = await put(store, sending.key, b"somebody else's")
    await expect(AlreadyExistsError, sending.finish(found))
    assert await what_is_there(store, sending.key) == there
    await sending.abandon()


@check
async def finishing_replaces_what_it_names(store: Store) -> None:
    """`finish` replaces an object in the mode `Overwrite`, and in `Replace` only the one that was named."""
    sending = await begun(store)
    first = await put(store, sending.key, b"first")
    second = await put(store, sending.key, b"second", Overwrite())
    found = await sending.parts()
    await expect(PreconditionFailedError, sending.finish(found, Replace(first.etag)))
    assert await what_is_there(store, sending.key) == second
    await sending.finish(found, Replace(second.etag))
    assert await store.get(sending.key) == sending.data
    again = await begun(store, sending.key)
    await again.finish(await again.parts(), Overwrite())
    assert await store.get(sending.key) == again.data


@check
async def finishing_replaces_nothing_where_nothing_is(store: Store) -> None:
    """`finish` in the mode `Replace` where no object is raises PreconditionFailedError and leaves none."""
    sending = await begun(store)
    found = await sending.parts()
    await expect(PreconditionFailedError, sending.finish(found, Replace("0" * 32)))
    await absent(store, sending.key)
    await sending.abandon()


@check
async def progress_of_a_part_adds_up(store: Store) -> None:
    """The pieces of a part that `progress` is told of are the part, no more and no less."""
    sending = await begun(store)
    pieces: list[int] = []
    for number, data in enumerate(sending.pieces, 1):
        body = Bytes(data, "")
        await sending.multipart.put_part(sending.key, sending.upload, number, body, pieces.append)
    assert sum(pieces) == len(sending.data)
    assert min(pieces) > 0
    await sending.abandon()


@check
async def bytes_that_change_are_noticed(store: Store) -> None:
    """A part whose bytes change while they are sent raises CorruptError, at the latest at the end."""
    sending = await begun(store)
    try:
        first = await sending.part(1, Changing(sending.pieces[0]))
    except CorruptError:
        await sending.abandon()
    else:
        await expect(CorruptError, sending.finish([first, await sending.part(2)]))
    await absent(store, sending.key)


@check
async def a_part_that_ends_early_is_corrupt(store: Store) -> None:
    """A part with fewer bytes than its length raises CorruptError, and the upload goes on with the right one."""
    sending = await begun(store)
    await expect(CorruptError, sending.part(1, Short(sending.pieces[0], "")))
    await sending.finish(await sending.parts())
    assert await store.get(sending.key) == sending.data


@check
async def a_part_that_fails_stops_nothing(store: Store) -> None:
    """What reading a part raises comes through as it is, and the upload goes on with the right one."""
    sending = await begun(store)
    await expect(UnstableSourceError, sending.part(1, Failing(sending.pieces[0], "")))
    await sending.finish(await sending.parts())
    assert await store.get(sending.key) == sending.data


@check
async def a_cancelled_part_stops_nothing(store: Store) -> None:
    """A part that is cancelled after half of its bytes ends, and the upload goes on with another try of it."""
    sending = await begun(store)
    halting = Halting(sending.pieces[0], "")
    put_part = sending.multipart.put_part(sending.key, sending.upload, 1, halting, halting.progress)
    await cancel_at_half(halting, put_part)
    await sending.finish(await sending.parts())
    assert await store.get(sending.key) == sending.data


@check
async def odd_but_legal_keys_take_parts(store: Store) -> None:
    """Characters that are special in URLs or XML come back as they went, in uploads and in objects."""
    prefix = somewhere()
    for name in ("a b", "per%20cent", "it's", "a+b", "tilde~", "a&b", "less<more>", "x" * 240):
        sending = await begun(store, f"{prefix}/{name}", pieces=(name.encode(),))
        assert await sending.listed()
        await sending.finish(await sending.parts())
        assert await store.get(sending.key) == name.encode()
    assert len(await keys(store, f"{prefix}/")) == 8


@check
async def keys_that_are_no_plain_paths_begin_nothing(store: Store) -> None:
    """A key that is empty, absolute, or has an empty, `.` or `..` component raises RefusedError."""
    for key in ("", "/absolute", "a//b", "a/", "a/./b", "a/../b", "../outside", "nul\0byte"):
        await expect(RefusedError, multipart(store).begin(key, sha256(b"")))
