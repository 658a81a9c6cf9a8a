"""Jobs as they arrive: a record in a journal each, since a caller waits until it is on disk.

Whatever the database does next files them first, in the same transaction: they get their rows in `jobs` and
`contents`, and the database says up to which number all are filed. So nobody who asks the database sees that an
arrival was ever elsewhere, and the event loop writes records while the database's thread waits for the disk.
"""

import errno
import logging
import os
import sqlite3
import threading
import time

import msgspec

from dropoff.content import Content
from dropoff.saves import Save
from dropoffd.errors import Exit, StartError
from dropoffd.spool import jobs
from dropoffd.spool.journal import Journal

_log = logging.getLogger(__name__)

# So many wait to be filed at most; a save that comes then is filed itself, after them.
PENDING_MOST = 512
# Filing is asked for after so many, to happen while the event loop waits for the disk.
FILE_EVERY = 32
# An arrival is written on the event loop's own thread, which spares two changes of thread, a third of a save's time.
# It is done for as long as the disk answers as quickly as this.
PROMPT_SECONDS = 0.005
# After a slow one it is left off for a while, longer each time in a row: every disk hesitates now and then.
PROMPT_AGAIN_SECONDS, PROMPT_AGAIN_MOST_SECONDS = 0.1, 5.0

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_pack = msgspec.msgpack.Encoder().encode
_save = msgspec.msgpack.Decoder(Save).decode
_content = msgspec.msgpack.Decoder(Content).decode
_record = msgspec.msgpack.Decoder(tuple[Save, Content]).decode

_OWNER, _FILED = "journal", "filed"


class State(msgspec.Struct, frozen=True):
    """What the database knows of its journal: its own id in there, and up to which number all is filed."""

    owner: int
    filed: int


class Arrival(msgspec.Struct, frozen=True):
    """A job that is on disk but in no table; `run` is 0 if its number has to be looked up."""

    seq: int
    run: int
    save: Save
    content: Content


class Arrivals:
    """The arrivals that are not filed, in the order of their numbers.

    The event loop adds, the database's thread files. Where the disk has no space for that, they are jobs all the
    same, which no table tells of: whoever might take them for none has to look at `unfiled`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._journal: Journal | None = None
        self._pending: list[Arrival] = []
        self._lock = threading.Lock()
        # Of the present transaction: how many it filed, and which record it says is not to be found again.
        self._filed = self._noted = 0
        self._stuck = self._told = False
        self._given_up = 0
        self._prompt_from = 0.0
        self._prompt_pause = PROMPT_AGAIN_SECONDS

    def open(self, state: State) -> int:
        """Read what is not filed, and return the largest number that was given; blocks. Raises StartError.

        Without space for a journal, all jobs have to take the other way.
        """
        try:
            journal = Journal(self._path, state.owner)
            found = [Arrival(number, 0, *_record(said)) for number, said in journal.read() if number > state.filed]
        except (OSError, msgspec.MsgspecError) as error:
            if isinstance(error, OSError) and error.errno in _NO_SPACE and not os.path.exists(self._path):
                _log.warning("no space for the journal of arrivals path=%s", self._path)
                return state.filed
            raise StartError(
                f"unable to read the journal of arrivals {self._path}: {error}",
                hint="check the disk; it may hold saves that are nowhere else, so do not remove it lightly",
                exit_code=Exit.IO,
            ) from error
        self._pending.extend(found)
        self._journal = journal
        return found[-1].seq if found else state.filed

    @property
    def prompt(self) -> bool:
        """Tell whether an arrival would be written at once, so that it may hold up the event loop."""
        return (
            self._journal is not None and len(self._pending) < PENDING_MOST and time.monotonic() >= self._prompt_from
        )

    @property
    def filing_is_due(self) -> bool:
        """Tell whether it is time to file what waits, although nobody asks for it."""
        return len(self._pending) % FILE_EVERY == 0

    def add(self, seq: int, run: int, save: Save, content: Content) -> bool:
        """Write an arrival to disk, here and now; False, and nothing is there, if that cannot be.

        Raises OSError for a disk of which nobody knows any more what is on it.
        """
        journal = self._journal
        if journal is None or not self.prompt:
            return False
        if not self._pending:
            journal.begin_again()
        said = _pack((save, content))
        if not journal.fits(len(said)):
            return False
        began = time.monotonic()
        try:
            journal.append(seq, said)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            # A file system that never writes in place may find no space even for that. The record may be there all
            # the same, for the next start to find: so it counts as filed.
            with self._lock:
                self._given_up = seq
            return False
        with self._lock:
            self._pending.append(Arrival(seq, run, save, content))
        self._watch(began, time.monotonic())
        return True

    def _watch(self, began: float, ended: float) -> None:
        if ended - began <= PROMPT_SECONDS:
            self._prompt_pause = PROMPT_AGAIN_SECONDS
        else:
            self._prompt_from = ended + self._prompt_pause
            self._prompt_pause = min(2 * self._prompt_pause, PROMPT_AGAIN_MOST_SECONDS)

    def run(self, connection: sqlite3.Connection) -> None:
        """File what is pending, as the first part of a transaction."""
        with self._lock:
            found, given_up = self._pending.copy(), self._given_up
        for arrival in found:
            _file(connection, arrival)
        newest = max(given_up, found[-1].seq if found else 0)
        if newest:
            jobs.set_meta(connection, _FILED, str(newest))
        self._filed, self._noted = len(found), given_up
        self._stuck = False

    def kept(self) -> None:
        """Hear that the transaction is on disk."""
        with self._lock:
            del self._pending[: self._filed]
            if self._given_up == self._noted:
                self._given_up = 0
        self._filed, self._told = 0, False

    def undone(self) -> None:
        """Hear that the transaction came to nothing."""
        if self._pending and not self._told:
            _log.error("what arrived has no rows count=%d: deliveries of it wait for space", len(self._pending))
            self._told = True
        self._filed, self._stuck = 0, True

    @property
    def unfiled(self) -> list[Arrival]:
        """Those that no operation sees, since they could not be filed when that was last tried."""
        with self._lock:
            return self._pending.copy() if self._stuck else []

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _file(connection: sqlite3.Connection, arrival: Arrival) -> None:
    save = arrival.save
    if jobs.known(connection, save.job):
        # No call of ours: who makes one again does so on a new connection, whose first save is none that arrives.
        _log.warning("job arrived twice job=%s", save.job)
        return
    run = arrival.run or jobs.run_of(connection, (save.run.project, save.run.name, save.run.store))
    jobs.insert(connection, arrival.seq, run, save, [arrival.content], ())


def take_over(connection: sqlite3.Connection) -> None:
    """File what a daemon left that kept its arrivals in a table."""
    found = connection.execute("SELECT seq, run, save, content FROM arrivals ORDER BY seq").fetchall()
    for seq, run, save, content in found:
        jobs.insert(connection, seq, run, _save(save), [_content(content)], ())
    if found:
        connection.execute("DELETE FROM arrivals")


def state(connection: sqlite3.Connection) -> State:
    """Return what the database knows of its journal."""
    return State(owner=int(jobs.meta(connection, _OWNER) or "0", 16), filed=int(jobs.meta(connection, _FILED) or 0))


def path_beside(database: str) -> str:
    """Return where the journal of a database is: beside it, so that who moves `spool.db*` moves both."""
    return f"{database}-arrivals"
