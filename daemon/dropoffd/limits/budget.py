"""A budget for retries: a store that fails everywhere is not asked several times as often for it.

The token bucket of the AWS SDKs' standard retry mode: a retry costs, a first success earns a little, and a retry that
succeeds gets its cost back, so that a store that merely stumbles never runs anybody dry. First tries are free, and
the scheduler makes them ever more rarely: a spent budget recovers with the store, and time is not needed for it.
"""

_COST = 5
_EARNED = 1
# A hundred retries, as those SDKs have it.
CAPACITY = 500


class Budget:
    """What one store's retries may still cost."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._left = capacity

    def withdraw(self) -> bool:
        """Pay for one retry; when that is too dear, pay nothing and return False: it must not be made."""
        if self._left < _COST:
            return False
        self._left -= _COST
        return True

    def deposit(self, *, retried: bool) -> None:
        """Note a success: of a first try, or of a retry."""
        self._left = min(self._capacity, self._left + (_COST if retried else _EARNED))
