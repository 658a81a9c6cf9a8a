"""Job ids: made by the caller, so that a lost answer never makes two jobs of one save."""

import os
import time
from typing import NewType

JobId = NewType("JobId", str)

JOB_ID_LENGTH = 32


def new_job_id() -> JobId:
    """Make an id that sorts by time: 48 bits of milliseconds, then 80 random bits (as in UUIDv7, RFC 9562)."""
    return JobId(f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}")


def is_job_id(text: str) -> bool:
    """Tell whether `text` has the form of a job id; ids become file names, so this is a guard."""
    return len(text) == JOB_ID_LENGTH and all(c in "0123456789abcdef" for c in text)
