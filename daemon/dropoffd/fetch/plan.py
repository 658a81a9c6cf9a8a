"""What to ask a store for: pure.

Small contents travel whole, those that lie side by side in a pack in one request; large ones in pieces, several at
once.
"""

from collections.abc import Iterable, Iterator

import msgspec

PIECE_BYTES = 8 << 20
# Bytes between two wanted members of a pack that are cheaper to receive than to ask again for.
_GAP_MOST_BYTES = 256 << 10


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A content: what it is, and where its bytes are."""

    sha256: str
    size_bytes: int
    key: str
    start: int = 0

    @property
    def end(self) -> int:
        """Where its bytes end in the object."""
        return self.start + self.size_bytes


class Span(msgspec.Struct, frozen=True):
    """Bytes of an object that are asked for at once, and the small contents within."""

    key: str
    start: int
    end: int
    contents: tuple[Wanted, ...]


def plan(wanted: Iterable[Wanted]) -> tuple[list[Span], list[Wanted]]:
    """Return the requests for small contents, and the large contents; what is wanted twice is there once."""
    small: list[Wanted] = []
    large: list[Wanted] = []
    for one in {(one.sha256, one.size_bytes): one for one in wanted}.values():
        (small if one.size_bytes <= PIECE_BYTES else large).append(one)
    return list(_spans(sorted(small, key=lambda one: (one.key, one.start)))), large


def _spans(ordered: Iterable[Wanted]) -> Iterator[Span]:
    held: list[Wanted] = []
    for one in ordered:
        if held and not _joins(held, one):
            yield _span(held)
            held = []
        held.append(one)
    if held:
        yield _span(held)


def _joins(held: list[Wanted], one: Wanted) -> bool:
    end = max(other.end for other in held[-1:])
    return (
        one.key == held[0].key
        and one.start - end <= _GAP_MOST_BYTES
        and max(end, one.end) - held[0].start <= PIECE_BYTES
    )


def _span(held: list[Wanted]) -> Span:
    return Span(held[0].key, held[0].start, max(one.end for one in held), tuple(held))


def pieces(size_bytes: int) -> list[tuple[int, int]]:
    """Return where each piece of a large content starts and ends."""
    return [(start, min(start + PIECE_BYTES, size_bytes)) for start in range(0, size_bytes, PIECE_BYTES)]
