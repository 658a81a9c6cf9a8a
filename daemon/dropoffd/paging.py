"""As many reports as one answer may list."""

from collections.abc import Iterable
from typing import TypeVar

from dropoff.messages import encode
from dropoff.wire import FRAME_MAX_BYTES

T = TypeVar("T")

# The rest of the frame is for the one that comes on top.
_PAGE_BYTES = FRAME_MAX_BYTES // 2


def page(reports: Iterable[T]) -> list[T]:
    """Return as many as an answer may list, and one at least where there is one."""
    chosen: list[T] = []
    size = 0
    for report in reports:
        size += len(encode(report))
        if chosen and size > _PAGE_BYTES:
            break
        chosen.append(report)
    return chosen
