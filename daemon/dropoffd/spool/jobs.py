"""Jobs and their contents as rows: each function is one atomic step on the spool's database.

A row says `queued` while its delivery runs, too: which deliveries run is known to the process that runs them,
and after a crash none does. So there is nothing to clean up at start.
"""

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from dropoff.content import Capture, Content
from dropoff.messages import FINAL_STATES, JobState, Receipt
from dropoff.saves import Keep, Save, Stamp
from dropoffd.custody import Candidate, Digest, Held, Job
from dropoffd.spool import uploads

_pack = msgspec.msgpack.Encoder().encode
_save = msgspec.msgpack.Decoder(Save).decode
_stamp = msgspec.msgpack.Decoder(Stamp).decode
_texts = msgspec.msgpack.Decoder(tuple[str, ...]).decode

# Small before large is decided by class, so that order within a class is order of arrival.
# The last time that a database can hold; some file systems know later ones.
_LAST_NS = 2**63 - 1
_SMALL_BYTES, _MEDIUM_BYTES = 1 << 20, 64 << 20

_CONTENT_COLUMNS = (
    "ordinal, path, size_bytes, mode, mtime_ns, capture, place, offset, stamp, synced, sha256, crc64nvme, key"
)
_HELD_COLUMNS = ", ".join(f"c.{name}" for name in _CONTENT_COLUMNS.split(", ")) + ", i.data"
_JOB_COLUMNS = "seq, run, state, size_bytes, attempts, save, skipped"


def accept(
    connection: sqlite3.Connection,
    seq: int,
    run: int,
    save: Save,
    contents: Sequence[Content],
    skipped: Sequence[str],
) -> bool:
    """Add a job of a run and its contents; False, and nothing changed, if one of that id is there already."""
    if known(connection, save.job):
        return False
    insert(connection, seq, run, save, contents, skipped)
    return True


def known(connection: sqlite3.Connection, job: str) -> bool:
    """Tell whether a job of that id is or was in custody."""
    return connection.execute("SELECT 1 FROM jobs WHERE job = ?", (job,)).fetchone() is not None


def last_seq(connection: sqlite3.Connection) -> int:
    """Return the largest number of a job."""
    (last,) = connection.execute("SELECT ifnull(max(seq), 0) FROM jobs").fetchone()
    return int(last)


def insert(
    connection: sqlite3.Connection,
    seq: int,
    run: int,
    save: Save,
    contents: Sequence[Content],
    skipped: Sequence[str],
) -> None:
    """Write the rows of a new job."""
    size = size_of(contents)
    files = [content for content in contents if content.capture is not Capture.PACK]
    connection.execute(
        "INSERT INTO jobs (seq, job, run, name, state, priority, size_bytes, size_class, files, capture,"
        " newest, save, skipped, store) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " (SELECT s.store FROM runs AS r JOIN stores AS s ON s.url = r.store WHERE r.run = ?))",
        (
            seq, save.job, run, save.name, JobState.QUEUED, save.priority, size, _size_class(size), len(files),
            _capture_of(contents), save.keep is Keep.NEWEST, _pack(save), _pack(skipped) if skipped else None, run,
        ),
    )  # fmt: skip
    connection.executemany(
        f"INSERT INTO contents (seq, {_CONTENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', '')",
        [
            (
                seq, c.ordinal, c.path, c.size_bytes, c.mode, min(c.mtime_ns, _LAST_NS), c.capture, c.place, c.offset,
                _pack(c.stamp) if c.stamp else None, c.synced,
            )
            for c in contents
        ],
    )  # fmt: skip
    keep_inline(connection, seq, contents)


def keep_inline(connection: sqlite3.Connection, seq: int, contents: Iterable[Content]) -> None:
    """Write the bytes of those contents that are no files; apart, so that they are written once."""
    for content in contents:
        if content.inline is not None:
            connection.execute("INSERT INTO inlines VALUES (?, ?, ?)", (seq, content.ordinal, content.inline))


