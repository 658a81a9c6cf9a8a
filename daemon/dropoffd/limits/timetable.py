"""A timetable: which rate at which hour of the week, as `08:00-19:00 10MB/s, sat-sun unlimited, 5MB/s`.

Rules stand between commas: days, hours and a rate, the first two optional. The first that covers the moment counts;
where none does, the rate is unlimited. Hours may run over midnight, and then belong to the day on which they began.

Pure: it is asked with a local time, and says how long its answer holds. That is never past the next full quarter
of an hour. Zones change their offset at such moments, so a clock that is put forward or back is met as it happens,
without any arithmetic about it; and one that was set by hand is met soon.
"""

import datetime as dt
import difflib
import re

import msgspec

from dropoff.errors import SettingsError, UsageError
from dropoff.settings import parse_bytes

UNLIMITED = "unlimited"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_LOOK_MINUTES = 15
_EXAMPLE = 'write it as "08:00-19:00 10MB/s, sat-sun unlimited, 5MB/s"'
_WHEN = re.compile(
    r"(?:(?P<first>[a-z]+)(?:-(?P<last>[a-z]+))?\s+)?"
    r"(?:(?P<start>[\d:]+)-(?P<end>[\d:]+)\s+)?"
    r"(?P<rate>\d[^-]*|[a-z]+)",
    re.ASCII | re.IGNORECASE,
)


class Rule(msgspec.Struct, frozen=True):
    """A rate for some minutes of some days (0 is Monday); a range that ends before it starts runs over midnight."""

    bytes_per_second: float | None
    days: frozenset[int] = frozenset(range(7))
    start_minute: int = 0
    end_minute: int = _DAY_MINUTES

    @property
    def always(self) -> bool:
        """Whether the rule is about every minute of every day."""
        return self == Rule(self.bytes_per_second)

    def covers(self, day: int, minute: int) -> bool:
        """Tell whether the rule is about this minute of this day."""
        if self.start_minute < self.end_minute:
            return day in self.days and self.start_minute <= minute < self.end_minute
        before = (day - 1) % 7
        return (day in self.days and minute >= self.start_minute) or (
            before in self.days and minute < self.end_minute
        )


class Timetable(msgspec.Struct, frozen=True):
    """Rules, of which the first that covers a moment counts."""

    rules: tuple[Rule, ...]

    @property
    def constant(self) -> bool:
        """Whether the rate is the same at all times."""
        return self.rules[0].always

    def rate_at(self, local: dt.datetime) -> float | None:
        """Return the bytes per second at a local time; None is unlimited."""
        day, minute = local.weekday(), local.hour * 60 + local.minute
        return next((rule.bytes_per_second for rule in self.rules if rule.covers(day, minute)), None)

    def holds_seconds(self, local: dt.datetime) -> float:
        """Return for how long the rate of a local time surely holds: at most to the next full quarter of an hour."""
        minute = local.hour * 60 + local.minute
        edges = {edge for rule in self.rules for edge in (rule.start_minute, rule.end_minute) if edge > minute}
        next_minute = min(edges | {minute - minute % _LOOK_MINUTES + _LOOK_MINUTES})
        return (next_minute - minute) * 60 - local.second - local.microsecond / 1e6


def parse_timetable(text: str) -> Timetable:
    """Return the timetable that `text` writes; raises SettingsError that shows the nearest right form."""
    parts = [part.strip() for part in text.split(",")]
    rules = tuple(_rule(part) for part in parts)
    for rule, after in zip(rules, parts[1:], strict=False):
        if rule.always:
            raise SettingsError(
                f"unable to use the rule {after!r}: the one before it is for all hours of all days",
                hint="the first rule that fits counts: put the one without days and hours last",
            )
    return Timetable(rules)


def parse_rate(text: str) -> float | None:
    """Return the bytes per second that `text` names, such as "10MB/s"; None for "unlimited"."""
    word = text.strip().lower()
    if word == UNLIMITED:
        return None
    size, slash, unit = word.partition("/")
    try:
        rate = float(parse_bytes(size))
    except (UsageError, OverflowError):
        near = difflib.get_close_matches(word, [UNLIMITED], n=1)
        raise _unreadable(text, "a rate", near[0] if near else "") from None
    if (slash, unit.strip()) != ("/", "s"):
        raise _unreadable(text, "a rate: it has to be per second", f"{text.strip().partition('/')[0].strip()}/s")
    if rate == 0:
        raise SettingsError(
            f"unable to use {text!r} as a rate: nothing would ever go", hint="to stop deliveries: dropoff pause"
        )
    return rate


def _rule(text: str) -> Rule:
    match = _WHEN.fullmatch(text)
    if match is None:
        raise _unreadable(text, "a rule of a timetable")
    rule = Rule(parse_rate(match["rate"]))
    if match["first"]:
        rule = msgspec.structs.replace(rule, days=_days(match["first"], match["last"] or match["first"]))
    if match["start"]:
        start, end = _minute(match["start"]), _minute(match["end"])
        if start in (end, _DAY_MINUTES):
            raise SettingsError(
                f"unable to use the rule {text!r}: its hours are empty", hint="leave them out for the whole day"
            )
        rule = msgspec.structs.replace(rule, start_minute=start, end_minute=end)
    return rule


def _days(first: str, last: str) -> frozenset[int]:
    start, end = _day(first), _day(last)
    return frozenset((start + step) % 7 for step in range((end - start) % 7 + 1))


def _day(text: str) -> int:
    if text.lower() in _DAYS:
        return _DAYS.index(text.lower())
    near = difflib.get_close_matches(text.lower()[:3], _DAYS, n=1)
    raise _unreadable(text, "a day", near[0] if near else "")


def _minute(text: str) -> int:
    match = re.fullmatch(r"(\d{1,2}):(\d\d)", text)
    minute = int(match[1]) * 60 + int(match[2]) if match else -1
    if match is None or int(match[2]) > 59 or minute > _DAY_MINUTES:
        hour = re.match(r"\d{1,2}", text)
        near = f"{int(hour[0]):02}:00" if hour and int(hour[0]) <= 24 and ":" not in text else ""
        raise _unreadable(text, "a time of day", near)
    return minute


def _unreadable(text: str, kind: str, near: str = "") -> SettingsError:
    return SettingsError(f"unable to read {text!r} as {kind}", hint=f"did you mean {near!r}?" if near else _EXAMPLE)
