"""One daemon per spool: a flock on a file in the state directory, which dies with its holder.

Neither a pid file nor a ping tells whether a daemon lives; the kernel does.
"""

import fcntl
import os

from dropoffd.errors import Exit, StartError


class SpoolLock:
    """Holds the state directory; released by the kernel when this process ends, however it ends."""

    def __init__(self, state_dir: str) -> None:
        path = os.path.join(state_dir, "lock")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StartError(
                f"unable to start: a daemon already works on {state_dir} (pid {holder})",
                hint="`dropoff status` shows it; for a second one set another DROPOFF_STATE_DIR",
                exit_code=Exit.RUNNING,
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another daemon have the spool."""
        os.close(self._fd)
