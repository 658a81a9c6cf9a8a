"""Job ids: made by the caller, so that a lost answer never makes two jobs of one save."""

import itertools
import os
import time
from typing import NewType

JobId = NewType("JobId", str)

JOB_ID_LENGTH = 32


# The time of a process never goes back, whatever is done to the machine's clock meanwhile.
_BEGAN_NS = time.time_ns() - time.monotonic_ns()
_count = itertools.count(int.from_bytes(os.urandom(2), "big"))


def new_job_id() -> JobId:
    """Make an id; in the order of their ids the jobs of one process were saved, and nearly so those of a host.

    48 bits of milliseconds, 24 that count, for what is saved within one, and 56 random bits (as in UUIDv7, RFC 9562).
    """
    milliseconds = (_BEGAN_NS + time.monotonic_ns()) // 1_000_000
    return JobId(f"{milliseconds:012x}{next(_count) & 0xFFFFFF:06x}{os.urandom(7).hex()}")


def is_job_id(text: str) -> bool:
    """Tell whether `text` has the form of a job id; ids become file names, so this is a guard."""
    return len(text) == JOB_ID_LENGTH and not text.strip("0123456789abcdef")
