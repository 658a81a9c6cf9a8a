"""What callers pass, checked where they pass it: wrong use fails in the call, with the fix in the message."""

import enum
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from dropoff.errors import MissingSourceError, ProtocolError, UsageError
from dropoff.messages import encode
from dropoff.names import check_name, display
from dropoff.saves import PRIORITY_MOST, Kind, RunInfo, Save

Source = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_Choice = TypeVar("_Choice", bound=enum.StrEnum)


def label(text: str, what: str) -> str:
    """Check the name of a project, a run or the like: one path component that is also fine to read and type."""
    try:
        raw = check_name(text)
    except UsageError as error:
        raise UsageError(f"unable to use {text!r} as a {what}: {error.message}", hint=error.hint) from None
    if b"/" in raw or display(raw) != text:
        raise UsageError(
            f"unable to use {text!r} as a {what}",
            hint="use letters, digits, spaces, '-', '_' and '.', no '/'",
        )
    return text


def tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags as they travel."""
    if isinstance(tags, str):
        raise UsageError(f"unable to use {tags!r} as tags: it is one string", hint=f"write tags=[{tags!r}]")
    made = tuple(tags)
    if not all(isinstance(tag, str) and tag for tag in made):
        raise UsageError(f"unable to use {made!r} as tags", hint="tags are non-empty strings")
    return made


def plain(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metadata as JSON has it."""
    if not metadata:
        return {}
    try:
        plain = msgspec.json.decode(msgspec.json.encode(dict(metadata)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"unable to use the metadata: {error}",
            hint="use what JSON has: str, int, float, bool, None, lists and dicts with str keys; "
            "for a NumPy or torch scalar, call .item()",
        ) from None
    if not isinstance(plain, dict):
        raise UsageError(f"unable to use {metadata!r} as metadata", hint="give a dict")
    return plain


def priority(value: int) -> int:
    """Return a priority that is within its bounds."""
    if not -PRIORITY_MOST <= value <= PRIORITY_MOST:
        raise UsageError(f"unable to use priority {value}", hint=f"it goes from {-PRIORITY_MOST} to {PRIORITY_MOST}")
    return value


def check_sound(message: Save | RunInfo, decode: Callable[[bytes], object]) -> None:
    """Find out here, and not in the daemon's log, that an argument is of the wrong type or out of range."""
    try:
        decode(encode(message))
    except (ProtocolError, msgspec.DecodeError, OverflowError, UnicodeError, TypeError) as error:
        cause = error.message if isinstance(error, ProtocolError) else error
        raise UsageError(
            f"unable to use these arguments: {cause}", hint="see `help(dropoff.Run.save_file)`"
        ) from None


def choice(kind: type[_Choice], value: _Choice | str, what: str) -> _Choice:
    """Return the member of an enum that `value` names."""
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"unable to use {value!r} as {what}", hint="choose one of: " + ", ".join(kind)) from None


def opened(source: bytes, kind: Kind) -> int:
    """Return a descriptor of the file or directory to save; raises MissingSourceError or UsageError."""
    shown = display(source)
    try:
        # O_NONBLOCK: opening a fifo must not wait for its writer.
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingSourceError(
            f"unable to save {shown}: no such file or directory", hint="check the path; it is relative to "
            + os.getcwd()
        ) from None  # fmt: skip
    except ValueError as error:
        raise UsageError(f"unable to save {shown}: {error}", hint="check the path") from None
    except OSError as error:
        raise UsageError(
            f"unable to save {shown}: {error.strerror}", hint="check the path and its permissions"
        ) from error
    mode = os.fstat(fd).st_mode
    wanted = stat.S_ISDIR if kind is Kind.DIRECTORY else stat.S_ISREG
    if wanted(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"unable to save {shown} as a file: it is a directory", hint="use save_directory, or add_dir"
        )
    if stat.S_ISREG(mode):
        raise UsageError(f"unable to save {shown} as a directory: it is a file", hint="use save_file, or add_file")
    raise UsageError(f"unable to save {shown}: it is neither a file nor a directory", hint="save a regular file")


def path(source: Source) -> bytes:
    """Return a path as the file system has it."""
    try:
        return os.fsencode(source)
    except UnicodeEncodeError:
        raise UsageError(f"unable to save {source!r}: no file can have that name", hint="check the path") from None
