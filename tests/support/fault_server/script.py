"""Which requests meet which faults. A fault that never happened is a test that tested nothing."""

import threading
from collections import Counter
from typing import TypeVar

from support.fault_server.calls import Call, Operation
from support.fault_server.faults import Fault

F = TypeVar("F", bound=Fault)


class Line:
    """Faults for the next `times` requests that match."""

    def __init__(
        self, operation: Operation | None, faults: tuple[Fault, ...], part: int | None, key: str | None, times: int
    ) -> None:
        self._operation = operation
        self._part = part
        self._key = key
        self._times = times
        self._taken = 0
        self.faults = faults
        self.happened: Counter[Fault] = Counter()

    def take(self, call: Call) -> bool:
        """Tell whether a request is one of those meant, and cross it off."""
        meant = (
            self._taken < self._times
            and self._operation in {None, call.operation}
            and self._part in {None, call.part}
            and self._key in {None, call.key}
        )
        self._taken += meant
        return meant

    def unmet(self) -> list[str]:
        """Return each fault that did not happen as often as it was to."""
        where = f"{self._operation or 'any'} part={self._part} key={self._key}"
        return [
            f"{where}: {fault} happened {self.happened[fault]} of {self._times} times"
            for fault in self.faults
            if self.happened[fault] < self._times
        ]


class Fate:
    """What is to happen to one request."""

    def __init__(self, line: Line | None) -> None:
        self._line = line
        self._left = list(line.faults) if line else []
        self.faults = tuple(self._left)

    def left(self, kind: type[F]) -> list[F]:
        """Return the faults of a kind that did not happen yet."""
        return [fault for fault in self._left if isinstance(fault, kind)]

    def find(self, kind: type[F]) -> F | None:
        """Return the fault of a kind that lasts, if there is one."""
        return next((fault for fault in self.faults if isinstance(fault, kind)), None)

    def happened(self, fault: Fault) -> None:
        """Note that a fault happened; again for the same request counts once."""
        if self._line and fault in self._left:
            self._left.remove(fault)
            self._line.happened[fault] += 1


class Script:
    """Lines, of which the first that matches a request is its fate."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Add a line below all others."""
        with self._lock:
            self._lines.append(line)

    def take(self, call: Call) -> Fate:
        """Return what is to happen to a request."""
        with self._lock:
            return Fate(next((line for line in self._lines if line.take(call)), None))

    def assert_hit(self) -> None:
        """Assert that every fault happened as often as it was to."""
        unmet = [text for line in self._lines for text in line.unmet()]
        assert not unmet, "faults that did not happen:\n" + "\n".join(unmet)
