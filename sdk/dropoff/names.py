"""Names of artifacts: bytes, as the file system has them; text only where people and JSON read them."""

import os
from pathlib import PurePath

from dropoff.errors import UsageError

COMPONENT_MAX_BYTES = 255
NAME_MAX_BYTES = 4096


def check_name(name: str | bytes | PurePath) -> bytes:
    """Return `name` as bytes if it is a relative path that stays below where it starts.

    Raises UsageError for names that are empty, absolute, too long, or climb out with `..`.
    """
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:
        raise UsageError(f"unable to use {name!r} as a name: no file can have it", hint="use text or bytes") from None
    reason = _objection(raw)
    if reason:
        raise UsageError(
            f"unable to use {display(raw)!r} as a name: it {reason}",
            hint="give a relative path such as name='models/best.pt'",
        )
    return raw


def _objection(raw: bytes) -> str:
    parts = raw.split(b"/")
    objections = (
        (not raw, "is empty"),
        (raw.startswith(b"/"), "is absolute"),
        (b"\0" in raw, "contains a NUL byte"),
        (len(raw) > NAME_MAX_BYTES, f"is longer than {NAME_MAX_BYTES} bytes"),
        (b".." in parts, "climbs out of its directory"),
        (b"" in parts or b"." in parts, "has an empty or '.' component"),
        (
            any(len(part) > COMPONENT_MAX_BYTES for part in parts),
            f"has a component longer than {COMPONENT_MAX_BYTES} bytes",
        ),
    )
    return next((reason for holds, reason in objections if holds), "")


def display(raw: bytes) -> str:
    """Return `raw` as text that is safe to print: undecodable bytes and control characters are escaped.

    A file name may hold terminal escapes or bidirectional overrides, and status output shows it to a person.
    """
    return printable(raw.decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal would obey or that turns its direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
