"""Which objects a job becomes: pure."""

import msgspec

from dropoff.content import Capture
from dropoffd.custody import Held, Job

# Fewer small files than this are stored one by one, each readable by its name in the store; from here on one
# request for all of them is worth more.
PACK_MEMBERS_MIN = 16


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
