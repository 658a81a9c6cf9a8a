"""Garbage in: the frame decoder by itself, and the daemon behind its socket."""

import math
import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoff.errors import ProtocolError
from dropoff.ids import new_job_id
from dropoff.messages import (
    PROTOCOL,
    Accepted,
    Code,
    Hello,
    Refused,
    Show,
    Status,
    StatusReport,
    encode,
)
from dropoff.wire import FRAME_MAX_BYTES, FrameDecoder, frame
from faults.peers import Peer, descriptors_of, resident_bytes_of
from support.daemon import DaemonProcess, MakeDaemon

_bodies = st.lists(st.binary(max_size=300), max_size=20)


@given(bodies=_bodies, cuts=st.lists(st.integers(0, 6000), max_size=40))
def test_any_split_of_a_stream_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    """However the kernel cuts the stream into reads, the frames are those that were sent."""
    stream = b"".join(map(frame, bodies))
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {len(stream)})
    decoder, found, start = FrameDecoder(), list[bytes](), 0
    for end in ends:
        found += decoder.feed(stream[start:end])
        start = end
    assert found == bodies


@given(bodies=_bodies, length=st.integers(FRAME_MAX_BYTES + 1, 2**32 - 1), rest=st.binary(max_size=50))
def test_an_impossible_length_is_refused_before_its_bytes_come(bodies: list[bytes], length: int, rest: bytes) -> None:
    """A length over the bound raises as soon as its four bytes are there, whatever came before or follows."""
    decoder = FrameDecoder()
    assert decoder.feed(b"".join(map(frame, bodies))) == bodies
    with pytest.raises(ProtocolError):
        decoder.feed(struct.pack("!I", length) + rest)


@given(data=st.binary(max_size=2000), size=st.integers(1, 100))
def test_garbage_gives_frames_or_an_error_and_nothing_else(data: bytes, size: int) -> None:
    """Whatever the bytes are, the decoder returns frames that are in them or raises ProtocolError."""
    decoder = FrameDecoder()
    found = []
    try:
        for start in range(0, len(data), size):
            found += decoder.feed(data[start : start + size])
    except ProtocolError:
        return
    assert data.startswith(b"".join(map(frame, found)))


def test_a_frame_at_the_bound_passes_and_memory_is_bounded() -> None:
    """The largest frame comes through byte by read, and the decoder never holds more than that frame."""
    decoder, body = FrameDecoder(), os.urandom(FRAME_MAX_BYTES)
    stream = frame(body)
    found = []
    for start in range(0, len(stream), 4096):
        found += decoder.feed(stream[start : start + 4096])
        assert len(decoder._buffer) <= FRAME_MAX_BYTES + 4
    assert found == [body]
    assert len(decoder._buffer) == 0
    with pytest.raises(ProtocolError):
        frame(body + b"x")


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    made = DaemonProcess(tmp_path_factory.mktemp("daemon")).start()
    yield made
    made.end()


@pytest.fixture
def daemon(_shared: DaemonProcess) -> DaemonProcess:
    """Return the one daemon that all these tests try to break; who does only fails its own test."""
    assert _shared.process is not None
    if _shared.process.poll() is not None:
        _shared.kill()
        _shared.start()
    return _shared


