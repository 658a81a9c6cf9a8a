"""Who is to blame when a delivery fails, and when a store is tried again."""

import pytest

from dropoffd.schedule.health import Blame, Health
from dropoffd.stores.base import (
    BrokenError,
    CorruptError,
    DeniedError,
    RefusedError,
    StalledError,
    StoreError,
    ThrottledError,
    UnavailableError,
    UnreachableError,
)

STORE_WIDE = [
    BrokenError("reset"),
    UnreachableError("away"),
    StalledError("no answer"),
    DeniedError("no", hint="give access"),
    ThrottledError("less"),
]


@pytest.mark.parametrize("error", [UnavailableError("away"), CorruptError("differs"), RefusedError("no")], ids=repr)
def test_what_concerns_one_object_is_the_jobs(error: StoreError) -> None:
    """A failure that another job need not meet is held against the job, and the store goes on."""
    health = Health()
    assert health.failed(1, error, 0) is Blame.JOB
    assert health.places(4, 0) == 4


@pytest.mark.parametrize("error", STORE_WIDE, ids=repr)
def test_what_concerns_all_is_the_stores(error: StoreError) -> None:
    """A failure that every job would meet leaves the store alone, but for one delivery when time has come."""
    health = Health()
    assert health.failed(1, error, 0) is Blame.STORE
    assert health.pause is not None
    assert (health.pause.reason, health.pause.hint) == (error.message, error.hint)
    assert [health.places(4, now) for now in (0, health.pause.until - 0.1, health.pause.until)] == [0, 0, 1]


def test_success_opens_the_store_again() -> None:
    """One delivery that succeeds ends the pause."""
    health = Health()
    health.failed(1, UnreachableError("away"), 0)
    assert health.worked(2)
    assert (health.pause, health.places(4, 0)) == (None, 4)
    assert not health.worked(3)


def test_a_job_that_fails_where_others_succeed_is_to_blame() -> None:
    """The second failure of a job, with another one delivered in between, is its own; the store goes on."""
    health = Health()
    assert health.failed(1, DeniedError("no"), 0) is Blame.STORE
    assert health.suspects(1)
    health.worked(2)
    assert health.failed(1, DeniedError("no"), 9) is Blame.JOB
    assert health.places(4, 9) == 4


def test_a_job_that_fails_while_nothing_succeeds_is_not_to_blame() -> None:
    """However often the same job finds out that a store is away, no try is counted against it."""
    health = Health()
    for now in range(0, 1000, 10):
        assert health.failed(1, UnreachableError("away"), now) is Blame.STORE


def test_a_store_that_is_back_is_noticed_within_five_seconds() -> None:
    """Tries of an unreachable store come closer than five seconds, however long it has been away."""
    health, now = Health(), 0.0
    for _ in range(50):
        health.failed(1, UnreachableError("away"), now)
        assert health.pause is not None
        assert 0 < health.pause.until - now <= 4
        now = health.pause.until
    assert health.pause is not None
    assert health.pause.since == 0


def test_deliveries_that_ran_beside_the_first_to_fail_put_nothing_off() -> None:
    """Failures during a pause leave its end where it was."""
    health = Health()
    health.failed(1, UnreachableError("away"), 0)
    before = health.pause
    health.failed(2, UnreachableError("away"), 0.1)
    assert health.pause == before


def test_a_store_that_asks_for_a_pause_gets_it() -> None:
    """A throttling store is left alone for at least as long as it said."""
    health = Health()
    health.failed(1, ThrottledError("less", after_seconds=120), 0)
    assert health.places(4, 119) == 0


def test_a_store_that_takes_a_part_works_again() -> None:
    """A part that is confirmed once the store may be tried again ends the pause; during the pause it does not."""
    health = Health()
    health.failed(1, UnreachableError("away"), 0)
    assert health.pause is not None
    assert not health.advanced(2, health.pause.until - 0.1)
    assert health.advanced(2, health.pause.until)
    assert health.places(4, 1) == 4


@pytest.mark.parametrize("error", [BrokenError("reset"), StalledError("no answer")], ids=repr)
def test_a_job_is_not_to_blame_that_nobody_was_there(error: StoreError) -> None:
    """A job that meets one outage after another is not to blame, whatever arrived in between; one that stalls is."""
    health = Health()
    health.failed(1, error, 0)
    health.worked(2)
    assert health.failed(1, UnreachableError("away"), 9) is Blame.STORE
    health.worked(2)
    assert health.failed(1, error, 19) is Blame.JOB


def test_a_job_that_advances_between_failures_is_not_to_blame() -> None:
    """A job of which the store confirmed more since it failed is not to blame, whatever others did meanwhile."""
    health = Health()
    health.failed(1, StalledError("no answer"), 0)
    health.worked(2)
    health.advanced(1, 5)
    assert health.failed(1, StalledError("no answer"), 9) is Blame.STORE


def test_a_person_can_have_it_tried_at_once() -> None:
    """`try_now` ends the wait, and what the next delivery finds decides."""
    health = Health()
    health.failed(1, DeniedError("no"), 0)
    health.try_now(1)
    assert health.places(4, 1) == 1
