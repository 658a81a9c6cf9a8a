"""Whether metadata meets conditions: pure."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dropoff.questions import Condition, Operator

_decode = msgspec.json.Decoder().decode
_NOTHING = object()
_COMPARES: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: operator.eq,
    Operator.UNEQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.MORE: operator.gt,
    Operator.AT_LEAST: operator.ge,
}
_EQUALITIES = frozenset({Operator.EQUAL, Operator.UNEQUAL})


def meets(metadata: str, conditions: Sequence[Condition]) -> bool:
    """Tell whether metadata, as JSON, meets all conditions."""
    found = _decode(metadata)
    return all(_holds(_at(found, one.path), one.operator, one.value) for one in conditions)


def _at(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(value, dict) or step not in value:
            return _NOTHING
        value = value[step]
    return value


def _holds(found: Any, wanted: Operator, value: Any) -> bool:
    if not _comparable(found, value):
        return wanted is Operator.UNEQUAL
    if wanted in _EQUALITIES or not (isinstance(value, bool) or value is None):
        return bool(_COMPARES[wanted](found, value))
    return False  # of two truths neither is more than the other


def _comparable(found: Any, value: Any) -> bool:
    """Tell whether both are numbers, or both of one other kind; true and false are no numbers."""
    if isinstance(found, bool) or isinstance(value, bool):
        return isinstance(found, bool) and isinstance(value, bool)
    if isinstance(found, int | float):
        return isinstance(value, int | float)
    return type(found) is type(value)
