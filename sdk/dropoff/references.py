"""URIs that an artifact may refer to, checked where they are given."""

import os
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from dropoff.errors import UsageError

SCHEMES = ("http", "https", "s3", "gs", "az", "file")
# What one call may bring: as many as a version may list.
_OBJECTS_MOST = 1_000_000


def last_component(uri: str) -> str:
    """Return the last component of a URI's path; raises UsageError for one that may not be recorded."""
    return os.path.basename(_parts(uri).path.rstrip("/"))


def objects_max(uri: str, most: int) -> int:
    """Return how many objects a URI may stand for, 0 for one that is no prefix; raises UsageError for more."""
    parts = _parts(uri)
    if not 0 < most <= _OBJECTS_MOST:
        raise UsageError(f"unable to use max_objects={most}", hint=f"it goes from 1 to {_OBJECTS_MOST}")
    if parts.scheme in {"s3", "gs"}:
        return most if uri.endswith("/") else 0
    directory = unquote_to_bytes(parts.path)
    if parts.scheme != "file" or not os.path.isdir(directory):
        return 0
    count = 0
    for _, _, files in os.walk(directory):
        count += len(files)
        if count > most:
            raise UsageError(
                f"unable to refer to {uri!r}: more than {most} files lie below it",
                hint="add fewer, raise max_objects, or add_dir it",
            )
    return most


def _parts(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        allowed = parts.scheme in SCHEMES and uri.isprintable()
        secret = parts.password is not None
    except ValueError as error:
        raise UsageError(f"unable to refer to {uri!r}: {error}", hint="check the URI") from None
    if not allowed:
        raise UsageError(f"unable to refer to {uri!r}", hint="use one of: " + ", ".join(SCHEMES))
    if secret:
        raise UsageError(
            "unable to refer to a URI with a password in it: it would be kept in the store",
            hint="leave it out; whoever reads needs credentials of their own",
        )
    return parts
