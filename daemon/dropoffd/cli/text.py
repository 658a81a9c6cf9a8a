"""Answers as people and programs read them. Names are escaped: they may hold anything."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dropoff.errors import UsageError
from dropoff.messages import JobReport, JobState, Rates, Settled, StatusReport
from dropoff.names import display, printable
from dropoffd.copying.tally import Copied

_SPANS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DIGITS_MOST = 9
_ORDER = (
    JobState.UPLOADING, JobState.QUEUED, JobState.STAGED, JobState.WAITING, JobState.HELD,
    JobState.DELIVERED, JobState.CANCELLED, JobState.SUPERSEDED,
)  # fmt: skip


def json(answer: Any) -> str:
    """Return an answer as JSON; names as text, with undecodable bytes escaped."""
    plain = msgspec.to_builtins(answer, builtin_types=(bytes,))
    return msgspec.json.format(msgspec.json.encode(_shown(plain))).decode()


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return display(value)
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return value


def status(report: StatusReport) -> str:
    """Return how things stand, in a few lines."""
    lines = [
        f"{report.daemon} (pid {report.pid}) up {duration(report.uptime_seconds)}"
        + (", PAUSED: `dropoff resume` goes on" if report.paused else ""),
        "",
    ]
    for state in _ORDER:
        total = report.totals.get(state)
        if total and (total.jobs or state in _ORDER[:2]):
            lines.append(f"  {state:<11}{total.jobs:>9} jobs {size(total.size_bytes):>10}")
    spool = f"spool: quota {size(report.quota_bytes)}, disk free {size(report.free_bytes)}"
    lines += ["", f"  sending {size(report.rate_bytes_per_second)}/s; {spool}"]
    for job in report.active:
        share = job.sent_bytes / job.size_bytes if job.size_bytes else 0.0
        lines.append(f"  {job.job[:16]}  {display(job.name)}  {share:4.0%} of {size(job.size_bytes)}")
    for store in report.stores:
        lines += ["", f"  {store.store} is left alone since {moment(store.since)}: {store.reason}"]
        lines += [f"    hint: {store.hint}"] if store.hint else []
        lines += [f"    tried again by itself at {moment(store.retry_at)}; its jobs are kept"]
    if report.held:
        lines += ["", "needs a person:"]
        for job in report.held:
            lines += [f"  {job.job[:16]}  {display(job.name)}", f"    {job.reason}", f"    hint: {job.hint}"]
    return _printed(lines)


def rates(report: Rates) -> str:
    """Return how fast bytes may go."""
    return _printed(
        f"{rate.store or 'all stores'}: {rate.bandwidth}"
        + (f" (now {size(rate.bytes_per_second)}/s)" if rate.bytes_per_second else " (now unlimited)")
        for rate in report.rates
    )


def table(reports: Sequence[JobReport]) -> str:
    """Return jobs, a line each."""
    if not reports:
        return "no jobs"
    rows = [("JOB", "STATE", "SIZE", "CAPTURE", "RUN", "NAME")]
    rows += [
        (
            job.job[:16],
            job.state,
            size(job.size_bytes),
            job.capture,
            f"{job.project}/{job.run}",
            display(job.name),
        )
        for job in reports
    ]
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines whose columns stand below each other."""
    widths = [max(len(printable(row[i])) for row in rows) for i in range(len(rows[0]) - 1)]
    return _printed(
        "  ".join((*(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]))
        for row in rows
    )


def details(job: JobReport) -> str:
    """Return everything about one job."""
    facts: list[tuple[str, object]] = [
        ("job", job.job),
        ("run", f"{job.project}/{job.run}"),
        ("name", display(job.name)),
        ("state", job.state),
        ("size", f"{size(job.size_bytes)} in {job.files} files" if job.files != 1 else size(job.size_bytes)),
        ("sent", size(job.sent_bytes)),
        ("capture", job.capture),
        ("saved", moment(job.created_at)),
        ("priority", job.priority),
        ("attempts", job.attempts),
    ]
    if job.reason:
        facts += [("reason", job.reason)]
    if job.hint:
        facts += [("hint", job.hint)]
    if job.retry_at:
        facts += [("next try", moment(job.retry_at))]
    if job.receipt:
        receipt = job.receipt
        facts += [
            ("store", receipt.store), ("key", receipt.key), ("record", receipt.record),
            ("sha256", receipt.sha256), ("delivered", moment(receipt.delivered_at)),
        ]  # fmt: skip
    facts += [("skipped", line) for line in job.skipped]
    return _printed(f"{name:<10}{value}" for name, value in facts)


def settled(answer: Settled) -> str:
    """Return what a wait found."""
    lines = [f"{answer.delivered} delivered"]
    if answer.pending:
        lines[0] += f", {answer.pending} not yet"
    lines += [f"  {job.job[:16]}  {display(job.name)}  {job.state}: {job.reason}" for job in answer.troubled]
    return _printed(lines)


def copied(report: Copied) -> str:
    """Return what came of a copy."""
    things = f"{report.versions} versions, {report.runs} runs, {report.records} records, {report.links} links"
    lines = [f"{report.project}: {things} copied to {report.target}; {report.present} were there"]
    content = f"{report.objects} objects of {size(report.copied_bytes)} copied"
    lines.append(f"  content: {content}; {report.objects_present} were there")
    if report.removed:
        lines.append(f"  {report.removed} versions were removed there, and stay so")
    if report.unknown:
        lines.append(f"  {report.unknown} objects that are none of ours were left out")
    for title, count, troubles in (
        ("CONFLICT: the target has another, and nothing was copied over it", report.conflicts, report.conflicting),
        ("DAMAGED in the source, and left out", report.damaged, report.damage),
    ):
        if count:
            lines += ["", f"{title} ({count}):", *(f"  {one.what}: {one.cause}" for one in troubles)]
    return _printed(lines)


def _printed(lines: Iterable[str]) -> str:
    """Return lines as one text; what came from outside cannot break out of its line."""
    return "\n".join(printable(line) for line in lines)


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a span of time as people say it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def seconds(written: str) -> float:
    """Return a span of time as people write it, such as 90m, 12h, 7d or 2w; raises UsageError."""
    number, unit = written[:-1], written[-1:]
    if not number.isdecimal() or len(number) > _DIGITS_MOST or unit not in _SPANS:
        raise UsageError(f"unable to use {written!r} as a span of time", hint="write it as 90m, 12h, 7d or 2w")
    return int(number) * _SPANS[unit]


def moment(seconds: float) -> str:
    """Return a time of day, local."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
