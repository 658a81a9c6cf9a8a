"""A budget for retries."""

from hypothesis import given
from hypothesis import strategies as st

from dropoffd.limits.budget import CAPACITY, Budget


def test_a_store_that_fails_everywhere_is_not_hammered() -> None:
    """Of ten thousand failing requests, a hundred are retried."""
    budget = Budget()
    assert sum(budget.withdraw() for _ in range(10_000)) == CAPACITY // 5 == 100


def test_first_successes_pay_for_retries() -> None:
    """A spent budget lets one request in five be retried that fails once more."""
    budget = Budget(0)
    assert not budget.withdraw()
    budget = Budget(100)
    while budget.withdraw():
        pass
    retries = 0
    for _ in range(1000):
        budget.deposit(retried=False)
        retries += budget.withdraw()
    assert retries == 200


def test_a_store_that_stumbles_can_be_retried_for_ever() -> None:
    """Retries that succeed cost nothing in the end."""
    budget = Budget()
    for _ in range(10_000):
        assert budget.withdraw()
        budget.deposit(retried=True)


@given(st.lists(st.sampled_from(["withdraw", "first", "retried"])))
def test_it_holds_no_more_than_its_capacity(events: list[str]) -> None:
    """After any history at most the capacity can be withdrawn."""
    budget = Budget(20)
    for event in events:
        if event == "withdraw":
            budget.withdraw()
        else:
            budget.deposit(retried=event == "retried")
    assert sum(budget.withdraw() for _ in range(10)) <= 4
