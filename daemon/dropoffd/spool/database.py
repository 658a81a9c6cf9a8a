"""SQLite behind one thread that commits in groups: the spool's only door to its disk.

Operations are functions of a connection. The thread takes all that wait, runs each inside a savepoint, commits
once, and only then are their callers told: an answer means "on disk" (WAL, synchronous=FULL; NORMAL was seen
to lose commits in every second power cut). Locking is exclusive, so nobody else opens the file and its index
is not memory-mapped (a full btrfs kills a process that maps it).

A commit that fails for want of space fails its group and the next may succeed. Any other failure of the disk
is final: after a failed fsync nobody knows what is on disk, so everything later is refused.
"""

import asyncio
import errno
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from dropoff.content import write_all
from dropoff.errors import ProtocolError, SpoolFullError
from dropoffd.errors import Exit, SpoolBrokenError, StartError
from dropoffd.spool.schema import check_version, migrate, version_in

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

GROUP_MAX = 256
# The log is written back when nothing else is to do, so that no save has to wait for it ...
CHECKPOINT_IDLE_COMMITS = 64
CHECKPOINT_IDLE_SECONDS = 0.05
# ... unless there is never a quiet moment, or it has outgrown its blocks.
CHECKPOINT_BUSY_COMMITS = 256
# The log is made of written blocks before it is used, and used again from its beginning: a commit then changes
# no metadata of the file system, and its sync takes half as long (0.17 ms, not 0.35, on ext4).
LOG_BYTES = 32 << 20


class _Request:
    __slots__ = ("error", "future", "operation", "result")

    def __init__(self, operation: Operation[Any], future: asyncio.Future[Any] | None = None) -> None:
        self.operation = operation
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class Prelude(Protocol):
    """What comes first in every transaction; called by the database's thread."""

    def run(self, connection: sqlite3.Connection) -> None:
        """Do it, as part of the transaction."""

    def kept(self) -> None:
        """Hear that the transaction is on disk."""

    def undone(self) -> None:
        """Hear that the transaction came to nothing."""


class Nothing:
    """No prelude."""

    def run(self, connection: sqlite3.Connection) -> None:
        """Do nothing."""

    def kept(self) -> None:
        """Do nothing."""

    def undone(self) -> None:
        """Do nothing."""