def run_of(connection: sqlite3.Connection, key: tuple[str, str, str]) -> int:
    """Return the number of the run with this project, name and store, a new one if need be."""
    select = "SELECT run FROM runs WHERE project = ? AND name = ? AND store = ?"
    row = connection.execute(select, key).fetchone()
    if row is None:
        connection.execute("INSERT INTO runs (project, name, store) VALUES (?, ?, ?)", key)
        connection.execute("INSERT OR IGNORE INTO stores (url) VALUES (?)", key[2:])
        row = connection.execute(select, key).fetchone()
    return int(row[0])


def size_of(contents: Iterable[Content]) -> int:
    """Return the bytes of the files among `contents`; a pack's members count, the pack itself does not."""
    return sum(content.size_bytes for content in contents if content.capture is not Capture.PACK)


def older_of_name(connection: sqlite3.Connection, seq: int) -> list[int]:
    """Return the undelivered jobs that a job saved with keep="newest" supersedes."""
    rows = connection.execute(
        "SELECT old.seq FROM jobs AS new JOIN jobs AS old USING (run, name)"
        " WHERE new.seq = ? AND old.newest AND old.seq < new.seq AND old.state IN ('queued', 'waiting', 'held')",
        (seq,),
    )
    return [old for (old,) in rows]


def _size_class(size: int) -> int:
    return 0 if size <= _SMALL_BYTES else 1 if size <= _MEDIUM_BYTES else 2


def _capture_of(contents: Sequence[Content]) -> str:
    kinds = {content.capture for content in contents if content.capture is not Capture.PACK}
    return "+".join(sorted(kinds))


def load(connection: sqlite3.Connection, seq: int) -> Job | None:
    """Return a job with its contents, or None if it ended."""
    row = connection.execute(f"SELECT {_JOB_COLUMNS} FROM jobs WHERE seq = ?", (seq,)).fetchone()
    if row is None or JobState(row[2]) in FINAL_STATES:
        return None
    contents = connection.execute(
        f"SELECT {_HELD_COLUMNS} FROM contents AS c LEFT JOIN inlines AS i USING (seq, ordinal)"
        " WHERE seq = ? ORDER BY ordinal",
        (seq,),
    )
    return Job(
        seq=row[0],
        run=row[1],
        state=JobState(row[2]),
        size_bytes=row[3],
        attempts=row[4],
        save=_save(row[5]),
        skipped=_texts(row[6]) if row[6] else (),
        contents=tuple(_held(content) for content in contents),
    )


def _held(row: tuple) -> Held:  # type: ignore[type-arg]  # a row of _HELD_COLUMNS
    ordinal, path, size, mode, mtime_ns, capture, place, offset, stamp, synced, sha256, crc64nvme, key, inline = row
    return Held(
        content=Content(
            ordinal=ordinal, path=path, size_bytes=size, mode=mode, mtime_ns=mtime_ns, capture=Capture(capture),
            place=place, offset=offset, stamp=_stamp(stamp) if stamp else None, synced=bool(synced), inline=inline,
        ),
        sha256=sha256,
        crc64nvme=crc64nvme,
        key=key,
    )  # fmt: skip


def unsettled(connection: sqlite3.Connection) -> list[tuple[str, int, Content]]:
    """Return every content that rests on a hard link or is not synced: its job's id and `seq`, and itself."""
    rows = connection.execute(
        f"SELECT job, seq, {_HELD_COLUMNS}"
        " FROM contents AS c JOIN jobs USING (seq) LEFT JOIN inlines AS i USING (seq, ordinal)"
        " WHERE c.capture = 'link' OR NOT c.synced"
        " ORDER BY seq, c.ordinal"
    )
    return [(row[0], row[1], _held(row[2:]).content) for row in rows]


def replace_content(connection: sqlite3.Connection, seq: int, new: Content) -> bool:
    """Record that a content lies elsewhere now; False if its job ended meanwhile."""
    cursor = connection.execute(
        "UPDATE contents SET capture = ?, place = ?, stamp = ?, synced = ? WHERE seq = ? AND ordinal = ?",
        (new.capture, new.place, _pack(new.stamp), new.synced, seq, new.ordinal),
    )
    return cursor.rowcount > 0


