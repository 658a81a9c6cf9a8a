"""Write files below one open directory, and nowhere else.

Every step goes through a descriptor and follows no link, so what somebody puts in the way meanwhile is refused or
replaced, and never written through. A file appears under its name whole, by one rename.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator

from dropoff.content import copy, reflink
from dropoff.errors import UsageError
from dropoff.names import display

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Below:
    """The open directory `root`, which stays its owner's to close; `umask` is that of whoever gets the files.

    Its methods block. They raise OSError, and UsageError for what is in the way.
    """

    def __init__(self, root: int, umask: int = 0o077) -> None:
        self.root = root
        self._umask = umask & 0o077  # what is fetched is its owner's to read and write, whatever the umask

    def folds(self) -> bool:
        """Tell whether the file system takes letters of either case for one."""
        name = f".dropoff-{secrets.token_hex(8)}-x"
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.root))
        try:
            os.stat(name.upper(), dir_fd=self.root)
        except FileNotFoundError:
            return False
        else:
            return True
        finally:
            os.unlink(name, dir_fd=self.root)

    def holds(self, path: bytes, size: int, sha256: str) -> bool:
        """Tell whether there is a file of that content under that name already."""
        try:
            with self._parent(path, make=False) as (directory, name):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except (OSError, UsageError):
            return False
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            # With a second name it is not ours alone: a link into the cache, which its owner must not write to.
            alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            return alone and found.st_size == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256

    def move(self, source: int, name: str, path: bytes, mode: int) -> None:
        """Give the file `name` of the directory `source` its mode and its name below the root."""
        with contextlib.suppress(PermissionError):  # the file is ours: the file system has no permissions
            os.chmod(name, (mode & 0o777 & ~self._umask) | 0o600, dir_fd=source)
        with self._parent(path, make=True) as (directory, last):
            try:
                os.rename(name, last, src_dir_fd=source, dst_dir_fd=directory)
            except IsADirectoryError:
                raise _in_the_way(path, "a directory has that name") from None

    def link(self, source: str, path: bytes) -> bool:
        """Give a file one more name below the root; False where the file system cannot."""
        with self._parent(path, make=True) as (directory, last):
            temporary = f".dropoff-{secrets.token_hex(8)}"
            try:
                os.link(source, temporary, dst_dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                if error.errno in {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP}:
                    return False
                raise
            try:
                os.rename(temporary, last, src_dir_fd=directory, dst_dir_fd=directory)
            except IsADirectoryError:
                raise _in_the_way(path, "a directory has that name") from None
            finally:
                # A rename onto another name of the same file does nothing, rename(2).
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
        return True

    @contextlib.contextmanager
    def _parent(self, path: bytes, *, make: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the open directory that holds `path`, and the last component."""
        *above, last = path.split(b"/")
        directory = os.dup(self.root)
        try:
            for part in above:
                made = make and self._made(part, directory)
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=directory)
                except OSError as error:
                    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                        raise _in_the_way(path, f"{display(part)!r} is there and is no directory") from None
                    raise
                os.close(directory)
                directory = below
                if made:
                    with contextlib.suppress(PermissionError):  # same
                        os.fchmod(directory, 0o777 & ~self._umask)
            yield directory, last
        finally:
            os.close(directory)

    def _made(self, part: bytes, directory: int) -> bool:
        try:
            os.mkdir(part, 0o700, dir_fd=directory)
        except FileExistsError:
            return False
        return True


def duplicate(source: int, target: int) -> None:
    """Fill the empty file `target` with the content of `source`; blocks are shared where the file system can."""
    if not reflink(source, target):
        copy(source, target, os.fstat(source).st_size)


def _in_the_way(path: bytes, cause: str) -> UsageError:
    return UsageError(
        f"unable to write {display(path)!r}: {cause}",
        hint="links are not followed here; remove what is in the way, or give another directory",
    )
