"""Names, ids and frames: the small rules everything else rests on."""

import os
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff import UsageError
from dropoff.errors import ProtocolError
from dropoff.ids import is_job_id, new_job_id
from dropoff.names import check_name, display
from dropoff.wire import FRAME_MAX_BYTES, FrameDecoder, frame


@pytest.mark.parametrize(
    "name", ["a", "a/b", b"\xff\xfe", "a b\n", "...", "a..b", "x" * 255, PurePath("a/b"), "~", "-"]
)
def test_relative_paths_are_names(name: str | bytes | PurePath) -> None:
    """Whatever a file below a directory can be called is a name, and comes back as its bytes."""
    assert check_name(name) == os.fsencode(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "is empty"), ("/a", "is absolute"), ("a\0b", "NUL"), ("../a", "climbs"), ("a/..", "climbs"),
     ("..", "climbs"), ("a//b", "empty or '.'"), ("a/", "empty or '.'"), (".", "empty or '.'"),
     ("./a", "empty or '.'"), ("x" * 256, "longer than 255"), ("a/" * 2048 + "a", "longer than 4096"),
     ("\N{SNOWMAN}" * 86, "longer than 255")],
)  # fmt: skip
def test_what_climbs_or_is_too_long_is_no_name(name: str, why: str) -> None:
    """Any other name raises UsageError that says what is wrong with it."""
    with pytest.raises(UsageError, match="unable to use") as caught:
        check_name(name)
    assert why in caught.value.message
    assert caught.value.hint


@given(st.binary())
def test_what_is_displayed_is_printable(raw: bytes) -> None:
    """Whatever bytes a name has, its text is safe on a terminal."""
    assert display(raw).isprintable()


def test_readable_names_are_displayed_as_they_are() -> None:
    """Only what cannot be printed is escaped."""
    assert display("caf\u00e9 \u96ea.pt".encode()) == "caf\u00e9 \u96ea.pt"
    assert display(b"\x1b[31m\n\xff\xe2\x80\xae") == r"\x1b[31m\n\xff\u202e"


def test_ids_sort_by_time_and_are_well_formed() -> None:
    """Ids made one after another are different, well-formed, and ordered to the millisecond."""
    ids = [new_job_id() for _ in range(1000)]
    assert all(is_job_id(one) for one in ids)
    assert len(set(ids)) == 1000
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "../" + "0" * 29, "\u0660" * 32])
def test_what_is_no_id_is_told(text: str) -> None:
    """Ids become file names, so nothing else passes for one."""
    assert not is_job_id(text)


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 50), min_size=1))
def test_frames_survive_any_cutting(bodies: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut into reads, the frames that come out are those that went in."""
    stream = b"".join(map(frame, bodies))
    decoder = FrameDecoder()
    found: list[bytes] = []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        found += decoder.feed(stream[:size])
        stream = stream[size:]
        turn += 1
    assert found == bodies


def test_frames_are_bounded() -> None:
    """The largest frame passes, and one byte more is refused on either side."""
    assert FrameDecoder().feed(frame(bytes(FRAME_MAX_BYTES))) == [bytes(FRAME_MAX_BYTES)]
    with pytest.raises(ProtocolError, match="unable to send") as caught:
        frame(bytes(FRAME_MAX_BYTES + 1))
    assert "save that" in caught.value.hint
    with pytest.raises(ProtocolError, match="unable to read a frame"):
        FrameDecoder().feed((FRAME_MAX_BYTES + 1).to_bytes(4, "big"))
