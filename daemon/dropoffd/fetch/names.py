"""Which names may be written below a directory: pure.

Whoever can write to a store can write a manifest, so its names are not trusted. A name is refused that could lead
out of the directory or meet another name there; on a file system that takes two names for one, or gives some a
meaning of their own, also those.
"""

import re
import unicodedata
from collections.abc import Iterable

from dropoff.errors import DamagedError, UsageError
from dropoff.names import check_name, display

INCOMING = ".dropoff-incoming"
"""Where content lies below the directory until it is verified; no file of a store goes there."""

# "Naming Files, Paths, and Namespaces", Microsoft: device names with any ending, and what a name cannot hold.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3]|conin\$|conout\$) *(\..*)?", re.IGNORECASE
)
_UNUSABLE = re.compile(r'[\x00-\x1f<>:"\\|?*]|[. ]$')


def check(paths: Iterable[bytes], *, folds: bool) -> None:
    """Raise DamagedError unless every name stays below the directory and none meets another.

    `folds` tells that the file system there takes letters of either case for one.
    """
    found: dict[bytes, bytes] = {}
    for path in paths:
        _check_one(path, folds=folds)
        place = _folded(path) if folds else path
        if place in found:
            raise _refused(path, f"another is named {display(found[place])!r}, which is the same file there")
        found[place] = path
    for place, path in found.items():
        above = place
        while (cut := above.rfind(b"/")) > 0:
            above = above[:cut]
            if above in found:
                raise _refused(path, f"{display(found[above])!r} is a file")


def _check_one(path: bytes, *, folds: bool) -> None:
    try:
        check_name(path)
    except UsageError as error:
        raise _refused(path, error.message) from None
    parts = path.split(b"/")
    first = _folded(parts[0]) if folds else parts[0]
    if first == INCOMING.encode():
        raise _refused(path, "that is where content lies until it is verified")
    if folds and any(_objectionable(part) for part in parts):
        raise _refused(path, "the file system there gives that name a meaning of its own")


def _objectionable(part: bytes) -> bool:
    text = part.decode("utf-8", "replace")
    return bool(_DEVICES.fullmatch(text) or _UNUSABLE.search(text))


def _folded(path: bytes) -> bytes:
    text = path.decode("utf-8", "surrogateescape")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).encode(
        "utf-8", "surrogateescape"
    )


def _refused(path: bytes, cause: str) -> DamagedError:
    return DamagedError(
        f"unable to download {display(path)!r}: {cause}",
        hint="nothing was written; whoever can write to the store chose that name",
    )
