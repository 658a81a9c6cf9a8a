"""What one pass over a content yields."""

import hashlib

import pytest

from dropoffd import crc
from dropoffd.stores.base import Bytes
from dropoffd.transfer.digest import Digester, digest_of

pytestmark = pytest.mark.anyio


class Halting(Bytes):
    """A content of which each reading brings less than was asked for."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill two thirds of the buffer and a byte."""
        return super().read_cached(buffer[: len(buffer) * 2 // 3 + 1], offset)

    def check(self) -> None:
        """Never change."""

    def close(self) -> None:
        """Have nothing open."""


def crc_of(data: bytes) -> str:
    """Return the CRC-64/NVME of bytes, taken at once."""
    taker = crc.crc64nvme()
    taker.update(data)
    return taker.written()


@pytest.mark.parametrize("size", [0, 1, 999_999, 1_000_000, 1_000_001, 3_500_000])
async def test_parts_and_the_whole_are_summed_up_in_one_pass(size: int) -> None:
    """However the bytes come in, each part has the sum of its own bytes, and the whole those of all."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    (found,) = await Digester(1).digest([lambda: Halting(data, "")], lambda _: 1_000_000)
    assert (found.sha256, found.crc64nvme) == (hashlib.sha256(data).hexdigest(), crc_of(data))
    assert found.parts is not None
    assert found.parts.crc64nvmes == tuple(crc_of(data[n : n + 1_000_000]) for n in range(0, size, 1_000_000))


def test_what_is_in_memory_has_the_same_digests() -> None:
    """Content that is digested without a change of thread is digested alike."""
    found = digest_of(b"content")
    assert (found.sha256, found.crc64nvme) == (hashlib.sha256(b"content").hexdigest(), crc_of(b"content"))
