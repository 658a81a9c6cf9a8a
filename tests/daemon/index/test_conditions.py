"""Conditions on metadata: how they are written, and what meets them."""

import pytest

from dropoff import UsageError
from dropoff.conditions import conditions, quoted
from dropoff.messages import encode
from dropoffd.index.conditions import meets

METADATA = '{"epoch": 11, "lr": 0.1, "name": "adam", "best": true, "none": null, "opt": {"beta": 2}, "list": [1]}'


@pytest.mark.parametrize(
    "condition",
    [
        "epoch>10", "epoch >= 11", "epoch=11", "epoch=11.0", "lr<0.2", "lr<=0.1", "name=adam", 'name="adam"',
        "name<b", "best=true", "best!=false", "none=null", "opt.beta>1", "absent!=1", "epoch!=text", "epoch!=true",
        "list!=1", "epoch<99999999999999999999",
    ],
)  # fmt: skip
def test_metadata_meets(condition: str) -> None:
    """A condition is met by a value of its own kind that compares so, and its denial by everything else."""
    assert meets(METADATA, conditions(condition))


@pytest.mark.parametrize(
    "condition",
    [
        "epoch>11", "epoch=12", "epoch>text", "name>1", "best>false", "best=1", "epoch=true", "none>null", "absent=1",
        "absent>0", "opt>1", "opt.beta.deep=1", "list=1", "name!=adam",
    ],
)  # fmt: skip
def test_metadata_fails_to_meet(condition: str) -> None:
    """A value of another kind, one that is absent, or one that compares otherwise does not meet it."""
    assert not meets(METADATA, conditions(condition))


def test_a_condition_travels() -> None:
    """However large the number, and whatever is in a text."""
    odd = 'say "hi" \\'
    large, text = conditions(["x>99999999999999999999", f"x={quoted(odd)}"])
    assert (encode(large.value), text.value) == (encode(1e20), odd)


@pytest.mark.parametrize("text", ["", "epoch", ">3", "a..b=1", "=1", ".a=1"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    """A condition without a name or an operator is an error that shows how to write one."""
    with pytest.raises(UsageError, match="as a condition"):
        conditions(text)
