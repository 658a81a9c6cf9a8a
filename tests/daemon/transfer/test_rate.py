"""How fast bytes go out."""

from daemon.making import FakeClock
from dropoffd.transfer.rate import Rate


def test_the_rate_is_the_mean_of_the_last_seconds() -> None:
    """A steady stream has its own rate, and ten seconds of silence bring it to nothing."""
    clock = FakeClock()
    rate = Rate(clock)
    assert rate.bytes_per_second() == 0.0
    for _ in range(200):
        rate.add(100)
        clock.advance(0.1)
    assert 950 <= rate.bytes_per_second() <= 1100
    clock.advance(11)
    assert rate.bytes_per_second() == 0.0


def test_it_remembers_no_more_than_it_needs() -> None:
    """Any number of pieces in ten seconds takes the same little memory."""
    clock = FakeClock()
    rate = Rate(clock)
    for _ in range(100_000):
        rate.add(1)
        clock.advance(0.001)
    assert len(rate._steps) <= 50
