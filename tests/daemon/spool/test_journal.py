"""The journal: what is appended is there, whole, and nothing else is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoffd.spool.journal import BLOCK_BYTES, JOURNAL_BYTES, RECORD_MAX_BYTES, Journal

OWNER = 77


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where a journal may be."""
    return str(tmp_path / "journal")


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    """Return an empty journal."""
    made = Journal(path, OWNER)
    yield made
    made.close()


def found(path: str, owner: int = OWNER) -> list[tuple[int, bytes]]:
    """Return what another process finds in it."""
    other = Journal(path, owner)
    try:
        return other.read()
    finally:
        other.close()


def test_what_was_appended_is_found_in_order(path: str, journal: Journal) -> None:
    """Records of any size that fits come back as they were, and the file does not grow."""
    said = [b"", b"x", os.urandom(BLOCK_BYTES), os.urandom(RECORD_MAX_BYTES - 100)]
    for number, one in enumerate(said, start=5):
        assert journal.fits(len(one))
        journal.append(number, one)
    assert found(path) == list(enumerate(said, start=5))
    assert os.path.getsize(path) == JOURNAL_BYTES


def test_what_does_not_fit_is_said_before(journal: Journal) -> None:
    """Neither a record that is too large fits, nor one for which there is no room left; begun again there is."""
    assert not journal.fits(RECORD_MAX_BYTES)
    number = 0
    while journal.fits(RECORD_MAX_BYTES - 100):
        journal.append(number := number + 1, bytes(RECORD_MAX_BYTES - 100))
    assert number == JOURNAL_BYTES // RECORD_MAX_BYTES
    assert not journal.fits(1)
    journal.begin_again()
    assert journal.fits(1)


@given(lengths=st.lists(st.lists(st.integers(0, 3 * BLOCK_BYTES), min_size=1, max_size=6), min_size=1, max_size=4))
def test_records_of_before_do_not_come_back(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]]
) -> None:
    """However often it was begun again, exactly the records since then are found."""
    path = str(tmp_path_factory.mktemp("journal") / "journal")
    journal, number = Journal(path, OWNER), 0
    for some in lengths:
        journal.begin_again()
        appended = []
        for length in some:
            number += 1
            appended.append((number, bytes([number % 256]) * length))
            journal.append(*appended[-1])
        assert found(path) == appended
    journal.close()


def test_who_reads_goes_on_behind_what_is_there(path: str, journal: Journal) -> None:
    """Records that were read stay, and further ones come after them."""
    journal.append(1, b"one")
    other = Journal(path, OWNER)
    assert other.read() == [(1, b"one")]
    other.append(2, b"two")
    other.close()
    assert found(path) == [(1, b"one"), (2, b"two")]


def test_another_owners_records_are_none(path: str, journal: Journal) -> None:
    """A journal that lay beside another database has nothing for this one."""
    journal.append(1, b"one")
    assert found(path, OWNER + 1) == []


@pytest.mark.parametrize("at", [0, 5, 9, 17, 25, 40, 40 + BLOCK_BYTES])
def test_a_damaged_record_ends_it(path: str, journal: Journal, at: int) -> None:
    """Whatever byte of a record changed, it and what follows is not taken for a record; those before are."""
    for number in (1, 2, 3):
        journal.append(number, bytes(BLOCK_BYTES + 100))
    with open(path, "r+b") as file:
        file.seek(2 * BLOCK_BYTES + at)
        byte = file.read(1)
        file.seek(2 * BLOCK_BYTES + at)
        file.write(bytes([byte[0] ^ 1]))
    assert [number for number, _ in found(path)] == [1]


def test_a_journal_that_was_not_finished_is_made_anew(path: str) -> None:
    """A kill while the journal is made leaves none under its name, and the next start makes one."""
    Path(f"{path}.part").write_bytes(b"half")
    journal = Journal(path, OWNER)
    journal.append(1, b"one")
    journal.close()
    assert found(path) == [(1, b"one")]
    assert not os.path.exists(f"{path}.part")
