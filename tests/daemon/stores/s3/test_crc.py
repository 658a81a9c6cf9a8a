"""CRCs, against the check values of their definitions and the bits of which they are defined."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoffd import crc

# The value for these nine bytes is what the catalogue of CRC algorithms gives to tell one from another.
CHECKED = b"123456789"
# CRC-64/NVME and CRC-32C (iSCSI), with their polynomials reflected.
NVME, CASTAGNOLI = 0x9A6C9329AC4BC9B5, 0x82F63B78
PIECES = st.lists(st.binary(max_size=200), max_size=6)


def slowly(data: bytes, polynomial: int, size: int) -> str:
    """Return a CRC bit by bit."""
    ones = (1 << size * 8) - 1
    value = ones
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
    return base64.b64encode((value ^ ones).to_bytes(size, "big")).decode()


def written(taker: crc.Crc, *pieces: bytes) -> str:
    """Return the CRC of pieces in a row."""
    for piece in pieces:
        taker.update(piece)
    return taker.written()


@pytest.mark.parametrize(
    ("taker", "value"), [(crc.crc64nvme, "ae8b14860a799888"), (crc.crc32c, "e3069283")], ids=["crc64nvme", "crc32c"]
)
def test_a_crc_has_its_check_value(taker: Callable[[], crc.Crc], value: str) -> None:
    """The nine digits give what the algorithm's definition says, written as S3 writes it."""
    assert base64.b64decode(written(taker(), CHECKED)).hex() == value


@given(PIECES)
def test_a_crc_is_that_of_the_bytes_in_a_row(pieces: list[bytes]) -> None:
    """However content is cut into pieces, its CRCs are those of all its bits."""
    whole = b"".join(pieces)
    assert written(crc.crc64nvme(), *pieces) == slowly(whole, NVME, 8)
    assert written(crc.crc32c(), *pieces) == slowly(whole, CASTAGNOLI, 4)


@given(PIECES)
def test_the_crcs_of_parts_combine_to_that_of_the_whole(parts: list[bytes]) -> None:
    """From each part's CRC and size alone comes the CRC of all of them in a row, empty ones included."""
    combined = crc.combined((written(crc.crc64nvme(), part), len(part)) for part in parts)
    assert combined == slowly(b"".join(parts), NVME, 8)


def test_parts_in_another_order_are_another_whole() -> None:
    """What is put together in the wrong order has another CRC: it is no sum."""
    parts = [(written(crc.crc64nvme(), part), len(part)) for part in (b"first", b"then")]
    assert crc.combined(parts) != crc.combined(parts[::-1])
