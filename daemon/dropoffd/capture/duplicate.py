"""Make a file of the daemon's own of a content that it holds open: a reflink where there is one, else a copy."""

import contextlib
import os
from collections.abc import Callable
from typing import NamedTuple

import anyio.from_thread

from dropoff.content import Capture, Content, copy, payload_name, reflink
from dropoffd.capture.holding import Holding
from dropoffd.capture.homes import Homes
from dropoffd.capture.idle import idle_priority


class Duplicate(NamedTuple):
    """A file that is complete under its name, and not yet synced; `fd` is open on it."""

    capture: Capture
    home: str
    path: str
    fd: int


class Duplicator:
    """Makes duplicates below `homes`, and remembers which devices have no reflinks."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        self._no_reflink: set[int] = set()

    def is_in_vain(self, content: Content) -> bool:
        """Tell whether a reflink of this content was seen to be impossible."""
        return _device(content) in self._no_reflink

    def make(
        self, job: str, content: Content, holding: Holding, *, only_reflink: bool, urgent: Callable[[], bool]
    ) -> Duplicate | None:
        """Reflink or copy into a new file; None where that takes a copy and only a reflink is wanted.

        Blocks; a copy gives way to everybody else's disk accesses unless it is urgent by then. Raises
        SourceChangedError for content that is not what was captured, and OSError; then nothing is left behind.
        """
        rungs = [] if self.is_in_vain(content) else [Capture.REFLINK]
        for capture in rungs if only_reflink else [*rungs, Capture.COPY]:
            home = self._homes.payloads
            if capture is Capture.REFLINK:
                home = os.path.dirname(self._homes.path(content.place))
            path = self._homes.own_path(payload_name(job, content.ordinal), home)
            part = path + ".part"
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                if self._filled(capture, content, holding, fd, urgent):
                    holding.check()
                    os.rename(part, path)
                    return Duplicate(capture, home, path, fd)
            except BaseException:
                os.close(fd)
                os.unlink(part)
                raise
            os.close(fd)
            os.unlink(part)
        return None

    def _filled(
        self, capture: Capture, content: Content, holding: Holding, fd: int, urgent: Callable[[], bool]
    ) -> bool:
        if capture is Capture.COPY:
            with contextlib.nullcontext() if urgent() else idle_priority():
                copy(holding.fd, fd, content.size_bytes, anyio.from_thread.check_cancelled)
            return True
        if reflink(holding.fd, fd):
            return True
        device = _device(content)
        if device is not None:
            self._no_reflink.add(device)
        return False


def _device(content: Content) -> int | None:
    return content.stamp.device if content.stamp else None
