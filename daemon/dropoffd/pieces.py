"""Read a content from its beginning to its end, in a thread, into one buffer that is filled again and again.

Fresh memory for each piece costs as much again as reading into it: the kernel clears it first, page by page.
"""

from collections.abc import Iterator
from typing import Protocol

# Each piece takes the interpreter from the event loop a few times: beside uploads those of 256 KiB cost a seventh
# more. Larger ones are no cheaper, and whoever works on a piece may hold the interpreter: with 8 MiB the event loop
# was seen to lag 42 ms.
PIECE_BYTES = 1 << 20


class Readable(Protocol):
    """What can be read from any offset."""

    @property
    def size_bytes(self) -> int:
        """How many bytes."""

    def read(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`; blocks."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` as far as that waits for nothing; return how many bytes that was."""


def pieces(content: Readable) -> Iterator[memoryview | bytes]:
    """Yield all of a content; blocks. A piece is good until the next is asked for.

    It ends early where the content does: whoever cares compares the sizes.
    """
    buffer = memoryview(bytearray(min(PIECE_BYTES, content.size_bytes)))
    offset = 0
    while offset < content.size_bytes:
        room = buffer[: content.size_bytes - offset]
        count = content.read_cached(room, offset)
        piece = room[:count] if count else content.read(len(room), offset)
        if not piece:
            return
        yield piece
        offset += len(piece)
