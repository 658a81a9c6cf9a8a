"""Which versions are to be kept: rules as people write them, and what follows from them. Pure.

Rules stand between semicolons, each a pattern of artifacts and what to keep of those:

    cv/ckpt-*: newest 5, highest 3 by acc; nlp/*: lowest 2 by eval.loss, unexpired; */*: all

The first whose pattern fits an artifact counts; an artifact that none fits keeps everything. A version is kept if
one of a rule's clauses keeps it, and always while it is the newest, is published, or an alias stands for it.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from dropoff.answers import VersionReport
from dropoff.errors import UsageError
from dropoff.questions import VersionState

_EXAMPLE = "write it as cv/ckpt-*: newest 5, highest 3 by acc; */tmp-*: unexpired"
_CLAUSE = re.compile(
    r"newest (?P<newest>\d{1,9})|(?P<end>highest|lowest) (?P<count>\d{1,9}) by (?P<path>\S+)|(?P<word>unexpired|all)"
)


class Rank(msgspec.Struct, frozen=True):
    """So many versions whose metadata has the highest, or lowest, numbers at `path`."""

    count: int
    path: tuple[str, ...]
    highest: bool


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What to keep of the artifacts that fit a pattern."""

    pattern: str
    newest: int = 0
    ranks: tuple[Rank, ...] = ()
    unexpired: bool = False
    all: bool = False


def parse(text: str) -> tuple[Rule, ...]:
    """Return rules; raises UsageError for what is none."""
    return tuple(_rule(one.strip()) for one in text.split(";") if one.strip())


def rule_for(rules: Sequence[Rule], project: str, artifact: str) -> Rule | None:
    """Return the rule that counts for an artifact, or None."""
    return next((rule for rule in rules if fnmatchcase(f"{project}/{artifact}", rule.pattern)), None)


def unkept(rule: Rule, versions: Sequence[VersionReport], now: float) -> list[VersionReport]:
    """Return which of an artifact's versions nothing keeps; `now` in seconds since the epoch."""
    if rule.all:
        return []
    ordered = sorted(versions, key=lambda one: one.id.number, reverse=True)
    kept = {one.id.number for one in ordered if one.aliases or one.state is VersionState.PUBLISHED}
    # Of the newest one `latest` may not know yet.
    kept |= {one.id.number for one in ordered[: max(1, rule.newest)]}
    for rank in rule.ranks:
        kept |= _ranked(rank, ordered)
    if rule.unexpired:
        kept |= {one.id.number for one in ordered if not _expired(one, now)}
    return [one for one in ordered if one.id.number not in kept]


def _rule(text: str) -> Rule:
    pattern, colon, clauses = text.partition(":")
    rule = Rule(pattern=pattern.strip())
    if not colon or rule.pattern.count("/") != 1 or not clauses.strip():
        raise UsageError(f"unable to use {text!r} as a rule of what to keep", hint=_EXAMPLE)
    for clause in clauses.split(","):
        found = _CLAUSE.fullmatch(" ".join(clause.split()))
        if found is None:
            raise UsageError(f"unable to use {clause.strip()!r} in a rule of what to keep", hint=_EXAMPLE)
        rule = _with(rule, found)
    return rule


def _with(rule: Rule, found: re.Match[str]) -> Rule:
    if found["newest"]:
        return msgspec.structs.replace(rule, newest=int(found["newest"]))
    if found["word"]:
        return msgspec.structs.replace(rule, **{found["word"]: True})
    rank = Rank(int(found["count"]), tuple(found["path"].split(".")), found["end"] == "highest")
    return msgspec.structs.replace(rule, ranks=(*rule.ranks, rank))


def _ranked(rank: Rank, versions: Sequence[VersionReport]) -> set[int]:
    """Return the best; of equal ones the newer. A version without that number is none of them."""
    numbers = [(value, one.id.number) for one in versions if (value := _number(one.metadata, rank.path)) is not None]
    numbers.sort(key=lambda pair: (pair[0] if rank.highest else -pair[0], pair[1]), reverse=True)
    return {number for _, number in numbers[: rank.count]}


def _number(value: Any, path: Sequence[str]) -> float | None:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    # Not a number is better than nothing and worse than nothing.
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None  # noqa: PLR0124


def _expired(version: VersionReport, now: float) -> bool:
    if version.ttl_seconds is None:
        return False
    try:
        created = datetime.fromisoformat(version.created).timestamp()
    except ValueError:  # somebody else's, who may mean something by it
        return False
    return created + version.ttl_seconds <= now
