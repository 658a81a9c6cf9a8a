"""A timetable of rates: written by people, asked by the minute."""

import datetime as dt
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff.errors import SettingsError
from dropoffd.limits.timetable import Timetable, parse_rate, parse_timetable

MB = 1e6
UTC = dt.UTC


def at(day: int, text: str) -> dt.datetime:
    """Return a moment of a week; day 0 is a Monday."""
    hour, minute = text.split(":")
    return dt.datetime(2026, 11, 23 + day, int(hour), int(minute), tzinfo=UTC)


def test_the_first_rule_that_covers_the_moment_counts() -> None:
    """Hours begin at their minute, end before theirs, run over midnight, and give way to earlier rules."""
    timetable = parse_timetable("08:00-19:00 10MB/s, 18:00-06:00 unlimited, 5MB/s")
    expected = {
        "00:00": None, "05:59": None, "06:00": 5 * MB, "07:59": 5 * MB, "08:00": 10 * MB, "18:30": 10 * MB,
        "18:59": 10 * MB, "19:00": None, "23:59": None,
    }  # fmt: skip
    assert {text: timetable.rate_at(at(2, text)) for text in expected} == expected


def test_days_choose_too() -> None:
    """Days stand alone or as a range, also over the weekend; a night belongs to the day on which it began."""
    timetable = parse_timetable("fri 22:00-06:00 1MB/s, Mon-Fri 08:00-19:00 10 MB/s, sat-mon 2MB/s, unlimited")
    expected = {
        (4, "12:00"): 10 * MB, (4, "21:59"): None, (4, "22:00"): MB, (5, "05:59"): MB, (5, "06:00"): 2 * MB,
        (6, "22:00"): 2 * MB, (0, "05:00"): 2 * MB, (0, "12:00"): 10 * MB, (1, "05:00"): None,
    }  # fmt: skip
    assert {moment: timetable.rate_at(at(*moment)) for moment in expected} == expected


@pytest.mark.parametrize(
    ("text", "rate"),
    [("10MB/s", 10 * MB), (" 1.5 GiB/s ", 1.5 * 2**30), ("100kb/S", 1e5), ("7/s", 7.0), ("Unlimited", None)],
)
def test_a_rate_is_a_size_per_second(text: str, rate: float | None) -> None:
    """A rate is written as sizes are, with `/s`; a timetable may be a rate alone."""
    assert parse_rate(text) == rate
    assert parse_timetable(text).rate_at(at(0, "00:00")) == rate


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("10MB", "10MB/s"), ("10 MB/h", "10 MB/s"), ("unlimted", "unlimited"), ("no-limit", "5MB/s"), ("", "5MB/s"),
        ("8-19 10MB/s", "08:00"), ("08:00-19 10MB/s", "19:00"), ("08:00-25:00 10MB/s", "08:00-19:00"),
        ("08:60-09:00 10MB/s", "08:00-19:00"), ("25-26 1MB/s", "08:00-19:00"), ("monday-friday 10MB/s", "mon"),
        ("mon-fir 10MB/s", "fri"), ("day 10MB/s", "sat-sun"), ("08:00 10MB/s", "08:00-19:00"),
        ("08:00-08:00 10MB/s", "leave them out"), ("24:00-08:00 10MB/s", "leave them out"),
        ("0MB/s", "dropoff pause"),
        ("10MB/s,", "5MB/s"), ("5MB/s, 08:00-19:00 10MB/s", "last"), ("-5MB/s", "5MB/s"), ("10Mbit/s", "5MB/s"),
        ("9" * 400 + "/s", "5MB/s"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_nearest_form(text: str, near: str) -> None:
    """Anything else raises SettingsError whose hint shows the nearest right form."""
    with pytest.raises(SettingsError, match=r"^unable to (read|use) ") as caught:
        parse_timetable(text)
    assert near in caught.value.hint


@given(st.text(alphabet="0123456789:-, /sMBmonfriunlimited", max_size=40))
def test_any_text_is_a_timetable_or_refused(text: str) -> None:
    """No text does anything else than to be read or to raise SettingsError."""
    try:
        timetable = parse_timetable(text)
    except SettingsError:
        return
    rate = timetable.rate_at(at(0, "12:00"))
    assert rate is None or rate > 0


MINUTES = st.integers(0, 24 * 60 - 1).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
WEEKS = st.lists(
    st.tuples(st.sampled_from(["", "mon ", "tue-thu ", "sat-mon "]), MINUTES, MINUTES, st.integers(1, 5)).filter(
        lambda rule: rule[1] != rule[2]
    ),
    min_size=1,
    max_size=4,
).map(lambda rules: parse_timetable(", ".join(f"{days}{start}-{end} {rate}MB/s" for days, start, end, rate in rules)))


@given(WEEKS, st.integers(0, 7 * 24 * 3600 - 1), st.integers(0, 999_999))
def test_an_answer_holds_for_as_long_as_it_says(timetable: Timetable, second: int, microsecond: int) -> None:
    """The rate is the same until then, which is in a quarter of an hour at most and never now."""
    local = at(0, "00:00") + dt.timedelta(seconds=second, microseconds=microsecond)
    seconds = timetable.holds_seconds(local)
    assert 0 < seconds <= 15 * 60
    for share in (0.25, 0.5, 0.99):
        later = local + dt.timedelta(seconds=seconds * share)
        assert timetable.rate_at(later) == timetable.rate_at(local)


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return a setter of this process's time zone, which is put back at the end."""

    def go(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield go
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("CET-1CEST,M3.5.0,M10.5.0/3", dt.datetime(2026, 3, 29, 1, tzinfo=UTC)),
        ("CET-1CEST,M3.5.0,M10.5.0/3", dt.datetime(2026, 10, 25, 1, tzinfo=UTC)),
        ("EST5EDT,M3.2.0,M11.1.0", dt.datetime(2026, 3, 8, 7, tzinfo=UTC)),
        # Lord Howe Island changes by half an hour.
        ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", dt.datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ],
)
def test_the_day_on_which_the_clock_is_changed(
    in_zone: Callable[[str], None], zone: str, change: dt.datetime
) -> None:
    """Whoever asks again when told to has the right rate at every second around a change of the clock."""
    in_zone(zone)
    timetable = parse_timetable("01:40-02:20 1MB/s, 02:20-02:50 2MB/s, 02:50-03:05 3MB/s, 4MB/s")
    moment = change - dt.timedelta(hours=3, seconds=17)
    assert moment.astimezone().utcoffset() != change.astimezone().utcoffset()
    asked_again, rate, rates = moment, None, set()
    while moment < change + dt.timedelta(hours=3):
        local = moment.astimezone()
        if moment >= asked_again:
            rate = timetable.rate_at(local)
            asked_again = moment + dt.timedelta(seconds=timetable.holds_seconds(local))
        assert rate == timetable.rate_at(local)
        rates.add(rate)
        moment += dt.timedelta(seconds=1)
    assert len(rates) > 1
