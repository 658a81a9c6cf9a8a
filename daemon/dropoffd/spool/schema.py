"""The spool's tables, and how older ones become newer ones.

`PRAGMA user_version` counts the migrations that were applied. A newer number than this code knows is refused
and nothing is touched: an older daemon must not guess what a newer one meant.
"""

import sqlite3
from collections.abc import Sequence

from dropoffd.errors import StartError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

    CREATE TABLE runs (
        run INTEGER PRIMARY KEY,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        store TEXT NOT NULL,
        published INTEGER NOT NULL DEFAULT 0,
        UNIQUE (project, name, store)
    );

    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        job TEXT NOT NULL UNIQUE,
        run INTEGER NOT NULL REFERENCES runs,
        name BLOB NOT NULL,
        state TEXT NOT NULL,
        priority INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        size_class INTEGER NOT NULL,
        files INTEGER NOT NULL,
        capture TEXT NOT NULL,
        newest INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL,
        reason TEXT NOT NULL DEFAULT '',
        hint TEXT NOT NULL DEFAULT '',
        save BLOB NOT NULL,
        skipped BLOB,
        receipt BLOB
    );
    CREATE INDEX jobs_queued ON jobs (run, priority DESC, size_class, seq) WHERE state = 'queued';
    CREATE INDEX jobs_oldest ON jobs (seq) WHERE state = 'queued';
    CREATE INDEX jobs_waiting ON jobs (due_at) WHERE state = 'waiting';
    CREATE INDEX jobs_held ON jobs (seq) WHERE state = 'held';
    CREATE INDEX jobs_ended ON jobs (seq) WHERE state IN ('delivered', 'cancelled', 'superseded');
    CREATE INDEX jobs_newest ON jobs (run, name) WHERE newest AND state IN ('queued', 'waiting', 'held');

    -- Jobs that were just accepted, until the next operation files them: a commit of one page.
    CREATE TABLE arrivals (
        seq INTEGER PRIMARY KEY,
        job TEXT NOT NULL,
        run INTEGER NOT NULL,
        save BLOB NOT NULL,
        content BLOB NOT NULL
    );

    CREATE TABLE contents (
        seq INTEGER NOT NULL REFERENCES jobs,
        ordinal INTEGER NOT NULL,
        path BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        capture TEXT NOT NULL,
        place BLOB NOT NULL,
        offset INTEGER NOT NULL,
        stamp BLOB,
        synced INTEGER NOT NULL,
        sha256 TEXT NOT NULL DEFAULT '',
        key TEXT NOT NULL DEFAULT '',
        inline BLOB,
        PRIMARY KEY (seq, ordinal)
    ) WITHOUT ROWID;
    CREATE INDEX contents_unsettled ON contents (seq, ordinal) WHERE capture = 'link' OR NOT synced;

    -- Directories outside the state directory that hold hard links of ours.
    CREATE TABLE homes (path BLOB PRIMARY KEY) WITHOUT ROWID;

    -- Kept by triggers, so that `status` and `flush` cost the same with one job and with a million.
    CREATE TABLE totals (
        run INTEGER NOT NULL,
        state TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (run, state)
    ) WITHOUT ROWID;
    CREATE TRIGGER jobs_added AFTER INSERT ON jobs BEGIN
        INSERT INTO totals VALUES (NEW.run, NEW.state, 1, NEW.size_bytes)
            ON CONFLICT DO UPDATE SET jobs = jobs + 1, size_bytes = size_bytes + NEW.size_bytes;
    END;
    CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
        UPDATE totals SET jobs = jobs - 1, size_bytes = size_bytes - OLD.size_bytes
            WHERE run = OLD.run AND state = OLD.state;
        INSERT INTO totals VALUES (NEW.run, NEW.state, 1, NEW.size_bytes)
            ON CONFLICT DO UPDATE SET jobs = jobs + 1, size_bytes = size_bytes + NEW.size_bytes;
    END;
    CREATE TRIGGER jobs_forgotten AFTER DELETE ON jobs BEGIN
        UPDATE totals SET jobs = jobs - 1, size_bytes = size_bytes - OLD.size_bytes
            WHERE run = OLD.run AND state = OLD.state;
    END;
    """,
    """
    ALTER TABLE contents ADD COLUMN crc64nvme TEXT NOT NULL DEFAULT '';

    -- Uploads in parts that a store was asked to begin; `upload` is empty until its answer came. A row whose content
    -- has left custody is an upload that nobody will finish, to be ended at the store.
    CREATE TABLE uploads (
        seq INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        store TEXT NOT NULL,
        key TEXT NOT NULL,
        upload TEXT NOT NULL,
        part_bytes INTEGER NOT NULL,
        PRIMARY KEY (seq, ordinal)
    ) WITHOUT ROWID;

    CREATE TABLE parts (
        seq INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        number INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        etag TEXT NOT NULL,
        crc64nvme TEXT NOT NULL,
        checksum TEXT NOT NULL,
        PRIMARY KEY (seq, ordinal, number)
    ) WITHOUT ROWID;

    -- Who is next is asked for each store apart, so that the backlog of one that is down is never looked through.
    CREATE TABLE stores (store INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE);
    INSERT INTO stores (url) SELECT DISTINCT store FROM runs;
    ALTER TABLE jobs ADD COLUMN store INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET store =
        (SELECT s.store FROM runs AS r JOIN stores AS s ON s.url = r.store WHERE r.run = jobs.run);
    DROP INDEX jobs_queued;
    CREATE INDEX jobs_queued ON jobs (store, run, priority DESC, size_class, seq) WHERE state = 'queued';
    DROP INDEX jobs_oldest;
    CREATE INDEX jobs_oldest ON jobs (store, seq) WHERE state = 'queued';
    """,
    """
    -- An artifact's additions wait, staged and without a run, until it is logged; then they get the version's run.
    CREATE TABLE artifacts (
        artifact INTEGER PRIMARY KEY,
        store TEXT NOT NULL,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        type TEXT NOT NULL DEFAULT '',
        UNIQUE (store, project, name)
    );

    -- Versions in custody; their order is that of the calls.
    CREATE TABLE versions (
        seq INTEGER PRIMARY KEY REFERENCES jobs,
        artifact INTEGER NOT NULL REFERENCES artifacts,
        type TEXT NOT NULL,
        note BLOB
    );
    CREATE INDEX versions_in_order ON versions (artifact, seq);

    CREATE TABLE additions (
        seq INTEGER PRIMARY KEY,
        draft TEXT NOT NULL,
        position INTEGER NOT NULL,
        overwrite INTEGER NOT NULL,
        added_at REAL NOT NULL,
        version INTEGER,
        stored INTEGER NOT NULL DEFAULT 0,
        spared_bytes INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX additions_of_draft ON additions (draft, position);
    CREATE INDEX additions_of_version ON additions (version, stored);

    -- What the manifest will say of files that are stored; kept until it is there.
    CREATE TABLE entries (
        seq INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        entry BLOB NOT NULL,
        PRIMARY KEY (seq, ordinal)
    ) WITHOUT ROWID;

    CREATE INDEX jobs_staged ON jobs (seq) WHERE state = 'staged';
    DROP TRIGGER jobs_moved;
    CREATE TRIGGER jobs_moved AFTER UPDATE OF state, run ON jobs
        WHEN OLD.state <> NEW.state OR OLD.run <> NEW.run BEGIN
        UPDATE totals SET jobs = jobs - 1, size_bytes = size_bytes - OLD.size_bytes
            WHERE run = OLD.run AND state = OLD.state;
        INSERT INTO totals VALUES (NEW.run, NEW.state, 1, NEW.size_bytes)
            ON CONFLICT DO UPDATE SET jobs = jobs + 1, size_bytes = size_bytes + NEW.size_bytes;
    END;
    """,
    """
    -- Since when it is sure that the store has the entry's object; 0: it was found there, and may have been garbage.
    ALTER TABLE entries ADD COLUMN proven_at REAL NOT NULL DEFAULT 0;

    -- The group that a version contributes to, or finishes.
    ALTER TABLE versions ADD COLUMN contributes TEXT NOT NULL DEFAULT '';
    ALTER TABLE versions ADD COLUMN finishes TEXT NOT NULL DEFAULT '';
    """,
    """
    -- Small content travels in a row of its own, so that filing an arrival does not write it again. The column that
    -- had it stays, empty: only SQLite 3.35 can drop one.
    CREATE TABLE inlines (
        seq INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        data BLOB NOT NULL,
        UNIQUE (seq, ordinal)
    );
    INSERT INTO inlines SELECT seq, ordinal, inline FROM contents WHERE inline IS NOT NULL;
    UPDATE contents SET inline = NULL WHERE inline IS NOT NULL;
    """,
    """
    -- Arrivals are in a journal beside the database, which knows its own by this id. What an older daemon left in
    -- the table for them is filed at start.
    INSERT INTO meta VALUES ('journal', lower(hex(randomblob(8)))), ('filed', '0');
    """,
)


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the database to the newest schema, each migration in one transaction with its number.

    Raises StartError for a database that a newer daemon made.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_version(version, migrations)
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def check_version(version: int, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Raise StartError for the schema of a newer daemon."""
    if version > len(migrations):
        raise StartError(
            f"unable to open the spool: its schema is {version}, this daemon knows {len(migrations)}",
            hint="a newer dropoff made it; upgrade with `pip install -U 'dropoff[daemon]'`",
        )


def version_in(path: str) -> int:
    """Return the schema's number in the header of a database file (SQLite's file format, 1.3), touching nothing."""
    with open(path, "rb") as file:
        header = file.read(64)
    return int.from_bytes(header[60:64], "big") if header.startswith(b"SQLite format 3\0") else 0
