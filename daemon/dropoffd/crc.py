"""CRCs with hardware's help, as S3 writes them: base64 of their bytes, the highest first.

CRC-64/NVME ties the parts of an object to the digest of the whole: it is computed in the same pass as the sha256,
costs a twentieth of it, and those of parts combine to that of the whole without reading anything. So a byte that
changes between the digest and the wire is noticed, whatever the store verifies.
"""

import base64
from collections.abc import Callable, Iterable

from awscrt import checksums


class Crc:
    """A running CRC."""

    def __init__(self, function: Callable[[bytes | memoryview, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._value = self._function(piece, self._value)

    def written(self) -> str:
        """Return it as S3 writes it."""
        return base64.b64encode(self._value.to_bytes(self._size, "big")).decode()


def crc64nvme() -> Crc:
    """Return a CRC-64/NVME of nothing yet."""
    return Crc(checksums.crc64nvme, 8)


def crc32c() -> Crc:
    """Return a CRC-32C of nothing yet."""
    return Crc(checksums.crc32c, 4)


def combined(parts: Iterable[tuple[str, int]]) -> str:
    """Return the CRC-64/NVME of parts in a row, from each one's and its size in bytes."""
    value = 0
    for written, size in parts:
        value = checksums.combine_crc64nvme(value, int.from_bytes(base64.b64decode(written), "big"), size)
    return base64.b64encode(value.to_bytes(8, "big")).decode()
