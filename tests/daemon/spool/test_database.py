"""The database: groups, failures and what is on disk when an answer comes."""

import asyncio
import shutil
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from daemon.making import Spools, inline, save, sha256
from dropoff.errors import SpoolFullError, UsageError
from dropoffd.errors import Exit, SpoolBrokenError, StartError
from dropoffd.spool import schema
from dropoffd.spool.database import CHECKPOINT_BUSY_COMMITS, GROUP_MAX, LOG_BYTES, Database
from dropoffd.spool.schema import MIGRATIONS, migrate

pytestmark = pytest.mark.anyio


def insert(key: str, connection: sqlite3.Connection) -> None:
    """Write a row."""
    connection.execute("INSERT INTO meta VALUES (?, '')", (key,))


def insert_and_refuse(key: str, connection: sqlite3.Connection) -> None:
    """Write a row and then refuse."""
    insert(key, connection)
    raise UsageError("unable to do this")


def keys(connection: sqlite3.Connection) -> set[str]:
    """Return the rows that an empty database does not have."""
    return {key for (key,) in connection.execute("SELECT key FROM meta")} - {"filed", "journal"}


def digests(directory: Path) -> dict[str, str]:
    """Return what is in a directory, by name."""
    return {file.name: sha256(file.read_bytes()) for file in directory.iterdir()}


async def test_an_operations_own_error_is_its_own(tmp_path: Path) -> None:
    """An operation that raises is undone alone: its neighbours in the group are kept."""
    database = Database(str(tmp_path / "spool.db"))
    await database.open()
    outcomes = await asyncio.gather(
        *(database.run(partial(insert if n % 3 else insert_and_refuse, str(n))) for n in range(100)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, UsageError) for outcome in outcomes] == [n % 3 == 0 for n in range(100)]
    assert await database.run(keys) == {str(n) for n in range(100) if n % 3}
    await database.aclose()


