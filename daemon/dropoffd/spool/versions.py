"""Artifacts in custody as rows: additions that wait for their version, and versions that wait for their turn.

An addition is a job like any other, but staged: it is not delivered before a version claims it. A version is a job
without content. It is queued once all its parts are stored and every earlier version of its artifact has ended,
and waits until then; so what is stored first never changes the order of the calls. What one of several writers
contributes is a version of that kind, too, though it has no turn, since it makes no version by itself.
"""

import sqlite3
from collections.abc import Sequence

import msgspec

from dropoff.messages import JobState, Receipt
from dropoff.records import Entry
from dropoff.saves import Kind, Part, Save, Version
from dropoffd.custody import Addition, Note

_pack = msgspec.msgpack.Encoder().encode
_save = msgspec.msgpack.Decoder(Save).decode
_entry = msgspec.msgpack.Decoder(Entry).decode
_note = msgspec.msgpack.Decoder(Note).decode
_texts = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_ON_THEIR_WAY = "its files are on their way"
_NOT_ITS_TURN = "an earlier version of it comes first"


def stage(connection: sqlite3.Connection, seq: int, part: Part, now: float) -> None:
    """Let a job that was just accepted wait for the version that it is part of."""
    connection.execute("UPDATE jobs SET state = 'staged' WHERE seq = ?", (seq,))
    connection.execute(
        "INSERT INTO additions (seq, draft, position, overwrite, added_at) VALUES (?, ?, ?, ?, ?)",
        (seq, part.draft, part.position, part.overwrite, now),
    )


def additions(connection: sqlite3.Connection, draft: str) -> list[Addition]:
    """Return what was added to a draft that no version has claimed, with the names it brings, by position.

    Of two at one position the later counts: the call of the earlier was interrupted and made again.
    """
    rows = connection.execute(
        "SELECT max(seq), position, overwrite, save FROM additions JOIN jobs USING (seq)"
        " WHERE draft = ? AND version IS NULL AND state IN ('staged', 'held') GROUP BY position ORDER BY position",
        (draft,),
    ).fetchall()
    return [
        Addition(seq=seq, position=position, overwrite=bool(overwrite), paths=_paths(connection, seq, _save(save)))
        for seq, position, overwrite, save in rows
    ]


def _paths(connection: sqlite3.Connection, seq: int, save: Save) -> tuple[bytes, ...]:
    if save.kind is Kind.FILE:
        return (save.name,)
    below = save.name + b"/" if save.name else b""
    rows = connection.execute(
        "SELECT path FROM contents WHERE seq = ? AND capture <> 'pack' ORDER BY ordinal", (seq,)
    )
    return tuple(below + path for (path,) in rows)


def known_type(connection: sqlite3.Connection, save: Save) -> str:
    """Return the type under which this host last knew the artifact of a version; empty if it knows none."""
    key = (save.run.store, save.run.project, save.name.decode())
    row = connection.execute(
        "SELECT ifnull((SELECT type FROM versions WHERE artifact = a.artifact ORDER BY seq DESC LIMIT 1), a.type)"
        " FROM artifacts AS a WHERE store = ? AND project = ? AND name = ?",
        key,
    ).fetchone()
    return row[0] if row else ""


def claim(connection: sqlite3.Connection, seq: int, run: int, save: Save, version: Version) -> None:
    """Give a version that was just accepted its parts, and these its run: they are delivered from now on."""
    key = (save.run.store, save.run.project, save.name.decode())
    connection.execute("INSERT OR IGNORE INTO artifacts (store, project, name) VALUES (?, ?, ?)", key)
    connection.execute(
        "INSERT INTO versions (seq, artifact, type, contributes, finishes)"
        " SELECT ?, artifact, ?, ?, ? FROM artifacts WHERE store = ? AND project = ? AND name = ?",
        (seq, version.type, *_groups(version), *key),
    )
    for part in additions(connection, version.draft):
        (raw,) = connection.execute("SELECT save FROM jobs WHERE seq = ?", (part.seq,)).fetchone()
        claimed = msgspec.structs.replace(_save(raw), run=save.run, priority=save.priority)
        connection.execute(
            "UPDATE jobs SET run = ?, priority = ?, save = ?, state = iif(state = 'staged', 'queued', state),"
            " store = (SELECT store FROM jobs WHERE seq = ?) WHERE seq = ?",
            (run, save.priority, _pack(claimed), seq, part.seq),
        )
        connection.execute("UPDATE additions SET version = ? WHERE seq = ?", (seq, part.seq))
    _take_turn(connection, seq)
    held = (
        "SELECT seq, reason, hint FROM additions JOIN jobs USING (seq) WHERE version = ? AND state = 'held' LIMIT 1"
    )
    for part, reason, hint in connection.execute(held, (seq,)).fetchall():
        after_hold(connection, part, reason, hint)


