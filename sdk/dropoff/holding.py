"""Files in a store under names: what a version has, and what one save stored."""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from dropoff.answers import EntryList, EntryReport, Fetched, Verified
from dropoff.asking import ask, away, connected
from dropoff.client import checked
from dropoff.errors import DamagedError, UsageError
from dropoff.names import check_name
from dropoff.questions import Entries, Fetch, Stored, Stream, Verify
from dropoff.settings import Settings

_PAGE = 1000
_STREAM_BUFFER_BYTES = 256 << 10
_UMASK = re.compile(r"^Umask:\s*([0-7]+)$", re.MULTILINE)


class Holding:
    """Files in a store under names, which a version has, and what one save stored."""

    def __init__(self, settings: Settings, stored: Stored) -> None:
        self._settings = settings
        self._id = stored

    @property
    def entries(self) -> tuple[EntryReport, ...]:
        """Its files and references, by name."""
        return tuple(self._entries())

    def _entries(self, after: bytes = b"") -> Iterator[EntryReport]:
        while True:
            page = ask(self._settings, Entries(of=self._id, after=after, limit=_PAGE), EntryList)
            yield from page.entries
            if not page.more or not page.entries:
                return
            after = page.entries[-1].path

    def download(
        self,
        root: str | os.PathLike[str],
        paths: str | bytes | Iterable[str | bytes] = (),
        *,
        links: bool = False,
        references: bool = False,
    ) -> str:
        """Write its files, or those of these paths (also directories of them), below the directory `root`.

        A file appears under its name when its sha256 is verified. After an interruption the same call goes on where
        that left off; a file that is there with the right content is not fetched. The files are yours to change,
        copied or cloned from the cache where that has them; with `links` they are read-only links into it, and what
        it lacks is fetched there first. With `references` what those lead to is fetched from where it lies, anew each
        time, and DamagedError raised for what has another etag or size than was recorded. Raises UsageError for what
        is in the way below `root`. Returns `root`.
        """
        root = os.path.abspath(root)
        os.makedirs(root, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            asked = Fetch(of=self._id, paths=_paths(paths), links=links, umask=umask(), references=references)
            ask(self._settings, asked, Fetched, fd)
        finally:
            os.close(fd)
        return root

    def get_local_copy(self) -> str:
        """Return a directory in the cache that has its files, read-only, fetched if need be.

        It is the cache's: what was not used for longest goes when the cache is full. `download` is for keeps.
        """
        return ask(self._settings, Fetch(of=self._id), Fetched).place

    def path(self, name: str | bytes) -> str:
        """Return the path of one of its files in the cache, fetched if need be; as for `get_local_copy`."""
        path = check_name(name)
        place = ask(self._settings, Fetch(of=self._id, paths=(path,)), Fetched).place
        return os.path.join(place, os.fsdecode(path))

    def open(self, name: str | bytes, mode: str = "r", encoding: str | None = None) -> IO[Any]:
        """Open one of its files for reading, "r" or "rb", as a stream that is fetched while you read.

        It cannot seek. At its end its sha256 is verified: a read that reaches the end raises DamagedError if the
        bytes were not those that were stored.
        """
        if mode not in {"r", "rb"}:
            raise UsageError(f"unable to open with mode {mode!r}", hint="use 'r' for text, 'rb' for bytes")
        streamed = _Streamed(self._settings, Stream(of=self._id, path=check_name(name)))
        raw = io.BufferedReader(streamed, _STREAM_BUFFER_BYTES)
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding or "utf-8")

    def verify(self, *, read_data: bool = False) -> Verified:
        """Look whether the store has every object in the right size; with `read_data` also hash every byte.

        Damage is in the answer, file by file; nothing is raised for it.
        """
        return ask(self._settings, Verify(of=self._id, read_data=read_data), Verified)

    def _object(self, name: str | bytes | None, *, allow_pickle: bool) -> Any:
        from dropoff.objects import find, reader  # noqa: PLC0415  # most of what is read are files

        entry = find(self._entries, name)
        read = reader(entry, allow_pickle=allow_pickle)
        return read(self.path(entry.path))


class _Streamed(io.RawIOBase):
    """The end of a pipe that the daemon writes a file into, hashed as it is read."""

    def __init__(self, settings: Settings, asked: Stream) -> None:
        super().__init__()
        self._settings = settings
        self._digest = hashlib.sha256()
        self._ended = False
        self._fd, end = os.pipe2(os.O_CLOEXEC)
        try:
            self._connection = connected(settings)
            self._connection.send(asked, end)
        except BaseException:
            os.close(self._fd)
            super().close()
            raise
        finally:
            os.close(end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read some; raises what the daemon's refusal stands for, and DamagedError at the end of other bytes."""
        count = os.readv(self._fd, [buffer])
        if count:
            self._digest.update(memoryview(buffer)[:count])
        elif not self._ended:
            # The pipe ends whatever happened; the daemon's answer tells what.
            try:
                answer = checked(self._connection.receive())
            except OSError as error:
                raise away(self._settings) from error
            self._ended = True
            if not isinstance(answer, Fetched) or answer.sha256 != self._digest.hexdigest():
                raise DamagedError(
                    "unable to read the file: its bytes are not those of its sha256",
                    hint="the store damaged it, or somebody replaced it; use nothing of what was read",
                )
        return count

    def close(self) -> None:
        """End it; what was not read yet is not fetched."""
        if not self.closed:
            self._connection.close()
            os.close(self._fd)
        super().close()


def _paths(paths: str | bytes | Iterable[str | bytes]) -> tuple[bytes, ...]:
    if isinstance(paths, str | bytes):
        paths = (paths,)
    return tuple(check_name(os.fsencode(path).rstrip(b"/")) for path in paths)


def umask() -> int:
    """Return this process's umask."""
    # os.umask would have to change it, for all threads, to tell it.
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        found = _UMASK.search(file.read())
    return int(found[1], 8) if found else 0o077
