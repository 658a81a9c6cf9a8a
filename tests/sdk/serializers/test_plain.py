"""JSON gives back what it was given, or is not used."""

import io
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dropoff import UsageError
from dropoff.serializers.plain import ALL

JSON = ALL[0]
exact = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
odd = (
    st.sampled_from([math.nan, math.inf])
    | st.binary()
    | st.tuples(st.integers())
    | st.complex_numbers()
    | st.frozensets(st.integers())
)


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return dicts and lists."""
    deep = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)
    return st.lists(deep) | st.dictionaries(keys, deep)


def returned(obj: Any) -> Any:
    """Return what JSON makes of an object."""
    file = io.BytesIO()
    JSON.write(obj, file)
    file.seek(0)
    assert JSON.read
    return JSON.read(file)


def same(left: Any, right: Any) -> bool:
    """Tell whether two objects are equal down to their types and signs."""
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if type(left) is list:
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and (type(left) is not float or math.copysign(1, left) == math.copysign(1, right))


@given(nested(exact, st.text()))
def test_what_json_has_comes_back_to_the_last_bit(obj: Any) -> None:
    """Dicts and lists of text, integers of any size, floats, booleans and None come back as they were."""
    assert same(returned(obj), obj)


@given(nested(exact | odd, st.text() | st.integers() | st.none()))
def test_what_json_has_not_is_refused_and_never_changed(obj: Any) -> None:
    """Whatever else is in it, an object comes back as it was or is refused, with the place."""
    try:
        found = returned(obj)
    except UsageError as error:
        found, said = None, error.message
        refused = said.startswith("unable to save a ") and (" it has the key " in said or " its [" in said)
    assert same(found, obj) if found is not None else refused