async def test_what_needs_no_space_is_done_on_a_full_disk(tmp_path: Path) -> None:
    """An operation that finds no space raises SpoolFullError; a question in the same group is answered."""

    def no_more_pages(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size for it

    database = Database(str(tmp_path / "spool.db"))
    await database.open()
    await database.run(no_more_pages)
    held = threading.Event()
    first = asyncio.create_task(database.run(lambda _: held.wait()))
    large, question = (asyncio.create_task(database.run(work)) for work in (partial(insert, "k" * 100_000), keys))
    await asyncio.sleep(0)
    held.set()
    await first
    with pytest.raises(SpoolFullError):
        await large
    assert await question == set()
    await database.aclose()


async def test_the_log_stays_within_its_blocks(tmp_path: Path) -> None:
    """However many commits are made without a pause, the log does not grow."""
    database = Database(str(tmp_path / "spool.db"))
    await database.open()
    for number in range(4 * CHECKPOINT_BUSY_COMMITS):
        await database.run(partial(insert, f"{number}".ljust(60_000)))
    assert (tmp_path / "spool.db-wal").stat().st_size == LOG_BYTES
    await database.aclose()


async def test_a_group_larger_than_the_most_is_served(tmp_path: Path) -> None:
    """More operations at once than fit one commit all succeed, in order."""
    database = Database(str(tmp_path / "spool.db"))
    await database.open()
    await asyncio.gather(*(database.run(partial(insert, str(n))) for n in range(3 * GROUP_MAX + 1)))
    assert len(await database.run(keys)) == 3 * GROUP_MAX + 1
    await database.aclose()


class Counting:
    """A prelude that writes a row, and remembers how its transactions ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.refuses = False

    def run(self, connection: sqlite3.Connection) -> None:
        """Write a row, unless there is no space for it."""
        insert(f"prelude {len(self.ended)}", connection)
        if self.refuses:
            connection.execute("INSERT INTO meta VALUES ('large', zeroblob(100000))")

    def kept(self) -> None:
        """Remember."""
        self.ended.append("kept")

    def undone(self) -> None:
        """Remember."""
        self.ended.append("undone")


async def test_the_prelude_comes_before_every_operation(tmp_path: Path) -> None:
    """An operation sees what the prelude did, also one that refuses; and it runs though nobody asks for anything."""
    prelude = Counting()
    database = Database(str(tmp_path / "spool.db"), prelude)
    await database.open()
    assert await database.run(keys) == {"prelude 0"}
    with pytest.raises(UsageError):
        await database.run(partial(insert_and_refuse, "refused"))
    database.run_prelude()
    assert await database.run(keys) >= {"prelude 0", "prelude 1"}
    await database.aclose()
    assert set(prelude.ended) == {"kept"}


async def test_without_space_for_the_prelude_the_rest_goes_on(tmp_path: Path) -> None:
    """What fits is done without it, and it hears each time that it came to nothing."""
    prelude = Counting()
    database = Database(str(tmp_path / "spool.db"), prelude)
    await database.open()
    await database.run(lambda c: c.execute("PRAGMA max_page_count = 1"))  # SQLite takes the present size for it
    before = list(prelude.ended)
    prelude.refuses = True
    await database.run(partial(insert, "small"))
    assert set(prelude.ended[len(before) :]) == {"undone"}
    prelude.refuses = False
    assert await database.run(keys) == {f"prelude {len(before) - 1}", "small", f"prelude {len(prelude.ended) - 1}"}
    await database.aclose()


async def test_after_trouble_beside_it_the_database_is_broken(tmp_path: Path) -> None:
    """Once nobody knows what is on the disk nothing more is taken."""
    database = Database(str(tmp_path / "spool.db"))
    await database.open()
    assert database.works
    error = database.broke(OSError(5, "Input/output error"))
    assert not database.works
    with pytest.raises(SpoolBrokenError, match="Input/output error") as caught:
        await database.run(keys)
    assert caught.value is error
    await database.aclose()


async def test_what_was_answered_survives_an_abrupt_end(spools: Spools, tmp_path: Path) -> None:
    """A copy of the files taken right after an answer, as a kill leaves them, has all that was answered."""
    spool = await spools.open()
    saves = [save() for _ in range(200)]
    for one in saves:
        await spool.accept(one, [inline(b"content")], ())
    shutil.copytree(spools.state, tmp_path / "crashed")
    crashed = Spools(tmp_path / "crashed" / "unused")
    crashed.state = tmp_path / "crashed"
    again = await crashed.open()
    assert [report.job for report in reversed(await again.listed([], 500, None))] == [one.job for one in saves]
    assert again.quota.used_bytes == 200 * 7
    await crashed.aclose()


async def test_reopening_finds_everything(spools: Spools) -> None:
    """After an orderly end the next daemon has every job as it was."""
    spool = await spools.open()
    one = save()
    seq = await spool.accept(one, [inline(b"content")], ("skipped",))
    assert seq is not None
    before = await spool.load(seq)
    await spools.aclose()
    again = await spools.open()
    assert await again.load(seq) == before
    assert await again.accept(one, [inline(b"content")], ()) is None


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Garbage in the place of the spool raises StartError with a hint and the disk's exit code, and stays."""
    path = tmp_path / "spool.db"
    path.write_bytes(b"this is no database" * 100)
    database = Database(str(path))
    with pytest.raises(StartError, match="unable to open the spool") as caught:
        await database.open()
    assert (caught.value.exit_code, "keep payloads" in caught.value.hint) == (Exit.IO, True)
    assert path.read_bytes() == b"this is no database" * 100


async def test_a_newer_schema_is_refused_and_untouched(tmp_path: Path) -> None:
    """A spool that a newer daemon made raises StartError, and no file of it changes."""
    path = tmp_path / "spool.db"
    database = Database(str(path))
    await database.open()
    await database.run(lambda c: insert("kept", c))
    await database.aclose()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = digests(tmp_path)
    refused = Database(str(path))
    with pytest.raises(StartError, match=f"its schema is {len(MIGRATIONS) + 1}, this daemon knows") as caught:
        await refused.open()
    assert "upgrade" in caught.value.hint
    assert digests(tmp_path) == before


def test_older_schemas_become_newer_ones(tmp_path: Path) -> None:
    """A second migration runs once on a spool of the first, keeps its rows, and raises the number."""
    second = (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'")
    connection = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    migrate(connection)
    insert("kept", connection)
    for _ in range(2):
        migrate(connection, second)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(second),)
    assert keys(connection) == {"kept"}
    assert connection.execute("SELECT count(colour) FROM jobs").fetchone() == (0,)
    with pytest.raises(StartError, match="its schema is"):
        migrate(connection)
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A migration that breaks in its middle leaves the schema and the number of before."""
    path = tmp_path / "spool.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (*MIGRATIONS, "CREATE TABLE colours (name); INSERT INTO nowhere VALUES (1)"))
    connection.close()
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert again.execute("SELECT count(*) FROM sqlite_master WHERE name = 'colours'").fetchone() == (0,)
    again.close()
