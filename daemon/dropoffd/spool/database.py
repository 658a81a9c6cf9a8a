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
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

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
# ... unless there is never a quiet moment. By then it holds at most 256 times 64 KiB, so it stays in its blocks.
CHECKPOINT_BUSY_COMMITS = 256
# The log is made of written blocks before it is used, and used again from its beginning: a commit then changes
# no metadata of the file system, and its sync takes half as long (0.17 ms, not 0.35, on ext4).
LOG_BYTES = 32 << 20
# A commit on the event loop's own thread spares two changes of thread, a third of a save's time. It is done
# while the loop has nothing else to do and for as long as the disk answers as quickly as this.
PROMPT_SECONDS = 0.005
# Whoever is served at that moment is waited for no longer than a change of thread would take on a busy machine.
TURN_SECONDS = 0.002
# After a slow one it is left off for a while, longer each time in a row: every disk hesitates now and then.
PROMPT_AGAIN_SECONDS, PROMPT_AGAIN_MOST_SECONDS = 0.1, 5.0
# So many operations at once may leave work for later; the next one then waits until it is done.
UNFINISHED_MOST = 256


class _Request:
    __slots__ = ("error", "future", "operation", "result")

    def __init__(self, operation: Operation[Any], future: asyncio.Future[Any] | None = None) -> None:
        self.operation = operation
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class Database:
    """Runs operations on the database at `path` for one event loop.

    `finish` does what operations that ran at once left for later; it comes before whatever is run next.
    """

    def __init__(self, path: str, finish: Operation[None] = lambda _: None) -> None:
        self._path = path
        self._finish = finish
        self._unfinished = 0
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._broken: Exception | None = None
        self._commits_in_log = 0
        # How much was free when the log could last not be written back: with no more than that, it still cannot.
        self._stuck_at: int | None = None
        self._turn = threading.Lock()
        self._prompt_from = 0.0
        self._prompt_pause = PROMPT_AGAIN_SECONDS
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
        if self._unfinished:
            unfinished, self._unfinished = self._unfinished, 0
            self._submit(self._finish).add_done_callback(partial(self._finished, unfinished))
        return await self._submit(operation)

    @property
    def prompt(self) -> bool:
        """Tell whether the disk was quick lately, and nothing that only the thread does is due."""
        due = self._commits_in_log >= CHECKPOINT_BUSY_COMMITS or self._unfinished >= UNFINISHED_MOST
        return not due and time.monotonic() >= self._prompt_from

    def at_once(self, operation: Operation[T], *, unfinished: bool = False) -> T | None:
        """Do as `run`, here and now, before what waits; None, and nothing done, if that would take long.

        With `unfinished` the operation leaves work for `finish`.
        """
        if not self.prompt or not self._turn.acquire(timeout=TURN_SECONDS):
            return None
        began = time.monotonic()
        request = _Request(operation)
        try:
            self._serve(self._connection, [request])
        finally:
            self._turn.release()
        ended = time.monotonic()
        if ended - began <= PROMPT_SECONDS:
            self._prompt_pause = PROMPT_AGAIN_SECONDS
        else:
            self._prompt_from = ended + self._prompt_pause
            self._prompt_pause = min(2 * self._prompt_pause, PROMPT_AGAIN_MOST_SECONDS)
        if request.error is not None:
            raise request.error
        self._unfinished += unfinished
        result: T = request.result
        return result

    def _submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        self._requests.put(_Request(operation, future))
        return future

    def _finished(self, count: int, future: asyncio.Future[None]) -> None:
        if future.exception() is not None:  # the disk is full, or broken, of which everybody else hears as well
            self._unfinished += count

    async def aclose(self) -> None:
        """Finish what was asked for, write the log back and close the file."""
        if self._thread.is_alive():
            self._requests.put(None)
            await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        try:
            connection = self._connection = self._connect()
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
                with self._turn:
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
        if self._commits_in_log >= CHECKPOINT_BUSY_COMMITS:
            self._write_log_back(connection)
        elif self._commits_in_log >= CHECKPOINT_IDLE_COMMITS:
            try:
                return self._requests.get(timeout=CHECKPOINT_IDLE_SECONDS)
            except queue.Empty:
                self._write_log_back(connection)
        return self._requests.get()

    def _write_log_back(self, connection: sqlite3.Connection) -> None:
        with self._turn:
            self._checkpoint(connection)

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
        return self._stuck_at is not None and os.stat(self._path + "-wal").st_size > LOG_BYTES

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
        failure = self._tried(connection, group)
        if isinstance(failure, SpoolFullError):
            # A log that is full may be on a disk that has space again: written back, it needs no more. And what
            # needs no space, such as a question or the end of a job, must not fail with what does.
            self._checkpoint(connection)
            for request in group:
                request.error = self._tried(connection, [request]) or request.error
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

    def _tried(self, connection: sqlite3.Connection, group: list[_Request]) -> Exception | None:
        """Apply and commit a group; return what failed for all of it."""
        try:
            if self._broken:
                raise self._broken
            connection.execute("BEGIN IMMEDIATE")
            if len(group) == 1:
                self._apply_alone(connection, group[0])
            else:
                for request in group:
                    self._apply(connection, request)
            connection.execute("COMMIT")
            self._commits_in_log += 1
        except (sqlite3.Error, SpoolBrokenError) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return self._failure(error)
        return None

    def _apply(self, connection: sqlite3.Connection, request: _Request) -> None:
        connection.execute("SAVEPOINT one")
        if not _succeeds(connection, request):
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _apply_alone(self, connection: sqlite3.Connection, request: _Request) -> None:
        """Do without the savepoint, a twentieth of a commit."""
        if not _succeeds(connection, request):
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return _full()
        if self._broken is None:
            self._broken = SpoolBrokenError(
                f"unable to write the spool {self._path}: {error}",
                hint="check the disk, then restart the daemon",
            )
        return self._broken


def _full() -> SpoolFullError:
    return SpoolFullError(
        "unable to write the spool: its disk is full", hint="free space on the disk of the state directory"
    )


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
