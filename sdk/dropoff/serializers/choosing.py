"""Which serializer: for an object and the name it is to have, and for a file and what is recorded of it."""

import os
import re
import sys
from typing import Any, NamedTuple

from dropoff.errors import UsageError
from dropoff.names import check_name, display, printable
from dropoff.serializers import arrays, figures, images, plain, tables, tensors
from dropoff.serializers.libraries import kind_of
from dropoff.serializers.serializer import Serializer

# The first that takes an object is its own: a dict of arrays is not left to JSON.
BUILT_IN = (*arrays.ALL, *tensors.ALL, *tables.ALL, *figures.ALL, *images.ALL, *plain.ALL)
PICKLE, PICKLE_ENDINGS = "pickle", (".pkl", ".pickle")
_BUILT_IN_NAMES = frozenset({PICKLE, *(one.name for one in BUILT_IN)})
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ENDING = re.compile(r"\.[a-z0-9_-]{1,32}")
_own: tuple[Serializer, ...] = ()


class Way(NamedTuple):
    """One way to store an object: by what, and under which name."""

    serializer: Serializer
    name: bytes


def register(serializer: Serializer) -> None:
    """Let objects that a serializer of yours takes be saved and read back by it, before all others.

    It is found by its name when an object is read back, so it has to be registered there, too. Registered again, it
    takes the place of the one before. Raises UsageError for a name that is built in.
    """
    global _own  # noqa: PLW0603  # replaced as a whole, since other threads may look meanwhile
    _check(serializer)
    _own = (serializer, *(one for one in _own if one.name != serializer.name))


def ways(obj: Any, name: bytes, asked: Serializer | str | None, *, allow_pickle: bool) -> tuple[Way, ...]:
    """Return how an object may be stored, the best way first; raises UsageError if there is none.

    A name that ends as its serializer wants stays as it is; another gets that ending.
    """
    if asked is not None:
        return (_way(_asked(obj, asked, allow_pickle=allow_pickle), obj, name),)
    fitting = [one for one in _known(allow_pickle=allow_pickle) if _takes(one, obj)]
    wanted = [one for one in fitting if _ending(name) in one.endings]
    if wanted:
        return (Way(wanted[0], name),)
    by_itself = [one for one in fitting if not one.on_request]
    if by_itself:
        # What the first cannot hold exactly, a pickle may.
        last = by_itself[1:] if by_itself[-1].name == PICKLE else []
        return tuple(_way(one, obj, name) for one in (by_itself[0], *last[-1:]))
    raise _no_way(obj, name, fitting)


def for_entry(name: bytes, recorded: str, *, allow_pickle: bool) -> Serializer:
    """Return what reads a file: what is recorded, or, where nothing is, what its ending stands for.

    No ending ever stands for a pickle. Raises UsageError.
    """
    shown = display(name)
    if recorded == PICKLE and not allow_pickle:
        raise UsageError(
            f"unable to read {shown!r}: it is a pickle, and reading it runs whatever its maker put there",
            hint="get(..., allow_pickle=True), if you trust everybody who can write to the store",
        )
    if recorded:
        found = [one for one in _known(allow_pickle=allow_pickle) if one.name == recorded]
        cause = f"its serializer {printable(recorded)!r} is not known here"
        hint = "dropoff.serializers.register it first"
    else:
        found = [one for one in _known() if _ending(name) in one.endings and one.read]
        cause, hint = "nothing says how", "take its path, or open it, and read it yourself"
    if not found:
        raise UsageError(f"unable to make an object of {shown!r}: {cause}", hint=hint)
    return min(found, key=_distance)


def _known(*, allow_pickle: bool = False) -> tuple[Serializer, ...]:
    if not allow_pickle:
        return (*_own, *BUILT_IN)
    from dropoff.serializers.pickled import PICKLED  # noqa: PLC0415  # who does not ask for it never loads it

    return (*_own, *BUILT_IN, PICKLED)


def _asked(obj: Any, asked: Serializer | str, *, allow_pickle: bool) -> Serializer:
    if isinstance(asked, Serializer):
        if asked not in BUILT_IN:
            _check(asked)
        one = asked
    else:
        by_name = {one.name: one for one in reversed(_known(allow_pickle=allow_pickle))}
        if asked not in by_name:
            raise UsageError(
                f"unable to save by {asked!r}: "
                + ("it needs allow_pickle=True" if asked == PICKLE else "there is no such serializer"),
                hint="choose one of: " + ", ".join(by_name),
            )
        one = by_name[asked]
    if not _takes(one, obj):
        raise UsageError(
            f"unable to save a {kind_of(obj)} by {one.name!r}: it is for {one.of or 'other objects'}",
            hint="leave serializer= out, or give another one",
        )
    return one


def _takes(one: Serializer, obj: Any) -> bool:
    try:
        return one.takes(obj)
    except RecursionError:  # a list that holds itself; JSON says so in its own words
        return False


def _way(one: Serializer, obj: Any, name: bytes) -> Way:
    ending = _ending(name)
    if ending in one.endings or (ending and one.any_ending):
        return Way(one, name)
    if ending in PICKLE_ENDINGS or any(ending in other.endings for other in _known()):
        raise UsageError(
            f"unable to save a {kind_of(obj)} as {display(name)!r}: such a file holds something else",
            hint=f"leave the ending out, or make it {' or '.join(one.endings)}; "
            "for a pickle allow_pickle=True, here and where it is read",
        )
    return Way(one, check_name(name + one.endings[0].encode()))


def _no_way(obj: Any, name: bytes, fitting: list[Serializer]) -> UsageError:
    if fitting:
        return UsageError(
            f"unable to save a {kind_of(obj)} as {display(name)!r}: nothing says in which format",
            hint="end its name in " + " or ".join(ending for one in fitting for ending in one.endings),
        )
    works = dict.fromkeys(one.of or one.name for one in _known())
    return UsageError(
        f"unable to save a {kind_of(obj)}: nothing here holds one",
        hint=f"what works: {', '.join(works)}; else a serializer= of your own, or allow_pickle=True, "
        "here and where it is read",
    )


def _ending(name: bytes) -> str:
    return os.path.splitext(name)[1].decode("ascii", "replace").lower()


def _distance(one: Serializer) -> int:
    """Prefer what needs no library, then what makes objects of a library that is in use here."""
    return 0 if not one.library else 1 if one.library in sys.modules else 2


def _check(serializer: Serializer) -> None:
    if not _NAME.fullmatch(serializer.name) or serializer.name in _BUILT_IN_NAMES:
        raise UsageError(
            f"unable to use a serializer of your own as {serializer.name!r}",
            hint="give a name that is not built in, of lower-case letters, digits, '.', '_' and '-'",
        )
    if not serializer.endings or not all(_ENDING.fullmatch(ending) for ending in serializer.endings):
        raise UsageError(
            f"unable to use the endings {serializer.endings!r} for {serializer.name!r}",
            hint="give one at least, as in endings=('.mol',): a dot, then lower-case letters and digits",
        )
