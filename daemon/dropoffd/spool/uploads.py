"""Uploads in parts as rows: what a store has confirmed, part by part, so that the next part follows after a crash."""

import sqlite3
from collections.abc import Sequence

from dropoffd.custody import Orphan, UploadBegun
from dropoffd.stores.base import Part


def begun(connection: sqlite3.Connection, seq: int, ordinal: int, upload: UploadBegun) -> None:
    """Record that an upload is being begun, or was; what was known of an earlier one is forgotten."""
    forget(connection, seq, ordinal)
    connection.execute(
        "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?)",
        (seq, ordinal, upload.store, upload.key, upload.upload, upload.part_bytes),
    )


def find(connection: sqlite3.Connection, seq: int, ordinal: int) -> UploadBegun | None:
    """Return the upload of a content, if one was begun."""
    row = connection.execute(
        "SELECT store, key, upload, part_bytes FROM uploads WHERE seq = ? AND ordinal = ?", (seq, ordinal)
    ).fetchone()
    return UploadBegun(store=row[0], key=row[1], upload=row[2], part_bytes=row[3]) if row else None


def part_stored(connection: sqlite3.Connection, seq: int, ordinal: int, part: Part) -> None:
    """Record that the store confirmed a part."""
    connection.execute(
        "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, ordinal, part.number, part.size_bytes, part.etag, part.crc64nvme, part.checksum),
    )


def parts(connection: sqlite3.Connection, seq: int, ordinal: int) -> list[Part]:
    """Return the parts that the store confirmed, in order."""
    rows = connection.execute(
        "SELECT number, size_bytes, etag, crc64nvme, checksum FROM parts WHERE seq = ? AND ordinal = ?"
        " ORDER BY number",
        (seq, ordinal),
    )
    return [
        Part(number=number, size_bytes=size, etag=etag, crc64nvme=crc64nvme, checksum=checksum)
        for number, size, etag, crc64nvme, checksum in rows
    ]


def forget(connection: sqlite3.Connection, seq: int, ordinal: int) -> None:
    """Forget the upload of a content: it is finished, or gone."""
    connection.execute("DELETE FROM uploads WHERE seq = ? AND ordinal = ?", (seq, ordinal))
    connection.execute("DELETE FROM parts WHERE seq = ? AND ordinal = ?", (seq, ordinal))


def orphans(connection: sqlite3.Connection, most: int) -> Sequence[Orphan]:
    """Return uploads of contents that left custody."""
    rows = connection.execute(
        "SELECT seq, ordinal, store, key, upload FROM uploads AS u WHERE NOT EXISTS"
        " (SELECT 1 FROM contents AS c WHERE c.seq = u.seq AND c.ordinal = u.ordinal) LIMIT ?",
        (most,),
    )
    return [Orphan(seq=seq, ordinal=n, store=store, key=key, upload=upload) for seq, n, store, key, upload in rows]
