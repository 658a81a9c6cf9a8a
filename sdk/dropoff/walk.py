"""Walk a directory by descriptor: only what is below it, never through a swapped link, never a device.

Everything is opened relative to an open directory (openat) without following links. A symbolic link is
followed only where what it opens lies inside the directory that was given; what is passed over is reported,
with the reason.
"""

import os
import stat
from collections.abc import Callable, Iterator

from dropoff.errors import UsageError
from dropoff.names import display

ENTRIES_MAX = 1_000_000
DEPTH_MAX = 256
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = _FILE | os.O_DIRECTORY

_TYPES = {
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def walk(root: int, skip: Callable[[str], None]) -> Iterator[tuple[bytes, int]]:
    """Yield the path below `root` and an open descriptor of every regular file, in the order of names.

    The descriptor is closed when the iterator goes on. `skip` is told of each thing that is passed over.
    Raises UsageError beyond `ENTRIES_MAX` files.
    """
    return _Walk(root, skip).below(b"", os.open(".", _DIRECTORY, dir_fd=root), (), linked=False)


def _is_link(name: bytes, directory: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


class _Walk:
    def __init__(self, root: int, skip: Callable[[str], None]) -> None:
        self._skip = skip
        self._real_root = os.readlink(f"/proc/self/fd/{root}")
        self._device = os.fstat(root).st_dev
        self._count = 0

    def below(
        self, prefix: bytes, directory: int, ancestors: tuple[tuple[int, int], ...], *, linked: bool
    ) -> Iterator[tuple[bytes, int]]:
        """Yield what is in the open `directory`, which is closed at the end.

        Below a linked directory no further ones are followed: links among directories would multiply.
        """
        try:
            found = os.fstat(directory)
            here = (*ancestors, (found.st_dev, found.st_ino))
            with os.scandir(directory) as entries:
                names = sorted(os.fsencode(entry.name) for entry in entries)
            for name in names:
                path = prefix + name
                link = _is_link(name, directory)
                child = self._open(path, name, directory, here)
                if child is None:
                    continue
                self._count += 1
                if self._count > ENTRIES_MAX:
                    os.close(child)
                    raise UsageError(
                        f"unable to save a directory of more than {ENTRIES_MAX} files and directories",
                        hint="save its parts, or an archive of it",
                    )
                if stat.S_ISDIR(os.fstat(child).st_mode):
                    if link and linked:
                        os.close(child)
                        self._skipped(path, "a link to a directory, below another one")
                        continue
                    yield from self.below(path + b"/", child, here, linked=linked or link)
                    continue
                try:
                    yield path, child
                finally:
                    os.close(child)
        finally:
            os.close(directory)

    def _open(self, path: bytes, name: bytes, directory: int, here: tuple[tuple[int, int], ...]) -> int | None:
        try:
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                return self._follow(path, name, directory, here)
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return self._skipped(path, _TYPES.get(stat.S_IFMT(mode), "not a file"))
            child = os.open(name, _DIRECTORY if stat.S_ISDIR(mode) else _FILE, dir_fd=directory)
        except OSError as error:
            # Vanished or forbidden: reported like the rest, since the other files are still wanted.
            return self._skipped(path, os.strerror(error.errno or 0).lower())
        return self._checked(path, child, here)

    def _follow(self, path: bytes, name: bytes, directory: int, here: tuple[tuple[int, int], ...]) -> int | None:
        # O_PATH opens without side effects, so a link to a device does nothing; the kernel's own name of what
        # was opened cannot be swapped afterwards, unlike a path that we would resolve.
        place = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)
        try:
            real = os.readlink(f"/proc/self/fd/{place}")
            mode = os.fstat(place).st_mode
            if real != self._real_root and not real.startswith(self._real_root.rstrip("/") + "/"):
                return self._skipped(path, "a link that leads outside")
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return self._skipped(path, "a link to " + _TYPES.get(stat.S_IFMT(mode), "something else"))
            flags = (_DIRECTORY if stat.S_ISDIR(mode) else _FILE) & ~os.O_NOFOLLOW
            child = os.open(f"/proc/self/fd/{place}", flags)
        finally:
            os.close(place)
        return self._checked(path, child, here)

    def _checked(self, path: bytes, child: int, here: tuple[tuple[int, int], ...]) -> int | None:
        found = os.fstat(child)
        reason = ""
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            reason = "not a file"
        elif (found.st_dev, found.st_ino) in here:
            reason = "a loop"
        elif found.st_dev != self._device:
            reason = "on another file system"
        elif len(here) > DEPTH_MAX:
            reason = f"deeper than {DEPTH_MAX} directories"
        if reason:
            os.close(child)
            return self._skipped(path, reason)
        return child

    def _skipped(self, path: bytes, reason: str) -> int | None:
        self._skip(f"{display(path)}: {reason}")
        return None
