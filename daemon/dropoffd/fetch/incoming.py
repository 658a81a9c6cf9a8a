"""Where content lies until it is verified: a directory beside its goal, on the same file system.

A large content is a part file and a note of which of its pieces are there, so that who comes again after an
interruption asks for the others alone. The note is written after the piece; after a power cut it may know more than
the disk, which the digest finds out.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import threading

from dropoffd.fetch.plan import Wanted, pieces

_READ_BYTES = 1 << 20


class Incoming:
    """The directory `name` below an open one; made if it is not there, removed by `close` when it is empty."""

    def __init__(self, root: int, name: str) -> None:
        self._root = root
        self._name = name
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=root)
        self.fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        found = os.fstat(self.fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            os.close(self.fd)
            raise PermissionError(1, "others may write there", name)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)
        with contextlib.suppress(OSError):  # what is left there is for the next time
            os.rmdir(self._name, dir_fd=self._root)

    def new(self) -> tuple[int, str]:
        """Make an empty file; return its descriptor and name."""
        name = secrets.token_hex(16)
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.fd), name

    def write(self, data: memoryview | bytes) -> str:
        """Make a file of these bytes and return its name."""
        fd, name = self.new()
        try:
            write_all(fd, data, 0)
        finally:
            os.close(fd)
        return name

    def discard(self, name: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def held_bytes(self) -> int:
        """Return the space that earlier tries took here already."""
        held = 0
        with os.scandir(self.fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # others land theirs meanwhile
                    held += entry.stat(follow_symlinks=False).st_blocks * 512
        return held

    def part(self, content: Wanted) -> "PartFile":
        """Open the part file of a large content: what an earlier try left, or a new one."""
        name = _part_name(content)
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            # Another download of it may be at work; then this one goes alone.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _same(os.fstat(fd), os.stat(name, dir_fd=self.fd, follow_symlinks=False))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            os.close(fd)
            fd, name = self.new()
        return PartFile(self, fd, name, content)


class PartFile:
    """A large content on its way. Its methods block, and may be called from several threads."""

    def __init__(self, incoming: Incoming, fd: int, name: str, content: Wanted) -> None:
        self.name = name
        self.content = content
        self._incoming = incoming
        self._fd = fd
        self._lock, self._digesting = threading.Lock(), threading.Lock()
        self._pieces = pieces(content.size_bytes)
        self._note = os.open(
            f"{name}.have", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
            dir_fd=incoming.fd,
        )  # fmt: skip
        self._have = self._noted()
        self._digest = hashlib.sha256()
        self._digested = 0

    def _noted(self) -> set[int]:
        """Return which pieces an earlier try left; a line that a crash cut off does not count."""
        lines = os.pread(self._note, 1 << 24, 0).split(b"\n")[:-1]
        whole = {f"{start} {end}".encode(): index for index, (start, end) in enumerate(self._pieces)}
        size = os.fstat(self._fd).st_size
        return {whole[line] for line in lines if line in whole and self._pieces[whole[line]][1] <= size}

    def missing(self) -> list[int]:
        """Return the numbers of the pieces that are not there."""
        return [index for index in range(len(self._pieces)) if index not in self._have]

    def span(self, index: int) -> tuple[int, int]:
        """Return where a piece starts and ends in the content."""
        return self._pieces[index]

    def put(self, index: int, data: memoryview) -> None:
        """Write a piece."""
        start, end = self._pieces[index]
        write_all(self._fd, data, start)
        with self._lock:
            os.write(self._note, f"{start} {end}\n".encode())
            self._have.add(index)
        # One digests, as far as the pieces follow each other; the others go on to fetch.
        if self._digesting.acquire(blocking=False):
            try:
                if index == self._digested:  # it is in memory just now
                    self._digest.update(data)
                    self._digested += 1
                self._digest_more()
            finally:
                self._digesting.release()

    def check(self) -> bool:
        """Tell whether the content, all of whose pieces are there, is what it says; if not, nothing of it is kept."""
        with self._digesting:
            self._digest_more()
            if self._digest.hexdigest() == self.content.sha256:
                return True
            self._begin_anew()
        return False

    def _digest_more(self) -> None:
        while self._digested in self._have:
            start, end = self._pieces[self._digested]
            for offset in range(start, end, _READ_BYTES):
                self._digest.update(os.pread(self._fd, min(_READ_BYTES, end - offset), offset))
            self._digested += 1

    def _begin_anew(self) -> None:
        os.ftruncate(self._note, 0)
        os.ftruncate(self._fd, 0)
        self._have.clear()
        self._digest, self._digested = hashlib.sha256(), 0

    def finish(self) -> None:
        """Forget which pieces are there: the file is complete, and about to be moved."""
        self._incoming.discard(f"{self.name}.have")

    def close(self) -> None:
        """Let go of it; under a name of its own nobody would find it again, so it goes."""
        os.close(self._note)
        os.close(self._fd)
        if self.name != _part_name(self.content):
            self._incoming.discard(self.name)
            self._incoming.discard(f"{self.name}.have")


def _part_name(content: Wanted) -> str:
    return f"{content.sha256}.part"


def write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return stat.S_ISREG(other.st_mode) and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
