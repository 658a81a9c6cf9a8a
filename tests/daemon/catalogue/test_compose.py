"""What an artifact holds: the steps of its making, in their order, or a reason why they make no sense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff.errors import UsageError
from dropoff.saves import Pointer, Removal, Version
from dropoffd.catalogue.compose import compose


def made(
    *additions: tuple[int, bool, list[bytes]],
    removals: tuple[Removal, ...] = (),
    pointers: tuple[Pointer, ...] = (),
    steps: int | None = None,
) -> dict[bytes, object]:
    """Compose names; each stands for the position that brought it."""
    count = len(additions) + len(removals) + len(pointers) if steps is None else steps
    version = Version(draft="d", type="t", steps=count, removals=removals, pointers=pointers)
    content = [(position, overwrite, dict.fromkeys(paths, position)) for position, overwrite, paths in additions]
    return dict(compose(version, content, lambda one: {one.path: one.uri}))  # type: ignore[dict-item]


def test_steps_count_in_their_order() -> None:
    """Later steps see what earlier ones did, in whatever order they are handed in; names come sorted."""
    assert made((2, True, [b"a"]), (0, False, [b"a", b"c", b"b/x"]), removals=(Removal(position=1, path=b"b"),)) == {
        b"a": 2,
        b"c": 0,
    }
    both = made((1, False, [b"a"]), pointers=(Pointer(position=0, path=b"z", uri="s3://b/k"),))
    assert list(both.items()) == [(b"a", 1), (b"z", "s3://b/k")]


def test_a_removed_name_is_free_again() -> None:
    """What was taken out may be added again."""
    assert made((0, False, [b"a"]), (2, False, [b"a"]), removals=(Removal(position=1, path=b"a"),)) == {b"a": 2}
    twice = ((0, False, [b"a"]), (1, False, [b"a"]))
    assert made(*twice, (3, False, [b"a"]), removals=(Removal(position=2, path=b"a"),)) == {b"a": 3}
    assert made(*twice, (2, True, [b"a"])) == {b"a": 2}


@pytest.mark.parametrize(
    ("additions", "removals", "reason"),
    [
        ([(0, False, [b"a"]), (1, False, [b"a"])], (), "'a' was added twice"),
        ([(0, False, [b"a"])], (Removal(position=1, path=b"b"),), "'b' was removed and is not there"),
        ([(0, False, [b"a/b/c", b"a/b"])], (), "'a/b' is a file, and 'a/b/c' lies below it"),
        ([(0, False, [b"a"]), (2, False, [b"b"])], (), "not in custody any more"),
    ],
)
def test_contradictions_are_refused(
    additions: list[tuple[int, bool, list[bytes]]], removals: tuple[Removal, ...], reason: str
) -> None:
    """A name twice, a removal of nothing, a file that is a folder, and a step that is lost, are named."""
    with pytest.raises(UsageError, match=reason):
        made(*additions, removals=removals)


names = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)


@given(st.lists(st.tuples(names, st.booleans())))
def test_no_name_is_ever_a_file_and_a_folder(steps: list[tuple[bytes, bool]]) -> None:
    """What is composed can be written to any file system as it is."""
    try:
        found = made(*[(n, True, [path]) for n, (path, _) in enumerate(steps)])
    except UsageError:
        paths = {path for path, _ in steps}
        assert any(one.startswith(other + b"/") for one in paths for other in paths)
    else:
        assert not any(one.startswith(other + b"/") for one in found for other in found)
        assert list(found) == sorted({path for path, _ in steps})


def test_what_lies_below_a_prefix_goes_with_it() -> None:
    """Whatever takes a prefix's name, or removes it, takes the place of all that lay below it."""
    first = Pointer(position=0, path=b"a", uri="s3://b/", objects_max=9)
    again = Pointer(position=1, path=b"a", uri="s3://c/", objects_max=9, overwrite=True)
    below = {0: {b"a/1": 1, b"a/2": 2}, 1: {b"a/2": 3}}

    def composed(*pointers: Pointer, overwriting: bool = False, removed: bool = False) -> dict[bytes, int]:
        steps = len(pointers) + overwriting + removed
        version = Version(
            draft="d", type="t", steps=steps, pointers=pointers,
            removals=(Removal(position=1, path=b"a"),) if removed else (),
        )  # fmt: skip
        added = [(1, True, {b"a": 7})] if overwriting else []
        return compose(version, added, lambda one: below[one.position])

    assert composed(first) == {b"a/1": 1, b"a/2": 2}
    assert composed(first, again) == {b"a/2": 3}
    assert composed(first, overwriting=True) == {b"a": 7}
    assert composed(first, removed=True) == {}