class Database:
    """Runs operations on the database at `path` for one event loop.

    Where there is no space for the prelude, operations that need none are run without it.
    """

    def __init__(self, path: str, prelude: Prelude | None = None) -> None:
        self._path = path
        self._prelude = prelude or Nothing()
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._broken: SpoolBrokenError | None = None
        self._commits_in_log = 0
        # How much was free when the log could last not be written back: with no more than that, it still cannot.
        self._stuck_at: int | None = None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    async def open(self) -> None:
        """Open the file, migrate it, and start to serve; raises StartError."""
        self._thread.start()
        try:
            await self._opened
        except sqlite3.Error as error:
            raise StartError(
                f"unable to open the spool {self._path}: {error}",
                hint="check the disk; to begin anew move spool.db* aside and keep payloads/, it is the content",
                exit_code=Exit.IO,
            ) from error

    async def run(self, operation: Operation[T]) -> T:
        """Run `operation` and return its result once it is on disk.

        Raises what the operation raises (it is then undone), SpoolFullError, or SpoolBrokenError.
        """
        return await self._submit(operation)

    def run_prelude(self) -> None:
        """Have the prelude run soon, although nothing else has to be."""
        self._requests.put(_Request(lambda _: None))

    @property
    def works(self) -> bool:
        """Tell whether nothing final happened."""
        return self._broken is None

    def broke(self, error: OSError) -> SpoolBrokenError:
        """Take note that something final happened beside the database, and return the error to raise."""
        self._broken = self._broken or _broken(self._path, error)
        return self._broken

    def _submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(_Request(operation, future))
        return future

    async def aclose(self) -> None:
        """Finish what was asked for, write the log back and close the file."""
        if self._thread.is_alive():
            self._requests.put(None)
            await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001  # handed to the opener, whatever it is
            self._loop.call_soon_threadsafe(self._opened.set_exception, error)
            return
        self._loop.call_soon_threadsafe(self._opened.set_result, None)
        try:
            while True:
                first = self._next(connection)
                if first is None:
                    break
                group = [first]
                last = False
                while len(group) < GROUP_MAX:
                    try:
                        request = self._requests.get_nowait()
                    except queue.Empty:
                        break
                    if request is None:
                        last = True
                        break
                    group.append(request)
                self._serve(connection, group)
                self._loop.call_soon_threadsafe(_tell, group)
                if last:
                    break
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        if os.path.exists(self._path):
            check_version(version_in(self._path))
        else:
            self._open().close()  # SQLite throws away the log of a database that does not exist yet
        self._prepare_log()
        return self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        migrate(connection)
        return connection

    def _next(self, connection: sqlite3.Connection) -> _Request | None:
        if self._commits_in_log >= CHECKPOINT_BUSY_COMMITS or (self._commits_in_log and self._log_has_grown()):
            self._checkpoint(connection)
        elif self._commits_in_log >= CHECKPOINT_IDLE_COMMITS:
            try:
                return self._requests.get(timeout=CHECKPOINT_IDLE_SECONDS)
            except queue.Empty:
                self._checkpoint(connection)
        return self._requests.get()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Write the log back, so that it is used from its beginning again."""
        if self._stuck_at is not None and self._free_bytes() <= self._stuck_at:
            return
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            # A full disk may have space later; of any other trouble the next commit tells.
            self._failure(error)
            self._stuck_at = self._free_bytes()
        else:
            self._commits_in_log = 0
            self._stuck_at = None

    def _free_bytes(self) -> int:
        found = os.statvfs(os.path.dirname(self._path))
        return found.f_bavail * found.f_frsize

    def _log_is_full(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the log cannot be written back and has outgrown its blocks.

        More of it would take the very space that writing it back needs, and the spool would never recover.
        """
        if self._stuck_at is None:
            return False
        self._checkpoint(connection)
        return self._stuck_at is not None and self._log_has_grown()

    def _log_has_grown(self) -> bool:
        return os.stat(self._path + "-wal").st_size > LOG_BYTES

    def _prepare_log(self) -> None:
        """Make an empty log of written blocks; SQLite finds no header in it and begins at its start."""
        try:
            fd = os.open(self._path + "-wal", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:  # after a crash: it holds commits
            return
        try:
            write_all(fd, bytes(LOG_BYTES))
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.ftruncate(fd, 0)  # slower, and the disk is full anyway
        finally:
            os.close(fd)

    def _serve(self, connection: sqlite3.Connection, group: list[_Request]) -> None:
        if self._log_is_full(connection):
            for request in group:
                self._ask(connection, request)
            return
        failure = self._tried(connection, group, self._prelude)
        if isinstance(failure, SpoolFullError):
            # A log that is full may be on a disk that has space again: written back, it needs no more. And what
            # needs no space, such as a question or the end of a job, must not fail with what does.
            self._checkpoint(connection)
            self._tried(connection, [], self._prelude)
            for request in group:
                request.error = self._tried(connection, [request], Nothing()) or request.error
        elif failure:
            for request in group:
                request.error = failure

    def _ask(self, connection: sqlite3.Connection, request: _Request) -> None:
        """Serve what changes nothing, and refuse anything else."""
        before = connection.total_changes
        connection.execute("BEGIN")
        _succeeds(connection, request)
        if connection.total_changes != before:
            request.error = request.error or _full()
        connection.execute("ROLLBACK")

    def _tried(self, connection: sqlite3.Connection, group: list[_Request], prelude: Prelude) -> Exception | None:
        """Apply and commit a group; return what failed for all of it."""
        try:
            if self._broken:
                raise self._broken
            connection.execute("BEGIN IMMEDIATE")
            _run(prelude, connection)
            for request in group:
                self._apply(connection, request)
            connection.execute("COMMIT")
            self._commits_in_log += 1
        except (sqlite3.Error, SpoolBrokenError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            prelude.undone()
            return self._failure(error)
        prelude.kept()
        return None

    def _apply(self, connection: sqlite3.Connection, request: _Request) -> None:
        connection.execute("SAVEPOINT one")
        if not _succeeds(connection, request):
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return _full()
        if self._broken is None:
            self._broken = error if isinstance(error, SpoolBrokenError) else _broken(self._path, error)
        return self._broken


def _broken(path: str, error: Exception) -> SpoolBrokenError:
    return SpoolBrokenError(
        f"unable to write the spool {path}: {error}", hint="check the disk, then restart the daemon"
    )


def _full() -> SpoolFullError:
    return SpoolFullError(
        "unable to write the spool: its disk is full", hint="free space on the disk of the state directory"
    )


def _run(prelude: Prelude, connection: sqlite3.Connection) -> None:
    try:
        prelude.run(connection)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise
        # What comes first and cannot be done is nobody's fault in particular, and nothing may go on without it.
        raise SpoolBrokenError(
            f"unable to file what arrived: {error}", hint="this is a bug; nothing is lost"
        ) from error


def _succeeds(connection: sqlite3.Connection, request: _Request) -> bool:
    try:
        request.result, request.error = request.operation(connection), None
    except sqlite3.IntegrityError as error:
        request.error = ProtocolError(f"unable to write these rows: {error}")
        return False
    except sqlite3.Error:
        raise  # the disk's trouble is the whole group's
    except Exception as error:  # noqa: BLE001  # the operation's own refusal: its caller's, nobody else's
        request.error = error
        return False
    return True


def _tell(group: list[_Request]) -> None:
    for request in group:
        # Where its task was cancelled, what it asked for is done all the same.
        if request.future is None or request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)
