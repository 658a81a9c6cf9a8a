"""Read what a store says, which may be damaged or hostile: bounded, and checked before it is believed."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from dropoff.names import printable
from dropoff.records import (
    STORE_FORMAT,
    Claim,
    Contribution,
    Entry,
    Manifest,
    Record,
    decode_claim,
    decode_contribution,
    decode_manifest,
    decode_record,
    entry_path,
)
from dropoffd.stores.base import CorruptError, RefusedError, Store

T = TypeVar("T")

MANIFEST_MAX_BYTES = 512 << 20
RECORD_MAX_BYTES = MANIFEST_MAX_BYTES
# Within what a store's answer may have.
_PIECE_BYTES = 16 << 20
SMALL_MAX_BYTES = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Format(msgspec.Struct):
    format: int


_format = msgspec.json.Decoder(_Format).decode


def read(data: bytes, decode: Callable[[bytes], T], key: str) -> T:
    """Return what an object says; raises CorruptError, or RefusedError for a newer format."""
    try:
        known = _format(data).format <= STORE_FORMAT
        if known:
            return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(
            f"unable to read {key}: {error}", hint="somebody changed it by hand, or it is not ours; look at it"
        ) from error
    raise RefusedError(
        f"unable to read {key}: a newer dropoff wrote it", hint="upgrade: pip install -U 'dropoff[daemon]'"
    )


async def read_manifest(store: Store, key: str) -> tuple[Manifest, bytes]:
    """Return a manifest and its bytes; raises NotFoundError, CorruptError or RefusedError."""
    data = await read_bytes(store, key, MANIFEST_MAX_BYTES)
    return read(data, decode_manifest, key), data


async def read_record(store: Store, key: str) -> Record:
    """Return what a save stored; raises as `read_manifest`."""
    return read(await read_bytes(store, key, RECORD_MAX_BYTES), decode_record, key)


async def read_contribution(store: Store, key: str) -> Contribution:
    """Return what a writer contributed; raises as `read_manifest`."""
    return read(await read_bytes(store, key, MANIFEST_MAX_BYTES), decode_contribution, key)


async def read_claim(store: Store, key: str) -> Claim:
    """Return what somebody claims, which may be all that a manifest can name; raises as `read_manifest`."""
    return read(await read_bytes(store, key, MANIFEST_MAX_BYTES), decode_claim, key)


async def read_small(store: Store, key: str, decode: Callable[[bytes], T]) -> T:
    """Return what a small object says; raises as `read_manifest`."""
    return read(await read_bytes(store, key, SMALL_MAX_BYTES), decode, key)


async def read_bytes(store: Store, key: str, most_bytes: int) -> bytes:
    """Return all of an object; raises NotFoundError, and RefusedError for one that is larger."""
    data = b""
    while True:
        piece = await store.get(key, len(data), len(data) + _PIECE_BYTES)
        data = data + piece if data else piece
        if len(data) > most_bytes:
            raise RefusedError(f"unable to read {key}: it is larger than {most_bytes} bytes")
        if len(piece) < _PIECE_BYTES:
            return data


def check_entries(entries: Iterable[Entry], key: str) -> None:
    """Raise CorruptError for entries that cannot be what we wrote."""
    for entry in entries:
        offset = 0 if entry.offset is None else entry.offset
        if entry.size < 0 or offset < 0 or not _SHA256.fullmatch(entry.sha256):
            raise CorruptError(f"unable to read {key}: its entry {printable(entry.path)!r} makes no sense")
        try:
            entry_path(entry)
        except ValueError as error:
            raise CorruptError(f"unable to read {key}: {error} in {printable(entry.path)!r}") from None
