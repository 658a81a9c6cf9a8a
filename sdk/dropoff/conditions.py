"""Conditions on metadata as people write them: `epoch>10`, `optimizer.name=adam`, `best=true`."""

import re
from collections.abc import Iterable

import msgspec

from dropoff.errors import UsageError
from dropoff.questions import Condition, Operator

_WRITTEN = re.compile(r"\s*(?P<path>[^<>=!]+?)\s*(?P<operator><=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)

# What travels as a whole number; beyond that a fraction of the same size does as well.
_WHOLE_MOST = 1 << 63


def conditions(written: str | Iterable[str]) -> tuple[Condition, ...]:
    """Return conditions as they travel; raises UsageError for what is none."""
    return tuple(map(_condition, (written,) if isinstance(written, str) else written))


def quoted(text: str) -> str:
    """Return a text as it stands in a condition, whatever is in it."""
    return msgspec.json.encode(text).decode()


def _condition(text: str) -> Condition:
    found = _WRITTEN.fullmatch(text)
    if found is None or not all(steps := found["path"].split(".")):
        raise UsageError(
            f"unable to use {text!r} as a condition on metadata",
            hint="write it as epoch>10, optimizer.name=adam or best=true; the operators are = != < <= > >=",
        )
    return Condition(tuple(steps), Operator(found["operator"]), _value(found["value"].strip()))


def _value(text: str) -> str | int | float | bool | None:
    """Return what JSON has for a number, true, false, null or a quoted text; anything else is text as it is."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _WHOLE_MOST:
        return _value(f"{text}.0")
    return value if value is None or isinstance(value, str | int | float | bool) else text
