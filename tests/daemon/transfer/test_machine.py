"""The table of an object's life, cell by cell."""

import itertools

import pytest

from daemon.making import held, inline
from dropoffd.custody import Held
from dropoffd.transfer.machine import NEXT_STAGE, NEXT_STEP, Fact, Stage, Step, after, stage_of

LEGAL = {
    (Stage.FROZEN, Fact.HASHED): Stage.DIGESTED,
    (Stage.DIGESTED, Fact.FOUND): Stage.STORED,
    (Stage.DIGESTED, Fact.MISSED): Stage.ABSENT,
    (Stage.DIGESTED, Fact.MISSED_LARGE): Stage.UNBEGUN,
    (Stage.DIGESTED, Fact.UNASKED): Stage.ABSENT,
    (Stage.ABSENT, Fact.TAKEN): Stage.DIGESTED,
    (Stage.ABSENT, Fact.CONFIRMED): Stage.STORED,
    (Stage.ABSENT, Fact.FOUND): Stage.STORED,
    (Stage.UNBEGUN, Fact.BEGUN): Stage.OPEN,
    (Stage.OPEN, Fact.SENT): Stage.WHOLE,
    (Stage.OPEN, Fact.LOST): Stage.UNBEGUN,
    (Stage.WHOLE, Fact.LOST): Stage.UNBEGUN,
    (Stage.WHOLE, Fact.CONFIRMED): Stage.STORED,
    (Stage.WHOLE, Fact.FOUND): Stage.STORED,
}


@pytest.mark.parametrize(("stage", "fact"), list(itertools.product(Stage, Fact)), ids=str)
def test_every_cell(stage: Stage, fact: Fact) -> None:
    """A fact that can happen in a stage leads where it should; every other raises."""
    if (stage, fact) in LEGAL:
        assert after(stage, fact) is LEGAL[stage, fact]
    else:
        with pytest.raises(ValueError, match="cannot happen"):
            after(stage, fact)


def test_every_stage_has_a_step_and_only_the_last_has_none() -> None:
    """Nothing waits for a step that nobody takes."""
    assert set(NEXT_STEP) == set(Stage)
    assert [stage for stage, step in NEXT_STEP.items() if step is Step.NOTHING] == [Stage.STORED]
    assert {stage for stage, _ in NEXT_STAGE} == set(Stage) - {Stage.STORED}


def test_every_way_ends_stored() -> None:
    """From each stage every sequence of facts ends in the last one after a few steps, if nothing goes back."""

    def longest(stage: Stage) -> int:
        back = {Fact.LOST, Fact.TAKEN}
        steps = [to for (of, fact), to in NEXT_STAGE.items() if of is stage and fact not in back]
        return max((1 + longest(to) for to in steps), default=0)

    assert {stage: longest(stage) for stage in Stage} == {
        Stage.FROZEN: 5, Stage.DIGESTED: 4, Stage.UNBEGUN: 3, Stage.OPEN: 2, Stage.WHOLE: 1, Stage.ABSENT: 1,
        Stage.STORED: 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "stage"),
    [
        (held(inline(b"x"), digested=False), Stage.FROZEN),
        (held(inline(b"x")), Stage.DIGESTED),
        (Held(content=inline(b"x"), sha256="0" * 64, key="a/key"), Stage.STORED),
    ],
)
def test_a_row_tells_the_stage(row: Held, stage: Stage) -> None:
    """After a crash the stage is what the object's row says."""
    assert stage_of(row) is stage
