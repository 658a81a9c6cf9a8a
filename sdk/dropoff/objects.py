"""Objects on their way: into a file that is handed over, and out of one that was brought back."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Any

from dropoff.answers import EntryReport
from dropoff.errors import DropoffError, NotStoredError, UsageError
from dropoff.names import check_name, display
from dropoff.scratch import trouble
from dropoff.serializers.choosing import Way, for_entry
from dropoff.serializers.libraries import kind_of
from dropoff.serializers.serializer import Serializer
from dropoff.settings import Settings

_NAMED = 5
# Lists files and references by name, after one.
Listing = Callable[[bytes], Iterator[EntryReport]]


def write(settings: Settings, obj: Any, ways: tuple[Way, ...], fd: int) -> Way:
    """Write an object into a scratch file in the first way that holds it exactly, and return that way.

    Raises UsageError if none does, and SpoolFullError.
    """
    *others, last = ways
    for way in others:
        with suppress(UsageError):
            _write(settings, obj, way.serializer, fd)
            return way
    _write(settings, obj, last.serializer, fd)
    return last


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


def _write(settings: Settings, obj: Any, serializer: Serializer, fd: int) -> None:
    os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_SET))
    try:
        # Who has large arrays looks for the real file behind this one, and gives it the array's own memory.
        with open(fd, "wb", closefd=False) as file:
            serializer.write(obj, file)
    except (DropoffError, MemoryError):
        raise
    except Exception as error:  # each library has its own ways to say that it cannot hold something
        if isinstance(error, OSError) and error.filename is None:  # the file that is written has no name
            raise trouble(settings, error) from error
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
