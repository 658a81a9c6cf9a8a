"""Jobs as they arrive: one row each, since a caller waits for its commit, and each page of a commit costs time.

The next operation of the database that looks at jobs files them first: they get their rows in `jobs` and `contents`,
with all that is kept about those. So nobody but this module, and whoever asks whether an id is known, sees an
arrival that is not filed. A filing that fails for want of space is tried again with the next operation.
"""

import sqlite3

import msgspec

from dropoff.content import Content
from dropoff.saves import Save
from dropoffd.spool import jobs

_pack = msgspec.msgpack.Encoder().encode
_save = msgspec.msgpack.Decoder(Save).decode
_content = msgspec.msgpack.Decoder(Content).decode


def add(connection: sqlite3.Connection, run: int, save: Save, content: Content) -> int | None:
    """Add a job with one content; return its `seq`, or None if a job of that id is there already."""
    if jobs.known(connection, save.job):
        return None
    seq = jobs.next_seq(connection)
    jobs.keep_inline(connection, seq, (content,))
    described = msgspec.structs.replace(content, inline=None)
    connection.execute(
        "INSERT INTO arrivals (seq, job, run, save, content) VALUES (?, ?, ?, ?, ?)",
        (seq, save.job, run, _pack(save), _pack(described)),
    )
    return seq


def file(connection: sqlite3.Connection) -> None:
    """Give every arrival its place among the jobs."""
    found = connection.execute("SELECT seq, run, save, content FROM arrivals ORDER BY seq").fetchall()
    for seq, run, save, content in found:
        jobs.insert(connection, seq, run, _save(save), [_content(content)], ())
    if found:
        connection.execute("DELETE FROM arrivals")


def count(connection: sqlite3.Connection) -> int:
    """Return how many jobs are not filed."""
    (found,) = connection.execute("SELECT count(*) FROM arrivals").fetchone()
    return int(found)