def _groups(version: Version) -> tuple[str, str]:
    """Return the group that a version contributes to, and that which it finishes; empty for none."""
    if version.group is None:
        return "", ""
    return ("", version.group.name) if version.group.finish else (version.group.name, "")


def after_end(connection: sqlite3.Connection, seq: int, state: JobState, receipt: Receipt | None) -> None:
    """Draw the consequences of a job's end: for the version that it is part of, or for those behind it."""
    part = connection.execute("SELECT version FROM additions WHERE seq = ?", (seq,)).fetchone()
    if part is not None:
        _part_ended(connection, seq, part[0], state, receipt)
    version = connection.execute("SELECT artifact, type FROM versions WHERE seq = ?", (seq,)).fetchone()
    if version is not None:
        artifact, kind = version
        _version_ended(connection, seq, artifact, kind, state)


def _part_ended(
    connection: sqlite3.Connection, seq: int, version: int | None, state: JobState, receipt: Receipt | None
) -> None:
    if version is None:
        _forget_part(connection, seq)
    elif state is JobState.DELIVERED and receipt is not None:
        connection.execute(
            "UPDATE additions SET stored = 1, spared_bytes = ? WHERE seq = ?", (receipt.spared_bytes, seq)
        )
        # It was held for this part, if at all: one that has all its parts hears of none any more.
        connection.execute(
            "UPDATE jobs SET state = 'waiting', due_at = NULL, reason = ?, hint = '' WHERE seq = ? AND state = 'held'"
            " AND NOT EXISTS (SELECT 1 FROM additions JOIN jobs USING (seq) WHERE version = ? AND state = 'held')",
            (_ON_THEIR_WAY, version, version),
        )
        _take_turn(connection, version)
    else:
        _take_turn(connection, version)


def _version_ended(connection: sqlite3.Connection, seq: int, artifact: int, kind: str, state: JobState) -> None:
    if state is JobState.DELIVERED:
        connection.execute("UPDATE artifacts SET type = ? WHERE artifact = ?", (kind, artifact))
    for (part,) in connection.execute("SELECT seq FROM additions WHERE version = ?", (seq,)).fetchall():
        stored = connection.execute("SELECT 1 FROM additions WHERE seq = ? AND stored", (part,)).fetchone()
        if stored:
            _forget_part(connection, part)
        else:  # given up with its version: staged again, until it is cancelled, too
            connection.execute("UPDATE additions SET version = NULL WHERE seq = ?", (part,))
            connection.execute(
                "UPDATE jobs SET state = 'staged', due_at = NULL WHERE seq = ? AND state IN ('queued', 'waiting')",
                (part,),
            )
    connection.execute("DELETE FROM versions WHERE seq = ?", (seq,))
    _take_turns(connection, artifact)


def _take_turns(connection: sqlite3.Connection, artifact: int) -> None:
    for (seq,) in connection.execute("SELECT seq FROM versions WHERE artifact = ?", (artifact,)).fetchall():
        _take_turn(connection, seq)


def _forget_part(connection: sqlite3.Connection, seq: int) -> None:
    connection.execute("DELETE FROM entries WHERE seq = ?", (seq,))
    connection.execute("DELETE FROM additions WHERE seq = ?", (seq,))


def after_hold(connection: sqlite3.Connection, seq: int, reason: str, hint: str) -> None:
    """Hold the version of a part that is held: who waits for it must hear that it needs a person."""
    row = connection.execute("SELECT version FROM additions WHERE seq = ? AND version IS NOT NULL", (seq,)).fetchone()
    if row is not None:
        _hold(connection, row[0], f"one of its files is held: {reason}", hint)
    contributed = connection.execute(
        "SELECT artifact FROM versions WHERE seq = ? AND contributes <> ''", (seq,)
    ).fetchone()
    if contributed is not None:  # who finishes the group does not wait for a person
        _take_turns(connection, contributed[0])


def _hold(connection: sqlite3.Connection, version: int, reason: str, hint: str) -> None:
    connection.execute(
        "UPDATE jobs SET state = 'held', due_at = NULL, reason = ?, hint = ?"
        " WHERE seq = ? AND state IN ('queued', 'waiting')",
        (reason, hint, version),
    )


