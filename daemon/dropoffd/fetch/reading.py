"""Read bytes of an object and hold what came against what was asked for."""

from dropoff.errors import DamagedError
from dropoffd.fetch.plan import Wanted
from dropoffd.stores.base import NotFoundError, Store


async def exactly(store: Store, key: str, start: int, end: int) -> bytearray:
    """Return these bytes of an object; raises DamagedError where it has fewer or is gone, and StoreError."""
    buffer = bytearray(end - start)
    await fill(store, key, start, memoryview(buffer))
    return buffer


async def fill(store: Store, key: str, start: int, buffer: memoryview) -> None:
    """Fill a buffer with an object's bytes from `start` on; raises as `exactly`."""
    try:
        count = await store.read(key, start, buffer)
    except NotFoundError as error:
        raise DamagedError(
            f"unable to fetch {key}: it is not in the store",
            hint="somebody deleted it; `verify()` tells what else",
        ) from error
    if count != len(buffer):
        raise DamagedError(
            f"unable to fetch {key}: it has {count} bytes from {start} on where {len(buffer)} should be",
            hint="somebody replaced it, or the store damaged it; `verify()` tells what else",
        )


def damaged(content: Wanted) -> DamagedError:
    """Return what to say of bytes that are not what they should be."""
    return DamagedError(
        f"unable to fetch {content.key}: its bytes are not those of sha256 {content.sha256}",
        hint="the store damaged it, or somebody replaced it; `verify(read_data=True)` tells what else",
    )
