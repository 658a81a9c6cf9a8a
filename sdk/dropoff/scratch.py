"""Files without a name, for what is made only to be handed over.

They lie on the spool's own disk, and not in /tmp, which may be memory: there the daemon takes one into custody by a
hard link, whatever its size. Having no name, none is left behind by a process that is killed.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dropoff.errors import DropoffError, SpoolFullError
from dropoff.settings import Settings

_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR})
# A short write of the C library says nothing of its cause, and hardly has another.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, None})


@contextmanager
def scratch(settings: Settings) -> Iterator[int]:
    """Give out a descriptor of a new file, for writing until it is finished; raises what `trouble` makes."""
    try:
        fd = _unnamed(settings.state_dir)
    except OSError as error:
        raise trouble(settings, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def finish(fd: int) -> None:
    """Make it a descriptor for reading: what is open for writing can not be leased, and would be copied."""
    reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.dup2(reading, fd, inheritable=False)
    finally:
        os.close(reading)


def trouble(settings: Settings, error: OSError) -> DropoffError:
    """Return what a failure to write stands for: SpoolFullError when the disk is full."""
    kind = SpoolFullError if error.errno in _FULL else DropoffError
    return kind(
        f"unable to write to the disk of {settings.state_dir}: {error.strerror or error}",
        hint="free some space, or set DROPOFF_STATE_DIR to a directory on another disk",
    )


def _unnamed(state_dir: str) -> int:
    try:
        os.makedirs(state_dir, 0o700, exist_ok=True)
        return _in(state_dir)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
    import tempfile  # noqa: PLC0415  # 6 ms of every import of the SDK

    return _in(tempfile.gettempdir())


def _in(directory: str) -> int:
    try:
        # Not tempfile.TemporaryFile, whose O_EXCL forbids that the file is ever given a name.
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
    import tempfile  # noqa: PLC0415  # same

    fd, path = tempfile.mkstemp(prefix="dropoff-", dir=directory)
    os.unlink(path)
    return fd
