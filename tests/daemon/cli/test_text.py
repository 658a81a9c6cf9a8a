"""Answers as people read them."""

from typing import Any

import msgspec
import pytest

from dropoff.ids import JobId
from dropoff.messages import JobReport, JobState, Settled
from dropoff.saves import Kind
from dropoffd.cli import text

ESCAPES = "\x1b]0;title\x07\n\u202e"


def report(**changes: Any) -> JobReport:
    """Return the report of a job."""
    plain = JobReport(
        job=JobId("0" * 32), seq=1, project="project", run="run", name=b"name", kind=Kind.FILE, state=JobState.QUEUED,
        size_bytes=1, sent_bytes=0, files=1, capture="inline", created_at=1e9, attempts=0, priority=0,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize("field", ["name", "project", "run", "reason", "hint"])
def test_no_control_character_reaches_the_terminal(field: str) -> None:
    """Whatever a job's texts hold, for some came from other programs, what is printed has no control character."""
    job = report(**{field: ESCAPES.encode() if field == "name" else ESCAPES, "state": JobState.HELD})
    for printed in (
        text.table([job]),
        text.details(job),
        text.settled(Settled(pending=0, delivered=0, troubled=(job,))),
    ):
        assert [line for line in printed.split("\n") if not line.isprintable()] == []
        assert "\u202e" not in printed


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"),
     (1 << 42, "4.0 TiB"), (1 << 52, "4096.0 TiB")],
)  # fmt: skip
def test_sizes(count: int, said: str) -> None:
    """A number of bytes is told in the unit that fits."""
    assert text.size(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59, "59 s"), (60, "1.0 min"), (3600, "1.0 h"), (86400 * 3, "3.0 d")]
)
def test_durations(seconds: float, said: str) -> None:
    """A span of time is told in the unit that fits."""
    assert text.duration(seconds) == said
