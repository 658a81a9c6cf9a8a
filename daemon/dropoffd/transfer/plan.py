"""Which objects a job becomes, and which parts an object: pure."""

import msgspec

from dropoff.content import Capture
from dropoffd.custody import Held, Job
from dropoffd.stores.base import Limits

# Fewer small files than this are stored one by one, each readable by its name in the store; from here on one
# request for all of them is worth more.
PACK_MEMBERS_MIN = 16
# What a broken connection costs is at most the parts in flight, so they are small; but each is a request and a row.
# So those of a large object are larger: a 128th of it, up to a limit.
PART_BYTES, PART_GROWN_BYTES = 8 << 20, 32 << 20
_PARTS_ENOUGH = 128
_STEP_BYTES = 1 << 20


class Object(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to store: a file, or a pack with the files in it."""

    held: Held
    members: tuple[Held, ...] = ()


def objects(job: Job) -> tuple[Object, ...]:
    """Return the objects that hold the content of `job`."""
    packs = [held for held in job.contents if held.content.capture is Capture.PACK]
    packed = tuple(held for held in job.contents if held.content.capture is Capture.PACKED)
    others = [held for held in job.contents if held.content.capture not in {Capture.PACK, Capture.PACKED}]
    if len(packed) < PACK_MEMBERS_MIN:
        return tuple(Object(held=held) for held in (*others, *packed))
    return (*(Object(held=pack, members=packed) for pack in packs), *(Object(held=held) for held in others))


def part_bytes(size: int, limits: Limits) -> int:
    """Return the size of each part but the last of an object of `size` bytes, in whole steps."""
    grown = min(size // _PARTS_ENOUGH, PART_GROWN_BYTES)
    least = max(PART_BYTES, grown, limits.part_min_bytes, -(-size // limits.parts_max))
    return min(-(-least // _STEP_BYTES) * _STEP_BYTES, limits.part_max_bytes)


def step_bytes(size: int, limits: Limits) -> int:
    """Return how much of an object of `size` bytes goes in one request: a part, or all of it."""
    return size if size <= limits.single_max_bytes else part_bytes(size, limits)


def spans(size: int, part: int) -> list[tuple[int, int, int]]:
    """Return the parts of an object as (number, offset, size)."""
    return [(n + 1, start, min(part, size - start)) for n, start in enumerate(range(0, size, part))]
