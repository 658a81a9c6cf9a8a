"""What the spool tells about its jobs: bounded queries that read and never change."""

import sqlite3
from collections.abc import Sequence

import msgspec

from dropoff.messages import FINAL_STATES, JobReport, JobState, Receipt, Total
from dropoff.saves import Save

_save = msgspec.msgpack.Decoder(Save).decode
_receipt = msgspec.msgpack.Decoder(Receipt).decode
_texts = msgspec.msgpack.Decoder(tuple[str, ...]).decode

_COLUMNS = (
    "job, seq, state, size_bytes, files, capture, attempts, priority, reason, hint, due_at, save, skipped, receipt"
)
_IDS_AT_ONCE = 500
# A staged part is waiting for its caller, so nobody can wait for it.
_SETTLED = (*FINAL_STATES, JobState.HELD, JobState.STAGED)
TROUBLED_SHOWN = 100


def totals(connection: sqlite3.Connection) -> dict[JobState, Total]:
    """Return how many jobs and bytes are in each state."""
    rows = connection.execute("SELECT state, sum(jobs), sum(size_bytes) FROM totals GROUP BY state")
    found = {state: Total(0, 0) for state in JobState}
    return found | {JobState(state): Total(jobs, size) for state, jobs, size in rows}


def listed(
    connection: sqlite3.Connection, states: Sequence[JobState], limit: int, before: int | None
) -> list[JobReport]:
    """Return up to `limit` jobs below `before`, newest first."""
    where = [_in_states(states)] if states else ["1"]
    values: list[object] = []
    if before is not None:
        where.append("seq < ?")
        values.append(before)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?", (*values, limit)
    )
    return [_report(row, connection) for row in rows]


def _in_states(states: Sequence[JobState]) -> str:
    """Return the condition, in the words of the partial indexes, which a bound value would not match."""
    if len(states) == 1:
        (state,) = states
        ended = "state IN ('delivered', 'cancelled', 'superseded') AND " if state in FINAL_STATES else ""
        return f"{ended}state = '{state}'"
    return f"state IN ({', '.join(repr(state.value) for state in states)})"


def found(connection: sqlite3.Connection, job: str) -> list[JobReport]:
    """Return the jobs whose id begins with `job`: none, the one, or two when it is not unique."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE job >= ? AND job < ? LIMIT 2", (job, job + "g")
    ).fetchall()
    return [_report(row, connection) for row in rows]


def numbered(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[JobReport]:
    """Return these jobs."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE seq IN ({_marks(seqs)})", list(seqs))
    return [_report(row, connection) for row in rows]


def settled(
    connection: sqlite3.Connection, jobs: Sequence[str], run: tuple[str, str] | None
) -> tuple[int, int, list[JobReport]]:
    """Count, among `jobs` (or all of `run`, or all), those that want waiting and the delivered; list the troubled.

    Ids that the spool does not know count as wanting no waiting: they ended long ago.
    """
    if not jobs:
        return _settled_of_run(connection, run)
    counts: dict[str, int] = {}
    troubled: list[JobReport] = []
    for start in range(0, len(jobs), _IDS_AT_ONCE):
        some = jobs[start : start + _IDS_AT_ONCE]
        where = f"job IN ({_marks(some)})"
        for state, count in connection.execute(f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY 1", some):
            counts[state] = counts.get(state, 0) + count
        troubled += _troubled(connection, f"{where} AND state IN ('held', 'cancelled')", some)
    return _sum(counts), counts.get(JobState.DELIVERED, 0), troubled[:TROUBLED_SHOWN]


def _settled_of_run(connection: sqlite3.Connection, run: tuple[str, str] | None) -> tuple[int, int, list[JobReport]]:
    if run is None:
        counts = {state.value: total.jobs for state, total in totals(connection).items()}
        troubled = listed(connection, [JobState.HELD], TROUBLED_SHOWN, None)
    else:
        where = "run IN (SELECT run FROM runs WHERE project = ? AND name = ?)"
        rows = connection.execute(f"SELECT state, sum(jobs) FROM totals WHERE {where} GROUP BY 1", run)
        counts = dict(rows.fetchall())
        troubled = _troubled(connection, f"{where} AND state = 'held'", run)
    return _sum(counts), counts.get(JobState.DELIVERED, 0), troubled


def _sum(counts: dict[str, int]) -> int:
    return sum(count for state, count in counts.items() if state not in _SETTLED)


def _troubled(connection: sqlite3.Connection, where: str, values: Sequence[object]) -> list[JobReport]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE {where} LIMIT ?",
        (*values, TROUBLED_SHOWN),
    )
    return [_report(row, connection) for row in rows]


def _report(row: tuple, connection: sqlite3.Connection) -> JobReport:  # type: ignore[type-arg]  # a row of _COLUMNS
    (
        job, seq, state, size, files, capture, attempts, priority, reason, hint, due_at, raw_save, skipped, receipt,
    ) = row  # fmt: skip
    save = _save(raw_save)
    (sent,) = connection.execute(
        "SELECT ifnull(sum(size_bytes), 0) FROM contents WHERE seq = ? AND key <> '' AND capture <> 'pack'",
        (seq,),
    ).fetchone()
    return JobReport(
        job=job, seq=seq, project=save.run.project, run=save.run.name, name=save.name, kind=save.kind,
        state=JobState(state), size_bytes=size, sent_bytes=size if state == JobState.DELIVERED else sent,
        files=files, capture=capture, created_at=save.created_at, attempts=attempts, priority=priority,
        reason=reason, hint=hint, retry_at=due_at, receipt=_receipt(receipt) if receipt else None,
        skipped=_texts(skipped) if skipped else (),
    )  # fmt: skip


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
