"""Pauses between tries."""

import random

from hypothesis import given
from hypothesis import strategies as st

from dropoffd.clock import backoff_seconds


@given(st.integers(1, 10_000), st.floats(0.001, 60), st.floats(0.001, 86_400), st.integers())
def test_a_pause_doubles_and_is_bounded(tries: int, first: float, most: float, seed: int) -> None:
    """The pause is between half and all of the doubled first one, and never above the most."""
    pause = backoff_seconds(tries, first, most, random.Random(seed))
    whole = min(most, first * 2 ** min(tries - 1, 60))
    assert whole / 2 <= pause <= whole


def test_a_fleet_is_spread() -> None:
    """A thousand daemons that failed together do not come back together."""
    pauses = [backoff_seconds(5, 2.0, 3600.0, random.Random(seed)) for seed in range(1000)]
    assert max(pauses) - min(pauses) > 15
    assert len(set(pauses)) > 990
