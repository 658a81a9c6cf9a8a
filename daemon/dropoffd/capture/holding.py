"""Content in custody, held open for reading: what the digest and the upload read from.

What lies under it may move (from a leased link to a copy) while it is read. Each read finishes on the file it
began on, and the move waits for it; so no read ever sees what a writer wrote once the lease was given back.
"""

import errno
import os
import threading

from dropoff.content import Capture, Content, pread_all, stamp
from dropoff.names import display
from dropoff.saves import Stamp
from dropoffd.capture import lease
from dropoffd.errors import SourceChangedError


class Holding:
    """An open payload file: `size` bytes from `offset`."""

    def __init__(self, fd: int, content: Content, expected: Stamp | None) -> None:
        self.size_bytes = content.size_bytes
        self._fd = fd
        self._offset = content.offset
        self._path = content.path
        self._expected = expected
        self._theirs = content.capture is Capture.LINK
        self._lock = threading.Lock()
        self._users = 1
        self.leased = False

    @property
    def fd(self) -> int:
        """The descriptor that is read from now."""
        return self._fd

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; blocks."""
        with self._lock:
            return pread_all(self._fd, min(size, self.size_bytes - offset), self._offset + offset)

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` as far as the page cache has it; 0 means that reading would wait."""
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            return _cached(self._fd, buffer[: max(0, self.size_bytes - offset)], self._offset + offset)
        finally:
            self._lock.release()

    def check(self) -> None:
        """Raise SourceChangedError if the file may have changed since it was captured."""
        with self._lock:
            if self.leased and lease.held(self._fd):
                return  # nobody could write, whatever was done to its times
            if not self._as_expected(stamp(self._fd)):
                raise SourceChangedError(
                    f"unable to use the captured content of {display(self._path) or 'the pack'}: somebody wrote to "
                    "the file after it was captured, while no lease protected it",
                    hint="save it again; `dropoff cancel` drops this job",
                )

    def _as_expected(self, now: Stamp) -> bool:
        """Compare what a write changes; device and inode change when a disk or a whole spool is carried elsewhere."""
        if self._expected is None:
            return True
        same_times = now.mtime_ns == self._expected.mtime_ns or not self._theirs
        return same_times and now.size_bytes == self._expected.size_bytes

    def move(self, fd: int, expected: Stamp) -> None:
        """Read from `fd` from now on; the old file is closed, which gives its lease back."""
        with self._lock:
            self._release()
            old, self._fd = self._fd, fd
            self._expected = expected
            self._theirs = False
        os.close(old)

    def give_lease_back(self) -> None:
        """Let writers go on; `check` tells from now on whether one did."""
        with self._lock:
            self._release()

    def borrow(self) -> "Holding":
        """Return this holding for one more user, who closes it, too."""
        self._users += 1
        return self

    def close(self) -> None:
        """Give the file, and its lease, back when its last user does."""
        self._users -= 1
        if self._users == 0:
            with self._lock:
                self._release()
                os.close(self._fd)

    def _release(self) -> None:
        # By word, not by closing: the guard has a copy of the description, and with it the lease would live on.
        if self.leased:
            self.leased = False
            lease.release(self._fd)


class Inline:
    """Content that lies in the spool's database."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return self._data[offset : offset + size]

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`."""
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def check(self) -> None:
        """Never changes."""

    def close(self) -> None:
        """Nothing is open."""


def _cached(fd: int, buffer: memoryview, offset: int) -> int:
    try:
        return os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return os.preadv(fd, [buffer], offset)  # tmpfs does not know the flag, and has nothing to wait for
