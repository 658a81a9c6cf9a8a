"""What a store is asked for."""

from dropoffd.fetch.plan import PIECE_BYTES, Span, Wanted, pieces, plan


def wanted(name: str, size: int, start: int = 0, key: str = "pack") -> Wanted:
    """Return a content."""
    return Wanted(sha256=name, size_bytes=size, key=key, start=start)


def test_members_of_a_pack_travel_together() -> None:
    """Contents that lie near each other are one request; one that lies far off is another."""
    near = [wanted("a", 10), wanted("b", 10, 100), wanted("c", 0, 110)]
    far = wanted("d", 10, 5 << 20)
    spans, large = plan([far, *reversed(near)])
    assert spans == [Span("pack", 0, 110, tuple(near)), Span("pack", far.start, far.end, (far,))]
    assert large == []


def test_no_request_is_larger_than_a_piece() -> None:
    """However many contents lie side by side, no request asks for more than a piece."""
    spans, _ = plan(wanted(str(n), 1 << 20, n << 20) for n in range(100))
    assert sum(len(span.contents) for span in spans) == 100
    assert max(span.end - span.start for span in spans) == PIECE_BYTES


def test_what_is_wanted_twice_is_asked_for_once() -> None:
    """A content under two names, or in two objects, is fetched once."""
    spans, large = plan(
        [wanted("a", 1), wanted("a", 1, key="b"), wanted("c", PIECE_BYTES + 1), wanted("c", PIECE_BYTES + 1)]
    )
    assert (len(spans), len(large)) == (1, 1)


def test_contents_that_overlap_are_each_whole() -> None:
    """A manifest may say that contents overlap: each still gets all of its bytes."""
    outer, inner = wanted("outer", 100), wanted("inner", 10, 20)
    spans, _ = plan([inner, outer])
    for span in spans:
        assert all(span.start <= one.start and one.end <= span.end for one in span.contents)
    assert {one for span in spans for one in span.contents} == {outer, inner}


def test_pieces_are_all_of_a_content_once() -> None:
    """The pieces of a large content follow each other from its beginning to its end."""
    found = pieces(2 * PIECE_BYTES + 1)
    assert found == [(0, PIECE_BYTES), (PIECE_BYTES, 2 * PIECE_BYTES), (2 * PIECE_BYTES, 2 * PIECE_BYTES + 1)]
