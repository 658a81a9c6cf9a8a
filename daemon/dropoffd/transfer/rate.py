"""How fast bytes go out, over the last few seconds."""

from collections import deque

from dropoffd.clock import Clock

_SPAN_SECONDS = 10.0
_STEP_SECONDS = 0.25


class Rate:
    """Adds up bytes in steps of time; bounded, whatever the traffic."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, size: int) -> None:
        """Count bytes that were sent just now."""
        now = self._clock.monotonic()
        if self._steps and now - self._steps[-1][0] < _STEP_SECONDS:
            start, before = self._steps[-1]
            self._steps[-1] = (start, before + size)
            return
        self._steps.append((now, size))
        self._drop(now)

    def bytes_per_second(self) -> float:
        """Return the mean over the last few seconds."""
        now = self._clock.monotonic()
        self._drop(now)
        if not self._steps:
            return 0.0
        return sum(size for _, size in self._steps) / max(_STEP_SECONDS, now - self._steps[0][0])

    def _drop(self, now: float) -> None:
        while self._steps and now - self._steps[0][0] > _SPAN_SECONDS:
            self._steps.popleft()
