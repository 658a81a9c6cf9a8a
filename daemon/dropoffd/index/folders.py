"""What the index knows of the store's folders: their etags, and which objects it keeps of each."""

import sqlite3
from collections.abc import Collection, Iterable

from dropoffd.index import rows


def known(connection: sqlite3.Connection, prefix: str) -> dict[str, str]:
    """Return the etag of every folder at and below a prefix that was looked into; empty: look again."""
    found = connection.execute("SELECT prefix, etag FROM folders WHERE prefix >= ? AND prefix < ?", below(prefix))
    return dict(found.fetchall())


def objects(connection: sqlite3.Connection, prefix: str) -> list[tuple[str, str]]:
    """Return the keys and etags of what is kept of the objects right in a folder."""
    return connection.execute(
        "SELECT key, etag FROM objects WHERE key >= ? AND key < ? AND instr(substr(key, ?), '/') = 0",
        (*below(prefix), len(prefix) + 1),
    ).fetchall()


def note(connection: sqlite3.Connection, prefixes: Iterable[str]) -> None:
    """Note folders that are being looked into for the first time."""
    connection.executemany("INSERT OR IGNORE INTO folders VALUES (?, '')", ((prefix,) for prefix in prefixes))


def keep(connection: sqlite3.Connection, prefix: str, etag: str) -> None:
    """Keep a folder's etag, unless something at or below it made no sense: that may be repaired in place."""
    trouble = connection.execute(
        "SELECT 1 FROM objects WHERE trouble <> '' AND key >= ? AND key < ? LIMIT 1", below(prefix)
    ).fetchone()
    connection.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (prefix, "" if trouble else etag))


def forget(connection: sqlite3.Connection, prefix: str) -> None:
    """Forget a folder, but not what it had."""
    connection.execute("DELETE FROM folders WHERE prefix = ?", (prefix,))


def forget_others(connection: sqlite3.Connection, there: Collection[str]) -> None:
    """Forget the projects that are not there, with all they had."""
    projects = {prefix.partition("/")[0] + "/" for (prefix,) in connection.execute("SELECT prefix FROM folders")}
    for project in projects.difference(there):
        found = connection.execute("SELECT key FROM objects WHERE key >= ? AND key < ?", below(project)).fetchall()
        for (key,) in found:
            rows.remove(connection, key)
        connection.execute("DELETE FROM folders WHERE prefix >= ? AND prefix < ?", below(project))


def below(prefix: str) -> tuple[str, str]:
    """Return the first key that may begin with a prefix, which ends in "/", and the first that comes after all."""
    return prefix, prefix[:-1] + "0"
