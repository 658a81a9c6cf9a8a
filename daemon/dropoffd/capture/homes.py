"""Where hard links can go: a directory of ours on the file's own file system.

That is the spool where it is on the same one, else `.dropoff-<uid>` in the highest directory above the file
where this user may make one. Nothing a user made is ever touched.
"""

import contextlib
import os

from dropoff.content import PAYLOADS
from dropoffd.filesystem import private_directory


class Homes:
    """Finds and remembers one directory per file system."""

    def __init__(self, state_dir: str, link_dir: str, boot: str) -> None:
        self.payloads = os.path.join(state_dir, PAYLOADS)
        self._state_dir = state_dir
        self._boot = boot
        self._by_device: dict[int, str | None] = {os.stat(self.payloads).st_dev: self.payloads}
        if link_dir:
            private_directory(link_dir)
            self._by_device.setdefault(os.stat(link_dir).st_dev, link_dir)
        self.made: set[str] = {link_dir} if link_dir else set()
        """Homes outside the state directory; the spool remembers them, so that a crash leaves no link behind."""

    def known(self, device: int) -> str | None:
        """Return the home on a file system without looking for one."""
        return self._by_device.get(device)

    def find(self, fd: int) -> str | None:
        """Return the home on the file system of the open file `fd`, made if need be; None if there can be none."""
        device = os.fstat(fd).st_dev
        if device not in self._by_device:
            home = _make(fd, device)
            self._by_device[device] = home
            if home:
                self.made.add(home)
        return self._by_device[device]

    def place(self, home: str, name: str) -> bytes:
        """Return what is recorded for the file `name` in `home`: relative to the state directory if inside it."""
        return os.fsencode(os.path.join(PAYLOADS if home == self.payloads else home, name))

    def own_path(self, name: str, home: str | None = None) -> str:
        """Return where a duplicate of the payload `name` goes: complete if it is there, though perhaps not synced.

        The name of this boot is in it: what a power cut left of it is never taken for the whole.
        """
        return os.path.join(home or self.payloads, f"{name}.{self._boot[:8]}")

    def path(self, place: bytes) -> str:
        """Return where a recorded place is now."""
        return os.path.join(self._state_dir, os.fsdecode(place))

    def remove_empty(self) -> None:
        """Leave nothing behind on other people's disks that is not needed."""
        for home in self.made:
            with contextlib.suppress(OSError):  # not empty, or gone with its file system
                os.rmdir(home)


def _make(fd: int, device: int) -> str | None:
    try:
        # What the file is called in our mount namespace; in another one it has no name that helps here.
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.stat(path).st_ino != os.fstat(fd).st_ino:
            return None
    except OSError:
        return None
    above = []
    directory = os.path.dirname(path)
    while True:
        with contextlib.suppress(OSError):
            if os.stat(directory).st_dev != device:
                break
            above.append(directory)
        if directory == os.path.dirname(directory):
            break
        directory = os.path.dirname(directory)
    for directory in reversed(above):
        home = os.path.join(directory, f".dropoff-{os.geteuid()}")
        with contextlib.suppress(OSError):
            private_directory(home)
            return home
    return None
