"""The index's tables. Their content is the store's, so an index of another form is thrown away and made again."""

FORM = 3

SCHEMA = """
    -- What was seen in the store, and why nobody could make sense of it, if that is so.
    CREATE TABLE objects (
        key TEXT PRIMARY KEY,
        etag TEXT NOT NULL,
        trouble TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE INDEX objects_in_trouble ON objects (key) WHERE trouble <> '';

    -- The folders that were looked into, with what the store said then to tell whether they changed.
    CREATE TABLE folders (
        prefix TEXT PRIMARY KEY,
        etag TEXT NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE runs (
        key TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        run TEXT NOT NULL,
        created TEXT NOT NULL,
        tags TEXT NOT NULL,
        metadata TEXT NOT NULL,
        host TEXT NOT NULL,
        user TEXT NOT NULL,
        finished TEXT
    );
    CREATE INDEX runs_newest ON runs (created, key);

    CREATE TABLE files (
        key TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        run TEXT NOT NULL,
        created TEXT NOT NULL,
        tags TEXT NOT NULL,
        metadata TEXT NOT NULL,
        job TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        path TEXT NOT NULL,
        category TEXT NOT NULL,
        description TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        files INTEGER NOT NULL,
        sha256 TEXT NOT NULL
    );
    CREATE INDEX files_newest ON files (created, key);
    CREATE INDEX files_of_run ON files (project, run, created, key);

    CREATE TABLE versions (
        key TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        run TEXT NOT NULL,
        created TEXT NOT NULL,
        tags TEXT NOT NULL,
        metadata TEXT NOT NULL,
        folder TEXT NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL,
        type TEXT NOT NULL,
        job TEXT NOT NULL,
        digest TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        description TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        files INTEGER NOT NULL,
        pointers INTEGER NOT NULL,
        ttl_seconds REAL,
        skipped TEXT NOT NULL
    );
    CREATE INDEX versions_newest ON versions (created, key);
    CREATE INDEX versions_of_artifact ON versions (folder, number);

    CREATE TABLE aliases (
        key TEXT PRIMARY KEY,
        folder TEXT NOT NULL,
        alias TEXT NOT NULL,
        number INTEGER NOT NULL
    );
    CREATE INDEX aliases_of_version ON aliases (folder, number);

    CREATE TABLE states (
        key TEXT PRIMARY KEY,
        folder TEXT NOT NULL,
        number INTEGER NOT NULL,
        state TEXT NOT NULL
    );
    CREATE INDEX states_of_version ON states (folder, number);
"""
TABLES = ("runs", "files", "versions", "aliases", "states")
