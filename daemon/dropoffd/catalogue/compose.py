"""What an artifact holds, from the steps in which it was made: pure.

The same function answers the call, when only names are known, and makes the manifest, when all is stored.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from dropoff.errors import UsageError
from dropoff.names import display
from dropoff.saves import Pointer, Version

T = TypeVar("T")

# What a manifest may list: a reader takes it into memory.
ENTRIES_MAX = 1_000_000


def compose(
    version: Version,
    additions: Iterable[tuple[int, bool, Mapping[bytes, T]]],
    refer: Callable[[Pointer], Mapping[bytes, T]],
) -> dict[bytes, T]:
    """Return what stands under each name, in the order of names; `additions` are (position, overwrite, content).

    `refer` tells what stands for a pointer: the path, or, once that is known, what lies below it. Raises UsageError
    for steps that are missing or contradict each other.
    """
    steps: dict[int, tuple[bool, Mapping[bytes, T]] | bytes] = {
        position: (overwrite, content) for position, overwrite, content in additions
    }
    steps |= {one.position: (one.overwrite, refer(one)) for one in version.pointers}
    steps |= {one.position: one.path for one in version.removals}
    if steps.keys() != set(range(version.steps)):
        raise UsageError(
            "unable to make the version: some of what was added to it is not in custody any more",
            hint="it was cancelled, or lay unlogged for too long; make the artifact again",
        )
    claims = {one.position: {one.path} for one in version.pointers}
    prefixes = {one.position: one.path for one in version.pointers if one.objects_max}
    found: dict[bytes, T] = {}
    # Judged at the end: a later step may have mended it.
    twice: set[bytes] = set()
    for position, step in sorted(steps.items()):
        if isinstance(step, bytes):
            twice -= _remove(found, step)
            continue
        overwrite, content = step
        taken = found.keys() & content.keys()
        twice = twice - taken if overwrite else twice | taken
        if overwrite:
            for path in claims.get(position, content.keys()) & set(prefixes.values()):
                _drop_below(found, path)
        found.update(content)
    _check(found, twice)
    ordered = dict(sorted(found.items()))
    check_folders(ordered)
    return ordered


def _drop_below(found: dict[bytes, T], path: bytes) -> None:
    for name in [name for name in found if name.startswith(path + b"/")]:
        del found[name]


def _remove(found: dict[bytes, T], path: bytes) -> set[bytes]:
    gone = {one for one in found if one == path or one.startswith(path + b"/")}
    if not gone:
        raise UsageError(
            f"unable to make the version: {display(path)!r} was removed and is not there", hint="check the name"
        )
    for one in gone:
        del found[one]
    return gone


def _check(found: Mapping[bytes, object], twice: set[bytes]) -> None:
    if twice:
        raise UsageError(
            f"unable to make the version: {display(min(twice))!r} was added twice",
            hint="remove it and add one of them again, or add the later one with overwrite=True",
        )
    if len(found) > ENTRIES_MAX:
        raise UsageError(f"unable to make a version of more than {ENTRIES_MAX} files", hint="log several artifacts")


def check_folders(found: Mapping[bytes, object]) -> None:
    """Refuse a name that is a file's and a folder's at once: nobody could write both."""
    for path in found:
        above = path
        while (cut := above.rfind(b"/")) > 0:
            above = above[:cut]
            if above in found:
                raise UsageError(
                    f"unable to make the version: {display(above)!r} is a file, and {display(path)!r} lies below it",
                    hint="give one of them another name=",
                )
