"""How much may be in custody: a quota of bytes, and a floor of free space that is never used.

Content held by a hard link counts like a copy: it keeps its disk space after the user deleted the file, and may
have to become a copy at any moment.
"""

import asyncio
import threading

from dropoff.errors import SpoolFullError
from dropoffd.filesystem import free_bytes


class Quota:
    """Counts bytes in custody; reservations first, content afterwards."""

    def __init__(self, path: str, quota_bytes: int, floor_bytes: int, used_bytes: int) -> None:
        self._path = path
        self._floor = floor_bytes
        self.quota_bytes = quota_bytes
        self.used_bytes = used_bytes
        self._freed = asyncio.Event()
        self._lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Count `size` more bytes; raises SpoolFullError, and counts nothing, when they do not fit.

        Also called from the threads that capture directories.
        """
        with self._lock:
            self._check(size)
            self.used_bytes += size

    def _check(self, size: int) -> None:
        if self.used_bytes + size > self.quota_bytes:
            raise SpoolFullError(
                f"unable to take {size} more bytes into custody: {self.used_bytes} of "
                f"{self.quota_bytes} bytes are in use",
                hint='wait for deliveries (`dropoff status`), raise spool_quota_bytes, or set when_full = "wait"',
            )
        free = self.free_bytes()
        if free - size < self._floor:
            raise SpoolFullError(
                f"unable to take {size} more bytes into custody: {free} bytes are free on the disk of "
                f"{self._path}, and {self._floor} of them stay free",
                hint="free space on that disk or lower spool_floor_bytes",
            )

    def release(self, size: int) -> None:
        """Count `size` bytes less and wake who waits for space; on the event loop only."""
        with self._lock:
            self.used_bytes -= size
        self._freed.set()

    def free_bytes(self) -> int:
        """Return the free space on the spool's disk."""
        return free_bytes(self._path)

    def allows_copy(self, size: int) -> bool:
        """Tell whether a copy of content already counted would leave the floor of free space alone."""
        return self.free_bytes() - size >= self._floor

    async def freed(self) -> None:
        """Return when some custody ended since this call."""
        self._freed.clear()
        await self._freed.wait()