def digested(connection: sqlite3.Connection, seq: int, sums: Sequence[tuple[int, Digest]]) -> None:
    """Record the digests of contents, by ordinal."""
    connection.executemany(
        "UPDATE contents SET sha256 = ?, crc64nvme = ? WHERE seq = ? AND ordinal = ?",
        [(digest.sha256, digest.crc64nvme, seq, ordinal) for ordinal, digest in sums],
    )


def stored(connection: sqlite3.Connection, seq: int, ordinal: int, key: str) -> None:
    """Record that the store confirmed a content under `key`."""
    connection.execute("UPDATE contents SET key = ? WHERE seq = ? AND ordinal = ?", (key, seq, ordinal))
    uploads.forget(connection, seq, ordinal)


def finish(
    connection: sqlite3.Connection,
    seq: int,
    state: JobState,
    receipt: Receipt | None = None,
    reason: str = "",
) -> tuple[int, list[bytes]] | None:
    """End a job: its bytes leave custody. Return their count and the payload files to remove.

    None if it had ended before. The files are removed after this is on disk: what is removed and forgotten is
    lost, what is forgotten and not removed is swept at the next start.
    """
    row = connection.execute("SELECT state, size_bytes FROM jobs WHERE seq = ?", (seq,)).fetchone()
    if row is None or JobState(row[0]) in FINAL_STATES:
        return None
    places = connection.execute("SELECT DISTINCT place FROM contents WHERE seq = ? AND place <> x''", (seq,))
    removed = [place for (place,) in places]
    connection.execute("DELETE FROM contents WHERE seq = ?", (seq,))
    connection.execute("DELETE FROM inlines WHERE seq = ?", (seq,))
    connection.execute(
        "UPDATE jobs SET state = ?, receipt = ?, reason = ?, hint = '', due_at = NULL WHERE seq = ?",
        (state, _pack(receipt) if receipt else None, reason, seq),
    )
    return row[1], removed


def postpone(connection: sqlite3.Connection, seq: int, due_at: float, reason: str) -> None:
    """Let a job wait until `due_at` (seconds since the epoch); it counts one more attempt."""
    connection.execute(
        "UPDATE jobs SET state = 'waiting', due_at = ?, reason = ?, hint = '', attempts = attempts + 1"
        " WHERE seq = ? AND state = 'queued'",
        (due_at, reason, seq),
    )


def hold(connection: sqlite3.Connection, seq: int, reason: str, hint: str) -> None:
    """Keep a job until a person decides."""
    connection.execute(
        "UPDATE jobs SET state = 'held', due_at = NULL, reason = ?, hint = ?, attempts = attempts + 1"
        " WHERE seq = ? AND state IN ('staged', 'queued', 'waiting')",
        (reason, hint, seq),
    )


def requeue_due(connection: sqlite3.Connection, now: float, most_seconds: float) -> int:
    """Put jobs whose time has come back in the queue and return how many.

    A time further ahead than any pause can be comes from a clock that was wrong: it has come, too.
    """
    cursor = connection.execute(
        "UPDATE jobs SET state = 'queued', due_at = NULL WHERE state = 'waiting' AND (due_at <= ? OR due_at > ?)",
        (now, now + most_seconds),
    )
    return cursor.rowcount


def next_due(connection: sqlite3.Connection) -> float | None:
    """Return when the next waiting job is due."""
    (due,) = connection.execute("SELECT min(due_at) FROM jobs WHERE state = 'waiting'").fetchone()
    return due if due is None else float(due)


def requeue(connection: sqlite3.Connection, seqs: Sequence[int] | None) -> int:
    """Put held and waiting jobs (all held ones for None) back in the queue and return how many."""
    update = "UPDATE jobs SET state = 'queued', due_at = NULL, reason = '', hint = '' WHERE "
    if seqs is None:
        return connection.execute(update + "state = 'held'").rowcount
    return sum(
        connection.execute(update + "seq = ? AND state IN ('held', 'waiting')", (seq,)).rowcount for seq in seqs
    )


