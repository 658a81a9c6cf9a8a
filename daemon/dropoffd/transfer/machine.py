"""The life of one object, as a table: what is known of it, and what to do next.

Pure: facts in, steps out. A fact that the table does not expect in a stage is a bug and raises. After a crash
the stage is read off the object's row and the same table goes on: there is no other way to resume.
"""

import enum

from dropoffd.custody import Held


class Stage(enum.Enum):
    """What is known of an object."""

    FROZEN = "its bytes are in custody"
    DIGESTED = "and their digests are known"
    ABSENT = "and the store does not have them, as far as we know, and takes them in one request"
    UNBEGUN = "and the store does not have them, and they are too many for one request"
    OPEN = "and an upload in parts is begun"
    WHOLE = "and the store has every part"
    STORED = "the store has them, confirmed by size and sha256"


class Fact(enum.Enum):
    """What happened, in the past tense."""

    HASHED = "the digests were computed"
    FOUND = "the store has an object of that key, size and sha256"
    MISSED = "the store has no such object, and it is small"
    MISSED_LARGE = "the store has no such object, and it is large"
    UNASKED = "it is so small that sending it asks as well: the store takes it only if it has none of that key"
    TAKEN = "the store has an object of that key after all"
    BEGUN = "the store began an upload in parts"
    SENT = "the store confirmed the last of the parts"
    LOST = "the store does not know the upload any more"
    CONFIRMED = "the store took the object and confirmed it"


class Step(enum.Enum):
    """What to do next."""

    DIGEST = "compute the digests"
    LOOK = "ask the store whether it has the object"
    PUT = "send it"
    BEGIN = "begin an upload in parts"
    SEND = "send the parts that the store does not have"
    FINISH = "have the store make the object of its parts"
    NOTHING = "it is done"


NEXT_STAGE: dict[tuple[Stage, Fact], Stage] = {
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

NEXT_STEP: dict[Stage, Step] = {
    Stage.FROZEN: Step.DIGEST,
    Stage.DIGESTED: Step.LOOK,
    Stage.ABSENT: Step.PUT,
    Stage.UNBEGUN: Step.BEGIN,
    Stage.OPEN: Step.SEND,
    Stage.WHOLE: Step.FINISH,
    Stage.STORED: Step.NOTHING,
}


def stage_of(held: Held) -> Stage:
    """Return the stage that an object's row tells; one that was on its way in parts is looked for again first."""
    if held.key:
        return Stage.STORED
    return Stage.DIGESTED if held.sha256 else Stage.FROZEN


def after(stage: Stage, fact: Fact) -> Stage:
    """Return the stage after `fact`; raises ValueError where the table has no such cell."""
    try:
        return NEXT_STAGE[stage, fact]
    except KeyError:
        raise ValueError(f"{fact} cannot happen to an object that is {stage}") from None
