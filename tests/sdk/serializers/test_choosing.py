"""Which serializer an object and a file get, and how one's own joins them."""

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pytest

import dropoff
from dropoff import UsageError
from dropoff.serializers import Serializer, choosing, register
from dropoff.serializers.choosing import for_entry, ways


class Molecule:
    """Something of the user's own."""

    def __init__(self, formula: str) -> None:
        self.formula = formula


def write(molecule: Molecule, file: IO[bytes]) -> None:
    """Write one."""
    file.write(molecule.formula.encode())


OWN = Serializer(
    name="molecule", endings=(".mol",), takes=lambda obj: isinstance(obj, Molecule), write=write,
    read=lambda file: Molecule(file.read().decode()), content_type="chemical/x-mol", of="Molecule",
)  # fmt: skip


@pytest.fixture
def registered() -> Iterator[None]:
    """Register a serializer of one's own for a test."""
    register(OWN)
    yield
    choosing._own = ()


def chosen(obj: Any, name: str, asked: Serializer | str | None = None, **said: Any) -> list[tuple[str, str]]:
    """Return how an object may be stored, by names."""
    found = ways(obj, name.encode(), asked, **{"allow_pickle": False} | said)
    return [(way.serializer.name, way.name.decode()) for way in found]


@pytest.mark.usefixtures("registered")
def test_a_serializer_of_ones_own_is_used_like_any_other() -> None:
    """What a registered serializer takes is stored by it; registered again, it is there once."""
    register(OWN)
    assert chosen(Molecule("H2O"), "water") == [("molecule", "water.mol")]
    assert chosen(Molecule("H2O"), "water.mol", "molecule") == [("molecule", "water.mol")]
    assert for_entry(b"water.mol", "molecule", allow_pickle=False) == OWN
    assert for_entry(b"water.mol", "", allow_pickle=False) == OWN
    with pytest.raises(UsageError, match="such a file holds something else"):
        chosen({}, "water.mol")


def test_a_serializer_may_be_given_without_being_registered() -> None:
    """One that is given with the object stores it; to read it back it has to be registered."""
    assert chosen(Molecule("H2O"), "water", OWN) == [("molecule", "water.mol")]
    with pytest.raises(UsageError, match="'molecule' is not known here") as raised:
        for_entry(b"water.mol", "molecule", allow_pickle=True)
    assert "register" in raised.value.hint
    with pytest.raises(UsageError, match="it is for Molecule"):
        chosen({}, "water", OWN)
    with pytest.raises(UsageError, match="no such serializer"):
        chosen({}, "water", "molecule")


@pytest.mark.parametrize("name", ["npy", "pickle", "", "Upper", "a b", "x" * 65])
def test_no_serializer_takes_the_place_of_one_that_is_built_in(name: str) -> None:
    """A name that is built in, or that is no name, is refused, registered or given."""
    own = Serializer(name=name, endings=(".mol",), takes=OWN.takes, write=OWN.write)
    with pytest.raises(UsageError, match="of your own"):
        register(own)
    with pytest.raises(UsageError, match="of your own"):
        chosen(Molecule("H2O"), "water", own)
    assert chosen([], "x", choosing.BUILT_IN[-3]) == [("json", "x.json")]


@pytest.mark.parametrize("endings", [(), ("mol",), (".a/b",), (".MOL",), (".mol", "")])
def test_endings_are_a_dot_and_letters(endings: tuple[str, ...]) -> None:
    """A serializer has endings that a name can have."""
    with pytest.raises(UsageError, match="unable to use the endings"):
        register(Serializer(name="molecule", endings=endings, takes=OWN.takes, write=OWN.write))


def test_the_ending_of_the_name_is_the_request() -> None:
    """Of several formats the ending chooses, whatever its case; a pickle is chosen so only where it is allowed."""
    pixels = np.zeros((2, 2))
    assert chosen(pixels, "a.PNG") == [("image-png", "a.PNG")]
    assert chosen(pixels, "a.png.npy") == [("npy", "a.png.npy")]
    assert chosen(pixels, "a", "image-jpeg") == [("image-jpeg", "a.jpg")]
    assert chosen(pixels, "dir.png/a", allow_pickle=True) == [("npy", "dir.png/a.npy"), ("pickle", "dir.png/a.pkl")]
    assert chosen(pixels, "a.pickle", allow_pickle=True) == [("pickle", "a.pickle")]
    assert chosen("text", ".hidden") == [("text", ".hidden.txt")]
    with pytest.raises(UsageError, match="longer than 255 bytes"):
        chosen(pixels, "a" * 252)


def test_the_serializers_are_there_without_another_import() -> None:
    """`dropoff.serializers` needs no import of its own."""
    assert dropoff.serializers.register is register
