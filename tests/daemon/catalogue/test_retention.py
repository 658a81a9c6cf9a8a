"""Rules of what to keep: how they are written, and what follows."""

import pytest

from dropoff import UsageError
from dropoff.answers import VersionReport
from dropoff.questions import VersionId
from dropoffd.catalogue.retention import parse, rule_for, unkept

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def version(
    number: int, acc: object = None, *, aliases: tuple[str, ...] = (), ttl: float | None = None
) -> VersionReport:
    """Return a version that was made an hour before now."""
    return VersionReport(
        id=VersionId(store="", project="cv", artifact="ckpt", number=number), artifact_type="model", digest="",
        size_bytes=1, files=1, references=0, created="2027-01-15T07:00:00Z", run="", description="", tags=(),
        metadata={} if acc is None else {"eval": {"acc": acc}}, ttl_seconds=ttl, skipped=(), aliases=aliases,
    )  # fmt: skip


def removed(rules: str, versions: list[VersionReport]) -> list[int]:
    """Return the numbers that nothing keeps."""
    rule = rule_for(parse(rules), "cv", "ckpt")
    assert rule is not None
    return [one.id.number for one in unkept(rule, versions, NOW)]


def test_each_clause_keeps_its_own() -> None:
    """A version stays if any clause keeps it, and always with an alias."""
    versions = [version(n, acc=n % 4) for n in range(8)]
    assert removed("cv/*: newest 3", versions) == [4, 3, 2, 1, 0]
    assert removed("cv/*: highest 2 by eval.acc", versions) == [6, 5, 4, 2, 1, 0]
    assert removed("cv/*: lowest 1 by eval.acc, newest 1", versions) == [6, 5, 3, 2, 1, 0]
    assert removed("*/*: all", versions) == []
    versions[0] = version(0, aliases=("best",))
    assert removed("cv/ckpt: newest 0", versions) == [6, 5, 4, 3, 2, 1]


def test_what_has_no_such_number_is_not_the_best() -> None:
    """Texts, truths, not-a-number and nothing are neither the highest nor the lowest."""
    versions = [version(0), version(1, "9"), version(2, acc=True), version(3, float("nan")), version(4, 0.5)]
    for end in ("highest", "lowest"):
        assert removed(f"*/*: {end} 3 by eval.acc", versions) == [3, 2, 1, 0]


def test_a_time_to_live_runs_out() -> None:
    """`unexpired` keeps what has no time to live, or some left."""
    versions = [version(0, ttl=3599), version(1, ttl=3601), version(2)]
    assert removed("*/*: unexpired", versions) == [0]


def test_the_first_rule_that_fits_counts() -> None:
    """Later rules do not add to it, and what no rule fits is nobody's to remove."""
    rules = parse("cv/ckpt: newest 1; cv/*: all")
    assert rule_for(rules, "cv", "ckpt") == rules[0]
    assert rule_for(rules, "cv", "other") == rules[1]
    assert rule_for(rules, "nlp", "ckpt") is None


@pytest.mark.parametrize(
    "text", ["newest 5", "cv/a", "cv/a:", "cv/a: newest", "cv/a: newest -1", "cv: all", "cv/a: best 3", "cv/a: all,"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    """A rule without a pattern or with an unknown clause is an error that shows how to write one."""
    with pytest.raises(UsageError, match="rule of what to keep"):
        parse(text)