@pytest.fixture
def still_serves(daemon: DaemonProcess, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Return a check that the same process serves others as before; it is made once more at the end."""
    assert daemon.process is not None
    process = daemon.process
    source = tmp_path / "by-stander"
    source.write_bytes(b"content of a by-stander")
    run = daemon.run()
    run.save_file(source).wait(20)
    base = descriptors_of(daemon)

    def check() -> None:
        assert process.poll() is None, "".join(daemon.log[-30:])
        assert run.save_file(source).wait(20).size_bytes == 23
        _eventually(lambda: descriptors_of(daemon) <= base, f"{base} descriptors")

    yield check
    check()


def _eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for what the daemon does in its own time, after the caller is gone."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, f"never came to {what}"
        time.sleep(0.01)


def _save(**changes: Any) -> dict[str, Any]:
    run = {
        "project": "project", "name": "run", "store": "file:///nowhere/at/all", "created_at": 1.0, "host": "h",
        "user": "u", "tags": [], "metadata": {},
    }  # fmt: skip
    whole = {
        "type": "save", "job": new_job_id(), "run": run, "kind": "file", "name": b"name", "category": "output",
        "source": b"/nowhere", "created_at": 1.0,
    }  # fmt: skip
    return whole | changes | {"run": run | changes.get("run", {})}


def _nested(depth: int) -> bytes:
    """Return the msgpack of lists in lists, deeper than any decoder wants to recurse."""
    return b"\x91" * depth + b"\x90"


_GARBAGE = {
    "no hello": b"GET / HTTP/1.1\r\n\r\n",
    "a huge length": b"\xff\xff\xff\xff",
    "an empty frame": frame(b""),
    "not msgpack": frame(b"\xc1\xc1\xc1"),
    "half a message": frame(encode(Status())[:-1]),
    "two messages in one frame": frame(encode(Status()) * 2),
    "an unknown message": frame(msgspec.msgpack.encode({"type": "format-disk"})),
    "no type": frame(msgspec.msgpack.encode({"limit": 3})),
    "not even a map": frame(msgspec.msgpack.encode([1, 2, 3])),
    "a type that is no text": frame(msgspec.msgpack.encode({"type": 7})),
    "a wrong type inside": frame(msgspec.msgpack.encode({"type": "jobs", "limit": "all"})),
    "an unknown choice": frame(msgspec.msgpack.encode(_save(kind="socket"))),
    "deep nesting": frame(_nested(200_000)),
    "deep nesting in a field nobody knows": frame(b"\x82\xa4type\xa6status\xa1x" + _nested(200_000)),
    "deep nesting in metadata": frame(msgspec.msgpack.encode(_save())[:1].replace(b"\x88", b"\x89")
    + msgspec.msgpack.encode(_save())[1:] + b"\xa8metadata" + _nested(200_000)),
}  # fmt: skip


@pytest.mark.parametrize("greet", [True, False], ids=["after hello", "as hello"])
@pytest.mark.parametrize("what", _GARBAGE)
def test_garbage_ends_its_own_connection_alone(
    daemon: DaemonProcess, still_serves: Callable[[], None], what: str, greet: bool
) -> None:
    """What cannot be read is refused and the connection closed; everybody else is served on."""
    with Peer(daemon, greet=greet) as peer:
        peer.send(_GARBAGE[what])
        reply = peer.reply()
        if reply is not None:
            assert isinstance(reply, Refused)
            assert reply.code in {Code.GARBAGE, Code.PROTOCOL}
            assert peer.reply() is None
    still_serves()


_UNREASONABLE: dict[str, Any] = {
    "a cursor beyond 64 bits of sign": {"type": "jobs", "before": 2**64 - 1},
    "a negative limit": {"type": "jobs", "limit": -5},
    "an enormous limit": {"type": "jobs", "limit": 2**63},
    "a timeout that is no number": {"type": "wait", "timeout_seconds": math.nan},
    "a negative timeout": {"type": "wait", "timeout_seconds": -1.0},
    "a timeout of minus infinity": {"type": "wait", "timeout_seconds": -math.inf},
    "a job id of wildcards": {"type": "show", "job": "%_*?["},
    "a job id of a megabyte": {"type": "show", "job": "a" * 900_000},
    "an empty job id": {"type": "show", "job": ""},
    "a job id with NUL": {"type": "show", "job": "\0"},
    "many jobs nobody knows": {"type": "wait", "jobs": [new_job_id() for _ in range(20_000)], "timeout_seconds": 0.0},
    "a second hello": {"type": "hello", "protocol": 1, "client": "again"},
    "a save without descriptor": _save(),
    "cancel with an unknown job": {"type": "cancel", "jobs": ["f" * 32]},
}


@pytest.mark.parametrize("what", _UNREASONABLE)
def test_unreasonable_requests_are_answered(
    daemon: DaemonProcess, still_serves: Callable[[], None], what: str
) -> None:
    """A request that is well formed but makes no sense has an answer, and harms nobody."""
    with Peer(daemon) as peer:
        peer.send(frame(msgspec.msgpack.encode(_UNREASONABLE[what])))
        assert peer.reply() is not None
    still_serves()


_UNREASONABLE_SAVES: dict[str, dict[str, Any]] = {
    "a priority beyond 64 bits of sign": {"priority": 2**64 - 1},
    "a store that is no URL": {"run": {"store": "file://[/x"}},
    "a store with NUL": {"run": {"store": "file:///a%00b"}},
    "a store of an unknown kind": {"run": {"store": "gopher://x/y"}},
    "a relative store": {"run": {"store": "store"}},
    "an id that climbs": {"job": "../../../../etc/passwd"},
    "an id of another length": {"job": "abc"},
    "a name that climbs": {"name": b"../../x"},
    "an empty name": {"name": b""},
    "a prefix that climbs": {"prefix": "../.."},
    "a project that climbs": {"run": {"project": "../up"}},
    "a time that is no number": {"created_at": math.nan},
    "an infinite time": {"created_at": math.inf, "run": {"created_at": math.inf}},
    "bytes and extensions in metadata": {"metadata": {"x": b"\xff", "y": msgspec.msgpack.Ext(5, b"z")}},
    "a format of the future": {"format": 99},
    "a directory that is a file": {"kind": "directory"},
}


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize("what", _UNREASONABLE_SAVES)
def test_unreasonable_saves_are_answered(
    daemon: DaemonProcess, still_serves: Callable[[], None], tmp_path: Path, what: str, first: bool
) -> None:
    """A save whose message makes no sense is refused, or taken and held; the daemon lives on.

    The first save of a connection takes another way than those after it.
    """
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    with Peer(daemon) as peer, open(source, "rb") as file:
        if not first:
            assert isinstance(peer.ask(_save(), [file.fileno()]), Accepted)
        changes = {
            key: dict(value) if isinstance(value, dict) else value for key, value in _UNREASONABLE_SAVES[what].items()
        }
        reply = peer.ask(_save(**changes), [file.fileno()])
        assert isinstance(reply, Refused | Accepted), reply
    still_serves()


def test_a_newer_protocol_is_refused_with_what_to_do(daemon: DaemonProcess) -> None:
    """An SDK from the future is told which protocol is spoken here and how to upgrade."""
    with Peer(daemon, greet=False) as peer:
        reply = peer.ask(Hello(PROTOCOL + 1, "dropoff 99"))
        assert isinstance(reply, Refused)
        assert (reply.code, "upgrade" in reply.hint) == (Code.PROTOCOL, True)
        assert peer.reply() is None


def test_descriptors_without_a_message_that_takes_them_are_closed(
    daemon: DaemonProcess, still_serves: Callable[[], None], tmp_path: Path
) -> None:
    """Descriptors on other requests, on half a frame or in a crowd leave nothing open in the daemon."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with open(source, "rb") as file:
        fd = file.fileno()
        with Peer(daemon) as peer:
            assert isinstance(peer.ask(Status(), [fd]), StatusReport)
            assert isinstance(peer.ask(Show("nothing"), [fd, fd]), Refused)
        with Peer(daemon) as peer:
            peer.send(frame(encode(Status()))[:3], [fd, fd, fd])
        with Peer(daemon) as peer:
            peer.send(frame(encode(Status())), [fd] * 200)
            while peer.reply() is not None:
                pass
        with Peer(daemon, greet=False) as peer:
            peer.send(b"\xff\xff\xff\xff", [fd] * 4)
            while peer.reply() is not None:
                pass
    still_serves()


def test_who_hangs_up_in_the_middle_leaves_nothing(
    daemon: DaemonProcess, still_serves: Callable[[], None], tmp_path: Path
) -> None:
    """Callers that vanish at every byte of a save, and before each answer, cost no descriptor and no custody."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(200 << 10))
    message = frame(msgspec.msgpack.encode(_save(run={"store": daemon.settings.store})))
    with open(source, "rb") as file:
        for end in range(1, len(message), 7):
            with Peer(daemon) as peer:
                peer.send(message[:end], [file.fileno()])
        with Peer(daemon) as peer:
            peer.send(frame(encode(Status())) * 500)
        with Peer(daemon) as peer:
            peer.send(frame(encode(Status())) * 500)
            peer.socket.shutdown(socket.SHUT_RD)
    still_serves()
    assert os.listdir(daemon.root / "state" / "payloads") == []


def test_slow_callers_hold_up_nobody(daemon: DaemonProcess, still_serves: Callable[[], None]) -> None:
    """Hundreds of callers that say half a frame and stay leave the daemon to those who speak."""
    before = resident_bytes_of(daemon)
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(daemon, greet=n % 2 == 0)) for n in range(300)]
        for n, peer in enumerate(peers):
            peer.send(struct.pack("!I", FRAME_MAX_BYTES)[: 1 + n % 4])
        began = time.monotonic()
        with Peer(daemon) as prompt:
            assert isinstance(prompt.ask(Status()), StatusReport)
        assert time.monotonic() - began < 2
        assert resident_bytes_of(daemon) - before < 30 << 20
    still_serves()


def test_a_caller_that_never_reads_fills_no_memory(daemon: DaemonProcess, still_serves: Callable[[], None]) -> None:
    """Requests whose answers nobody takes back up on the caller, not in the daemon."""
    before = resident_bytes_of(daemon)
    with Peer(daemon) as peer:
        peer.socket.setblocking(False)
        request, sent = frame(encode(Status())) * 100, 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                sent += peer.socket.send(request)
            except BlockingIOError:
                break
        assert resident_bytes_of(daemon) - before < 30 << 20
    assert sent > 0
    still_serves()


def test_more_callers_than_the_daemon_takes_are_turned_away(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """With its descriptors used up by callers, the daemon lives, saves reach the inbox, and all is delivered."""
    daemon = make_daemon(answer_deadline_seconds=0.2).start(prefix=("prlimit", "--nofile=128"))
    assert daemon.process is not None
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    run = daemon.run()
    with ExitStack() as stack:
        for _ in range(150):
            stack.callback(_connected(daemon).close)
        saved = run.save_file(source)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(6)  # longer than the pause between two looks into the inbox
    assert saved.wait(20).size_bytes == 1000
    assert daemon.stop() == 0


def _connected(daemon: DaemonProcess) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(os.path.join(daemon.settings.runtime_dir, "daemon.sock"))
    return sock


def test_a_storm_of_mutated_messages_is_survived(daemon: DaemonProcess, still_serves: Callable[[], None]) -> None:
    """Valid messages with bytes flipped, cut, doubled and spliced never end the daemon; the seed is printed."""
    seed = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
    print(f"replay: DROPOFF_TEST_SEED={seed}")
    chance = random.Random(seed)
    corpus = [msgspec.msgpack.encode(_save())]
    corpus += [msgspec.msgpack.encode(message) for message in _UNREASONABLE.values()]
    corpus = [one for one in corpus if len(one) < 10_000]
    for _ in range(1500):
        with Peer(daemon, greet=chance.random() < 0.9) as peer:
            for _ in range(chance.randint(1, 3)):
                try:
                    peer.send(frame(_mutated(chance, corpus)))
                except (BrokenPipeError, ConnectionResetError):
                    break
    still_serves()


def _mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        manner = chance.randrange(4)
        if manner == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif manner == 1:
            del data[at : at + chance.randint(1, 20)]
        elif manner == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 8))
        else:
            data[at:at] = chance.choice(corpus)[chance.randrange(40) :][: chance.randint(1, 60)]
    return bytes(data)
