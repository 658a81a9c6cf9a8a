"""What Python has by itself: dicts and lists as JSON, text, bytes.

JSON holds less than Python, and its writers make do: a tuple becomes a list, a number as a key becomes text, NaN
becomes null. Here an object comes back as it was or is refused, with the place and the fix.
"""

import math
from typing import IO, Any

import msgspec

from dropoff.errors import UsageError
from dropoff.serializers.libraries import kind_of
from dropoff.serializers.serializer import Serializer

_LEAVES = frozenset({str, int, bool, type(None)})
_FIXES = {
    tuple: "make it a list",
    set: "make it a list",
    frozenset: "make it a list",
    float: "JSON has no NaN and no infinity: use None",
    bytes: "decode it, or save it by itself",
}


def _json(obj: Any, file: IO[bytes]) -> None:
    try:
        _check(obj, ())
        file.write(msgspec.json.encode(obj))
    except RecursionError:
        raise _unfit(obj, "it is nested too deeply, or holds itself", "save its parts") from None


def _check(container: Any, where: tuple[object, ...]) -> None:
    """Find what JSON would not give back as it is; exact types, since a subclass would come back as its base."""
    if type(container) is dict:
        for key in container:
            if type(key) is not str:
                raise _unfit(
                    container, f"{_shown(where)} has the key {key!r}, of type {kind_of(key)}", "make every key a str"
                )
    for key, value in container.items() if type(container) is dict else enumerate(container):
        kind = type(value)
        if kind is dict or kind is list:
            _check(value, (*where, key))
        elif kind not in _LEAVES and not (kind is float and math.isfinite(value)):
            what = repr(value) if kind is float else kind_of(value)
            raise _unfit(container, f"{_shown((*where, key))} is {what}", _fix(value))


def _fix(value: object) -> str:
    if hasattr(value, "tolist"):  # arrays and tensors, their scalars, columns
        return "call its .item() or .tolist(); or save a flat dict of arrays or tensors and nothing else"
    return _FIXES.get(type(value), "use str, int, float, bool, None, list and dict")


def _shown(where: tuple[object, ...]) -> str:
    return "it" if not where else "its " + "".join(f"[{key!r}]" for key in where)


def _unfit(obj: object, cause: str, hint: str) -> UsageError:
    return UsageError(f"unable to save a {kind_of(obj)} as JSON: {cause}", hint=hint)


def _text(obj: str, file: IO[bytes]) -> None:
    file.write(obj.encode())


def _bytes(obj: bytes, file: IO[bytes]) -> None:
    file.write(obj)


ALL = (
    Serializer(
        name="json", endings=(".json",), content_type="application/json", of="dict or list of what JSON has",
        takes=lambda obj: type(obj) in {dict, list}, write=_json, read=lambda file: msgspec.json.decode(file.read()),
    ),
    Serializer(
        name="text", endings=(".txt",), any_ending=True, of="str",
        takes=lambda obj: type(obj) is str, write=_text, read=lambda file: file.read().decode(),
    ),
    Serializer(
        name="bytes", endings=(".bin",), any_ending=True, of="bytes",
        takes=lambda obj: type(obj) is bytes, write=_bytes, read=lambda file: file.read(),
    ),
)  # fmt: skip
