"""Read what a store says, which may be damaged or hostile: bounded, and checked before it is believed."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from dropoff.records import STORE_FORMAT, Manifest, decode_manifest
from dropoffd.stores.base import CorruptError, RefusedError, Store

T = TypeVar("T")

MANIFEST_MAX_BYTES = 512 << 20


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
    data = await store.get(key, 0, MANIFEST_MAX_BYTES + 1)
    if len(data) > MANIFEST_MAX_BYTES:
        raise RefusedError(f"unable to read {key}: it is larger than {MANIFEST_MAX_BYTES} bytes")
    return read(data, decode_manifest, key), data
