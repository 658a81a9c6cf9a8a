"""Which objects a job becomes."""

import msgspec
import pytest

from daemon.making import held, inline, job, save
from dropoff.content import Capture
from dropoff.saves import Kind
from dropoffd.custody import Held
from dropoffd.transfer.plan import PACK_MEMBERS_MIN, objects


def packed(count: int) -> list[Held]:
    """Return a pack and `count` files in it."""
    pack = msgspec.structs.replace(inline(b"pack", 0), capture=Capture.PACK)
    members = [
        msgspec.structs.replace(inline(b"x", n, b"%d" % n), capture=Capture.PACKED) for n in range(1, count + 1)
    ]
    return [held(pack), *(held(member) for member in members)]


def large(ordinal: int) -> Held:
    """Return a file that is no pack's."""
    return held(msgspec.structs.replace(inline(b"large", ordinal, b"large"), capture=Capture.COPY))


def test_a_file_is_one_object() -> None:
    """A single file is stored as it is."""
    one = held(inline(b"data"))
    assert [(item.held, item.members) for item in objects(job(save(), [one]))] == [(one, ())]


def test_an_empty_directory_is_no_object() -> None:
    """A directory without files stores nothing but its record."""
    assert objects(job(save(kind=Kind.DIRECTORY), [])) == ()


@pytest.mark.parametrize("count", [1, PACK_MEMBERS_MIN - 1])
def test_few_small_files_are_stored_one_by_one(count: int) -> None:
    """Below the least number of members each file is an object of its own, and the pack is none."""
    pack, *members = packed(count)
    items = objects(job(save(kind=Kind.DIRECTORY), [pack, *members, large(count + 1)]))
    assert {item.held.content.ordinal for item in items} == set(range(1, count + 2))
    assert [item.members for item in items] == [()] * (count + 1)


def test_many_small_files_travel_in_their_pack() -> None:
    """From the least number on the pack is one object with its members; large files stay by themselves."""
    pack, *members = packed(PACK_MEMBERS_MIN)
    big = large(PACK_MEMBERS_MIN + 1)
    items = objects(job(save(kind=Kind.DIRECTORY), [pack, *members, big]))
    assert [(item.held, item.members) for item in items] == [(pack, tuple(members)), (big, ())]
