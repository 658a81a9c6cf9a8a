"""Which names a download takes from a store that may be anybody's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff.errors import DamagedError
from dropoffd.fetch.names import check

PLAIN = [
    b"a",
    b"a b/c",
    b"..a/...",
    b"caf\xe9",
    "caf\u00e9".encode(),
    b"con",
    b"a\\b",
    b"C:x",
    b"-rf",
    b"a\nb",
    b"A",
    b"~",
]


def test_plain_names_are_taken_as_they_are() -> None:
    """What a file can be called here can be downloaded, also what other systems could not hold."""
    check(PLAIN, folds=False)


@pytest.mark.parametrize(
    "path",
    [
        b"", b"/", b"/etc/pass", b"//host/share", b"..", b"../x", b"a/../x", b"a/..", b"./a", b"a/.", b"a//b", b"a/",
        b"a\0b", b"x" * 256, b"/".join([b"x" * 200] * 25), b".dropoff-incoming", b".dropoff-incoming/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("folds", [True, False])
def test_a_name_that_leads_elsewhere_is_refused(path: bytes, *, folds: bool) -> None:
    """Absolute names, those that climb, and those no file can have are refused, whatever else there is."""
    with pytest.raises(DamagedError, match="unable to download"):
        check([b"fine", path], folds=folds)


@pytest.mark.parametrize("paths", [[b"a", b"a"], [b"a", b"a/b"], [b"a/b/c", b"a"], [b"a/b", b"a/b/c/d"]])
def test_names_that_meet_are_refused(paths: list[bytes]) -> None:
    """A name that stands twice, or is a file's and a folder's at once, is refused."""
    with pytest.raises(DamagedError):
        check(paths, folds=False)


@pytest.mark.parametrize(
    "paths",
    [
        [b"README", b"readme"], [b"a/B", b"A/b"], [b"A", b"a/b"], ["\u00e9".encode(), "e\u0301".encode()],
        ["stra\u00dfe".encode(), b"STRASSE"], [b".DROPOFF-incoming/x"],
    ],
)  # fmt: skip
def test_names_that_are_one_where_case_does_not_count_are_refused_there(paths: list[bytes]) -> None:
    """Where the file system takes two names for one, both are refused; elsewhere they are two files."""
    check(paths, folds=False)
    with pytest.raises(DamagedError):
        check(paths, folds=True)


@pytest.mark.parametrize(
    "path",
    [
        b"con",
        b"a/NUL",
        b"aux.txt",
        b"COM1",
        b"lpt9.tar.gz",
        b"PRN ",
        b"a.",
        b"a /b",
        b"a:b",
        b"a\\b",
        b"a\tb",
        b"c?",
        "com\u00b9".encode(),
    ],
)
def test_names_with_a_meaning_there_are_refused_there(path: bytes) -> None:
    """Device names and what else such a file system would take for something else are refused on it alone."""
    check([path], folds=False)
    with pytest.raises(DamagedError, match="meaning"):
        check([path], folds=True)


@given(st.lists(st.binary(max_size=12) | st.sampled_from(PLAIN), max_size=6), st.booleans())
def test_whatever_is_taken_stays_below(paths: list[bytes], folds: bool) -> None:
    """Of any names those that are taken are relative, do not climb, and are all different."""
    try:
        check(paths, folds=folds)
    except DamagedError:
        return
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path
        assert not {b"", b".", b".."} & set(path.split(b"/"))
