"""What the server saw: each request, how far it came, and a way to wait for that without sleeping."""

import threading
import time
from collections.abc import Callable

from support.fault_server.calls import Call, Operation
from support.fault_server.faults import Fault

WAIT_SECONDS = 30.0


class Seen:
    """One request: when it came, how many bytes of its body were read, and the status it was answered with.

    `status` is 0 until there is an answer, and for ever if there never was one.
    """

    def __init__(self, call: Call, faults: tuple[Fault, ...]) -> None:
        self.call = call
        self.faults = faults
        self.at_seconds = time.monotonic()
        self.received_bytes = 0
        self.status = 0
        self.ended = False

    def __repr__(self) -> str:
        outcome = self.status or ("broken" if self.ended else "under way")
        return (
            f"<{self.call.operation} {self.call.key} part {self.call.part}: {self.received_bytes} bytes, {outcome}>"
        )


class Journal:
    """Every request in the order of arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seen: list[Seen] = []

    def begin(self, call: Call, faults: tuple[Fault, ...]) -> Seen:
        """Note a request."""
        with self._changed:
            seen = Seen(call, faults)
            self._seen.append(seen)
            self._changed.notify_all()
            return seen

    def received(self, seen: Seen, count: int) -> None:
        """Note bytes of a body."""
        with self._changed:
            seen.received_bytes += count
            self._changed.notify_all()

    def answering(self, seen: Seen, status: int) -> None:
        """Note the answer that is about to be sent: before it is, so that whoever has it finds it here."""
        with self._changed:
            seen.status = status
            self._changed.notify_all()

    def end(self, seen: Seen) -> None:
        """Note that no more will happen."""
        with self._changed:
            seen.ended = True
            self._changed.notify_all()

    def requests(
        self, operation: Operation | None = None, *, part: int | None = None, key: str | None = None
    ) -> list[Seen]:
        """Return the requests of one kind."""
        with self._changed:
            return [
                seen
                for seen in self._seen
                if operation in {None, seen.call.operation}
                and part in {None, seen.call.part}
                and key in {None, seen.call.key}
            ]

    def wait(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Return as soon as something that was noted makes the condition true; AssertionError if nothing does."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"not within {seconds} s; seen: {self._seen}"

    def clear(self) -> None:
        """Begin a new page."""
        with self._changed:
            self._seen.clear()
