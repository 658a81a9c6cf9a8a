"""The index's file: SQLite, which the daemon and a command may have open at once.

Nothing in it is needed, so a file that is damaged, or of another form, is removed and begun anew. Without a shared
memory beside it (no WAL): a full btrfs kills who maps that.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from dropoff.errors import UsageError
from dropoffd.filesystem import private_directory
from dropoffd.index.schema import FORM, SCHEMA

T = TypeVar("T")

_BUSY_SECONDS = 30.0
# What SQLite says of a file that is none of its own, or not whole.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """Runs operations, one after another, on the file at `path`, which is made when it is first needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._turn = anyio.CapacityLimiter(1)

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run `operation` as one transaction; raises UsageError for a disk that does not let it."""
        return await anyio.to_thread.run_sync(self._run, operation, limiter=self._turn)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return self._tried(operation)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _DAMAGED:
                    raise
                self._remove()
                return self._tried(operation)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(
                f"unable to keep the index {self._path}: {error}",
                hint="free space on its disk, or set DROPOFF_CACHE_DIR to another",
            ) from error

    def _tried(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None or not os.path.exists(self._path):  # it may be deleted at any time
            self.close()
            connection = self._connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = operation(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return result

    def _opened(self) -> sqlite3.Connection:
        private_directory(os.path.dirname(self._path))
        connection = self._connected()
        (form,) = connection.execute("PRAGMA user_version").fetchone()
        if form not in {0, FORM}:
            connection.close()
            self._remove()
            connection = self._connected()
        connection.execute("BEGIN EXCLUSIVE")
        # Asked again: another process may have been faster.
        if connection.execute("PRAGMA user_version").fetchone() != (FORM,):
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {FORM}")
        connection.execute("COMMIT")
        return connection

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _remove(self) -> None:
        self.close()
        for path in (self._path, f"{self._path}-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
