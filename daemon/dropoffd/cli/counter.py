"""How far a long answer is, on a terminal: shown when there is something to show, and nowhere else."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from dropoffd.cli.progress import CountBar

# What is answered sooner needs no bar, nor the tenth of a second that it takes to load one.
_PATIENCE_SECONDS = 0.5


class Counter:
    """Counts what is done, of `whole` if that is more than 0."""

    def __init__(self, *, in_bytes: bool, whole: int) -> None:
        self._in_bytes = in_bytes
        self._whole = whole
        self._done = 0
        self._bar: CountBar | None = None
        self._began = time.monotonic()
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, more: int) -> None:
        """Count more."""
        self.set(self._done + more)

    def set(self, done: int) -> None:
        """Say how much is done."""
        self._done = done
        if self._bar is None and done and self._shown and time.monotonic() - self._began > _PATIENCE_SECONDS:
            from dropoffd.cli.progress import CountBar  # noqa: PLC0415  # rich takes 80 ms to import

            self._bar = CountBar(in_bytes=self._in_bytes, whole=self._whole)
        if self._bar is not None:
            self._bar.update(done)