def busy_stores(connection: sqlite3.Connection) -> dict[int, str]:
    """Return the stores, by number, that jobs are queued for, with their URLs."""
    rows = connection.execute(
        "WITH RECURSIVE found(store) AS ("
        " SELECT min(store) FROM jobs INDEXED BY jobs_oldest WHERE state = 'queued'"
        " UNION ALL SELECT (SELECT min(store) FROM jobs INDEXED BY jobs_oldest"
        "  WHERE state = 'queued' AND store > found.store)"
        " FROM found WHERE found.store IS NOT NULL"
        ") SELECT store, url FROM found JOIN stores USING (store)"
    )
    return dict(rows.fetchall())


def window(connection: sqlite3.Connection, store: int, per_run: int, oldest: int, runs_most: int) -> list[Candidate]:
    """Return the jobs that could be next to go to a store: the first of each run, and the oldest of all.

    Bounded whatever the backlog: runs are found by skipping from one to the next in the index.
    """
    runs = connection.execute(
        "WITH RECURSIVE found(run) AS ("
        " SELECT min(run) FROM jobs INDEXED BY jobs_queued WHERE state = 'queued' AND store = ?1"
        " UNION ALL SELECT (SELECT min(run) FROM jobs INDEXED BY jobs_queued"
        "  WHERE state = 'queued' AND store = ?1 AND run > found.run)"
        " FROM found WHERE found.run IS NOT NULL"
        ") SELECT run FROM found WHERE run IS NOT NULL LIMIT ?2",
        (store, runs_most),
    ).fetchall()
    columns = "seq, run, priority, size_bytes, attempts"
    rows = connection.execute(
        f"SELECT {columns} FROM jobs INDEXED BY jobs_oldest WHERE state = 'queued' AND store = ?"
        " ORDER BY seq LIMIT ?",
        (store, oldest),
    ).fetchall()
    for (run,) in runs:
        rows += connection.execute(
            f"SELECT {columns} FROM jobs INDEXED BY jobs_queued WHERE state = 'queued' AND store = ? AND run = ?"
            " ORDER BY priority DESC, size_class, seq LIMIT ?",
            (store, run, per_run),
        )
    found = {row[0]: row for row in rows}
    return [
        Candidate(seq=seq, run=run, priority=priority, size_bytes=size, tried=attempts > 0)
        for seq, run, priority, size, attempts in found.values()
    ]


def run_published(connection: sqlite3.Connection, run: int) -> bool:
    """Tell whether the run's own record is known to be in the store."""
    (published,) = connection.execute("SELECT published FROM runs WHERE run = ?", (run,)).fetchone()
    return bool(published)


def publish_run(connection: sqlite3.Connection, run: int) -> None:
    """Record that the run's own record is in the store."""
    connection.execute("UPDATE runs SET published = 1 WHERE run = ?", (run,))


def referenced(connection: sqlite3.Connection, places: Sequence[bytes]) -> set[bytes]:
    """Return those of the payload files `places` that a job still needs."""
    needed = set()
    for place in places:
        job = place.rsplit(b"/", 1)[-1].split(b"-", 1)[0].decode("ascii", "replace")
        if connection.execute(
            "SELECT 1 FROM contents JOIN jobs USING (seq) WHERE job = ? AND place = ?", (job, place)
        ).fetchone():
            needed.add(place)
    return needed


def prune(connection: sqlite3.Connection, keep: int) -> int:
    """Forget all but the newest `keep` finished jobs and return how many were forgotten."""
    ended = "state IN ('delivered', 'cancelled', 'superseded')"
    row = connection.execute(
        f"SELECT seq FROM jobs WHERE {ended} ORDER BY seq DESC LIMIT 1 OFFSET ?", (keep,)
    ).fetchone()
    if row is None:
        return 0
    # Never the newest row of all: its `seq` would be given out again.
    return connection.execute(
        f"DELETE FROM jobs WHERE {ended} AND seq <= ? AND seq < (SELECT max(seq) FROM jobs)", (row[0],)
    ).rowcount


def homes(connection: sqlite3.Connection) -> list[bytes]:
    """Return the directories outside the state directory that may hold links of ours."""
    return [path for (path,) in connection.execute("SELECT path FROM homes")]


def add_home(connection: sqlite3.Connection, path: bytes) -> None:
    """Remember such a directory."""
    connection.execute("INSERT OR IGNORE INTO homes VALUES (?)", (path,))


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    """Return a remembered value."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Remember a value."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
