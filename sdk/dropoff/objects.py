"""Objects on their way: into a file that is handed over, and out of one that was brought back."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple

from dropoff.errors import DropoffError, NotStoredError, UsageError
from dropoff.messages import EntryReport
from dropoff.names import check_name, display
from dropoff.scratch import filled
from dropoff.serializers.choosing import Way, for_entry
from dropoff.serializers.libraries import kind_of
from dropoff.serializers.serializer import Serializer
from dropoff.settings import Settings

_NAMED = 5
# Lists a thing's files and references by name, after a name.
Listing = Callable[[bytes], Iterator[EntryReport]]


class Written(NamedTuple):
    """An object in an open file without a name, and what is to be recorded of it."""

    fd: int
    name: bytes
    serializer: str
    content_type: str | None


@contextmanager
def written(settings: Settings, obj: Any, ways: tuple[Way, ...]) -> Iterator[Written]:
    """Write an object in the first way that holds it exactly; raises UsageError if none does, or SpoolFullError."""
    *others, last = ways
    for way in others:
        try:
            fd = filled(settings, partial(_write, way.serializer, obj))
            break
        except UsageError:
            continue
    else:
        way, fd = last, filled(settings, partial(_write, last.serializer, obj))
    try:
        yield Written(fd, way.name, way.serializer.name, way.serializer.content_type or None)
    finally:
        os.close(fd)


def find(listing: Listing, name: str | bytes | None) -> EntryReport:
    """Return the entry of this name, also without the ending that its serializer gave it; or that of the one object.

    Raises NotStoredError, or UsageError if there are several.
    """
    raw = None if name is None else check_name(name)
    found = _all(listing) if raw is None else _named(listing, raw)
    if not found:
        what = "there is none" if raw is None else f"nothing is stored as {display(raw)!r}"
        raise NotStoredError(f"unable to get an object: {what}", hint="`entries` lists what there is")
    if len(found) > 1:
        names = ", ".join(repr(display(entry.path)) for entry in found[:_NAMED])
        raise UsageError(
            f"unable to get one object of several: {names}{', ...' if found[_NAMED:] else ''}",
            hint="name one of them, with its ending",
        )
    return found[0]


def reader(entry: EntryReport, *, allow_pickle: bool) -> Callable[[str], Any]:
    """Return what makes an object of the entry's file, given its path; raises UsageError if nothing may."""
    if entry.uri:
        raise UsageError(
            f"unable to get {display(entry.path)!r}: it is a reference, and lies at {display(entry.uri.encode())}",
            hint="fetch it from there",
        )
    serializer = for_entry(entry.path, entry.serializer, allow_pickle=allow_pickle)
    if serializer.read is None:
        raise UsageError(
            f"unable to make an object of {display(entry.path)!r}: it is a picture of a {serializer.of}",
            hint="take its path, or open it",
        )
    return partial(_read, serializer.name, serializer.read)


def _write(serializer: Serializer, obj: Any, file: IO[bytes]) -> None:
    try:
        serializer.write(obj, file)
    except (DropoffError, MemoryError):
        raise
    except Exception as error:  # each library has its own ways to say that it cannot hold something
        if isinstance(error, OSError) and error.filename is None:  # of the file that is written
            raise
        raise UsageError(
            f"unable to save a {kind_of(obj)} as {serializer.name}: {_said(error)}",
            hint="change it so that it can be held, or say allow_pickle=True, here and where it is read",
        ) from error


def _read(serializer: str, read: Callable[[IO[bytes]], Any], path: str) -> Any:
    with open(path, "rb") as file:
        try:
            return read(file)
        except (DropoffError, OSError, MemoryError):
            raise
        except Exception as error:  # same
            raise UsageError(
                f"unable to read {display(os.fsencode(os.path.basename(path)))!r} as {serializer}: {_said(error)}",
                hint="its bytes are those that were stored: take its path, or open it",
            ) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _all(listing: Listing) -> list[EntryReport]:
    objects: list[EntryReport] = []
    others: list[EntryReport] = []
    for entry in listing(b""):
        (objects if entry.serializer else others).append(entry)
        if len(objects) > _NAMED:
            break
        del others[_NAMED + 1 :]
    return objects or others


def _named(listing: Listing, name: bytes) -> list[EntryReport]:
    # From just before the name on: a version may have a million entries.
    for entry in listing(name[:-1] + bytes([name[-1] - 1]) + b"\xff"):
        if entry.path >= name:
            if entry.path == name:
                return [entry]
            break
    with_ending = []
    for entry in listing(name + b"-\xff"):  # "." comes after "-"
        if entry.path >= name + b"/":
            break
        if os.path.splitext(entry.path)[0] == name:
            with_ending.append(entry)
    return [entry for entry in with_ending if entry.serializer] or with_ending