def with_parts(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[int]:
    """Return the jobs `seqs` and, of the versions among them, those parts that are held."""
    found = list(seqs)
    for seq in seqs:
        rows = connection.execute(
            "SELECT seq FROM additions JOIN jobs USING (seq) WHERE version = ? AND state = 'held'", (seq,)
        )
        found += [part for (part,) in rows]
    return found


def after_requeue(connection: sqlite3.Connection) -> None:
    """Send back, of what was just put in the queue, what has no business there yet."""
    connection.execute(
        "UPDATE jobs SET state = 'staged' WHERE state = 'queued'"
        " AND seq IN (SELECT seq FROM additions WHERE version IS NULL)"
    )
    rows = connection.execute("SELECT seq FROM versions JOIN jobs USING (seq) WHERE state = 'queued'").fetchall()
    for (seq,) in rows:
        _take_turn(connection, seq)


def _take_turn(connection: sqlite3.Connection, seq: int) -> None:
    """Queue a version if its turn has come, else let it wait and say for what."""
    # A contribution is no version yet: it waits for nothing, and for it only who finishes its group.
    earlier = connection.execute(
        "SELECT 1 FROM versions AS mine JOIN versions AS other USING (artifact) JOIN jobs ON jobs.seq = other.seq"
        " WHERE mine.seq = ? AND other.seq < mine.seq AND mine.contributes = ''"
        " AND (other.contributes = '' OR (other.contributes = mine.finishes AND jobs.state <> 'held')) LIMIT 1",
        (seq,),
    ).fetchone()
    missing = connection.execute(
        "SELECT 1 FROM additions WHERE version = ? AND NOT stored LIMIT 1", (seq,)
    ).fetchone()
    given_up = connection.execute(
        "SELECT 1 FROM additions JOIN jobs USING (seq) WHERE version = ? AND NOT stored"
        " AND state IN ('cancelled', 'superseded') LIMIT 1",
        (seq,),
    ).fetchone()
    if given_up:
        _hold(connection, seq, "one of its files was given up", "`dropoff cancel` drops this version")
        return
    if not earlier and not missing:
        connection.execute(
            "UPDATE jobs SET state = 'queued', reason = '' WHERE seq = ? AND state = 'waiting' AND due_at IS NULL",
            (seq,),
        )
    else:
        connection.execute(
            "UPDATE jobs SET state = 'waiting', due_at = NULL, reason = ?"
            " WHERE seq = ? AND state IN ('queued', 'waiting')",
            (_ON_THEIR_WAY if missing else _NOT_ITS_TURN, seq),
        )


def record_entries(connection: sqlite3.Connection, seq: int, entries: Sequence[tuple[int, Entry, float]]) -> None:
    """Record what the manifest will say of stored files of a part, by ordinal, and since when that is sure."""
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
        [(seq, ordinal, _pack(entry), proven_at) for ordinal, entry, proven_at in entries],
    )


def stored_additions(connection: sqlite3.Connection, version: int) -> list[Addition]:
    """Return the parts of a version with their entries, by position."""
    rows = connection.execute(
        "SELECT additions.seq, position, overwrite, spared_bytes, skipped FROM additions LEFT JOIN jobs USING (seq)"
        " WHERE version = ? ORDER BY position",
        (version,),
    ).fetchall()
    return [
        Addition(
            seq=seq, position=position, overwrite=bool(overwrite), entries=tuple(entry for entry, _ in entries),
            proven_at=tuple(moment for _, moment in entries), skipped=_texts(skipped) if skipped else (),
            spared_bytes=spared,
        )
        for seq, position, overwrite, spared, skipped in rows
        for entries in (_entries(connection, seq),)
    ]  # fmt: skip


def _entries(connection: sqlite3.Connection, seq: int) -> list[tuple[Entry, float]]:
    rows = connection.execute("SELECT entry, proven_at FROM entries WHERE seq = ? ORDER BY ordinal", (seq,))
    return [(_entry(entry), proven_at) for entry, proven_at in rows]


def note(connection: sqlite3.Connection, seq: int) -> Note:
    """Return what an earlier try of a version's delivery was about to do."""
    row = connection.execute("SELECT note FROM versions WHERE seq = ?", (seq,)).fetchone()
    return _note(row[0]) if row and row[0] else Note()


def set_note(connection: sqlite3.Connection, seq: int, new: Note) -> None:
    """Record what is about to be done."""
    connection.execute("UPDATE versions SET note = ? WHERE seq = ?", (_pack(new), seq))


def family(connection: sqlite3.Connection, seq: int) -> list[int]:
    """Return a job, or the version that it is or belongs to, with all the parts that have not ended."""
    row = connection.execute("SELECT version FROM additions WHERE seq = ? AND version IS NOT NULL", (seq,)).fetchone()
    version = row[0] if row else seq
    parts = connection.execute("SELECT seq FROM additions WHERE version = ? AND NOT stored", (version,)).fetchall()
    return [version, *(part for (part,) in parts)]


def unlogged(connection: sqlite3.Connection, before: float) -> list[int]:
    """Return the staged jobs of drafts to which nothing was added since `before` (seconds since the epoch)."""
    rows = connection.execute(
        "SELECT seq FROM additions WHERE version IS NULL AND draft IN"
        " (SELECT draft FROM additions WHERE version IS NULL GROUP BY draft HAVING max(added_at) < ?)",
        (before,),
    )
    return [seq for (seq,) in rows]
