"""Each fault is, on the wire, what it says; looked at with a bare connection."""

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.fault_server import faults
from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.calls import Operation
from support.fault_server.faults import (
    Close,
    Delay,
    Fault,
    FlipBit,
    Garbage,
    KeepShort,
    MalformedXml,
    Refuse,
    Reset,
    Silence,
    Slow,
    Stage,
    WrongChecksum,
    WrongEtag,
)
from support.fault_server.server import FaultServer

BODY = bytes(range(256)) * 4096  # 1 MiB
OBJECT = "/bucket/key"


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    """Return a fault server that asks nobody for a signature."""
    fault_server.behaviour = Behaviour(signatures=False)
    return fault_server


@pytest.fixture
def wire(server: FaultServer) -> Iterator[http.client.HTTPConnection]:
    """Return a connection to it."""
    connection = http.client.HTTPConnection(urlsplit(server.address.endpoint).netloc, timeout=20)
    yield connection
    connection.close()


def put(wire: http.client.HTTPConnection, body: bytes = BODY) -> tuple[int, bytes]:
    """Store an object; return the status and what was answered."""
    wire.request("PUT", OBJECT, body)
    answer = wire.getresponse()
    return answer.status, answer.read()


def put_once(home: Path, fault: Fault, times: int) -> None:
    """Run a server with a fault in its script for as long as it takes to store one object."""
    with FaultServer(home, Behaviour(signatures=False)) as server:
        server.inject(Operation.PUT, fault, times=times)
        wire = http.client.HTTPConnection(urlsplit(server.address.endpoint).netloc, timeout=20)
        put(wire)
        wire.close()


@pytest.mark.parametrize(
    ("fault", "received", "stored"),
    [
        (Reset(Stage.BODY), 0, False),
        (Reset(Stage.BODY, 100_000), 100_000, False),
        (Reset(Stage.RECEIVED), len(BODY), False),
        (faults.LOST_ANSWER, len(BODY), True),
    ],
)
def test_a_reset_is_an_rst_at_that_byte(
    server: FaultServer, wire: http.client.HTTPConnection, fault: Fault, received: int, stored: bool
) -> None:
    """The server reads so many bytes, the client gets an RST; the object is there if the answer alone was lost."""
    server.inject(Operation.PUT, fault)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        put(wire)
    server.journal.wait(lambda: server.journal.requests()[0].ended)
    seen = server.journal.requests(Operation.PUT)[0]
    assert (seen.received_bytes, seen.status, "key" in server.objects) == (received, 0, stored)


def test_a_closed_connection_ends_without_an_answer(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """The client reads the end of the stream where the answer was to begin."""
    server.inject(Operation.PUT, Close())
    with pytest.raises(http.client.RemoteDisconnected):
        put(wire)
    assert server.objects == {}


def test_a_cut_off_answer_ends_within_its_body(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """The client gets headers that promise all, and so many bytes of the body."""
    put(wire)
    server.inject(Operation.GET, Close(Stage.ANSWER, 1000))
    wire.request("GET", OBJECT)
    with pytest.raises(http.client.IncompleteRead) as caught:
        wire.getresponse().read()
    assert caught.value.partial == BODY[:1000]


@pytest.mark.parametrize("stage", [Stage.BODY, Stage.RECEIVED, Stage.APPLIED])
def test_silence_is_no_answer_on_an_open_connection(
    server: FaultServer, wire: http.client.HTTPConnection, stage: Stage
) -> None:
    """Nothing comes, and the connection stays."""
    server.inject(Operation.PUT, Silence(stage))
    wire.timeout = 0.5
    with pytest.raises(TimeoutError):
        put(wire)
    assert ("key" in server.objects) == (stage is Stage.APPLIED)


def test_garbage_is_not_http(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """What comes in place of an answer has no status line."""
    server.inject(Operation.PUT, Garbage())
    with pytest.raises(http.client.BadStatusLine):
        put(wire)


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        (faults.slow_down(), 503, "SlowDown", None),
        (faults.slow_down("7"), 503, "SlowDown", "7"),
        (faults.TOO_MANY_REQUESTS, 429, "TooManyRequests", None),
        (faults.INTERNAL_ERROR, 500, "InternalError", None),
        (faults.expired_token(), 400, "ExpiredToken", None),
        (faults.expired_token(403), 403, "ExpiredToken", None),
        (faults.ACCESS_DENIED, 403, "AccessDenied", None),
        (faults.NO_SUCH_BUCKET, 404, "NoSuchBucket", None),
        (faults.NO_SUCH_UPLOAD, 404, "NoSuchUpload", None),
        (faults.CONFLICT, 409, "ConditionalRequestConflict", None),
        (faults.ERROR_INSIDE_200, 200, "InternalError", None),
    ],
)
def test_a_refusal_has_its_status_and_code(
    server: FaultServer,
    wire: http.client.HTTPConnection,
    fault: Refuse,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    """The answer is an error document with that code, nothing is stored, and the next request is answered as ever."""
    server.inject(Operation.PUT, fault)
    wire.request("PUT", OBJECT, BODY)
    answer = wire.getresponse()
    assert (answer.status, answer.headers["retry-after"]) == (status, retry_after)
    assert f"<Error><Code>{code}</Code>".encode() in answer.read()
    assert server.objects == {}
    assert put(wire) == (200, b"")


def test_a_refusal_may_come_before_the_body(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """A request can be refused after so many bytes of its body, as S3 does with expired credentials."""
    server.inject(Operation.PUT, Refuse(Stage.BODY, 1000, status=403, code="AccessDenied"))
    assert put(wire)[0] == 403
    assert server.journal.requests(Operation.PUT)[0].received_bytes == 1000


def test_slow_is_that_slow(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """A body, and an answer, take the time that their speed says, at least."""
    server.inject(None, Slow(4 << 20), times=2)
    began = time.monotonic()
    put(wire)
    assert time.monotonic() - began >= 0.25
    began = time.monotonic()
    wire.request("GET", OBJECT)
    assert wire.getresponse().read() == BODY
    assert time.monotonic() - began >= 0.25


def test_a_delay_ends(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """After a delay all goes on as if nothing had been."""
    server.inject(Operation.PUT, Delay(Stage.APPLIED, seconds=0.1))
    began = time.monotonic()
    assert put(wire) == (200, b"")
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    ("fault", "stored"),
    [
        (FlipBit(300_000), BODY[:300_000] + bytes([BODY[300_000] ^ 1]) + BODY[300_001:]),
        (KeepShort(1000), BODY[:1000]),
    ],
)
def test_a_store_that_verifies_nothing_keeps_what_it_got(
    server: FaultServer, wire: http.client.HTTPConnection, fault: Fault, stored: bytes
) -> None:
    """Damage on the way is stored without a word by a store that verifies nothing, and refused by one that does."""
    digest = {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    wire.request("PUT", OBJECT, b"", digest)
    assert wire.getresponse().read() == b""
    server.inject(Operation.PUT, fault, times=2)
    wire.request("PUT", OBJECT, BODY, {"x-amz-checksum-crc32": "AAAAAA=="})
    assert wire.getresponse().read().count(b"BadDigest") == 1
    server.behaviour = Behaviour(signatures=False, verifies=frozenset[Verified]())
    wire.request("PUT", OBJECT, BODY, {"x-amz-checksum-crc32": "AAAAAA=="})
    assert wire.getresponse().read() == b""
    assert server.content("key") == stored


def test_answers_can_lie(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """The etag, the checksum and the XML of an answer can be others than the true ones."""
    server.inject(Operation.PUT, WrongEtag("other"), WrongChecksum())
    wire.request("PUT", OBJECT, BODY)
    answer = wire.getresponse()
    answer.read()
    assert answer.headers["etag"] == '"other"'
    assert answer.headers["x-amz-checksum-crc64nvme"] == "AAAAAAAAAAA="
    server.inject(Operation.LIST, MalformedXml())
    wire.request("GET", "/bucket?list-type=2")
    assert b"</ListBucketResult>" not in wire.getresponse().read()


def test_what_never_happened_fails_the_test(tmp_path: Path) -> None:
    """Leaving a server whose script has a fault left, or one that was never reached, is an AssertionError."""
    with pytest.raises(AssertionError, match="happened 1 of 2 times"):
        put_once(tmp_path, faults.INTERNAL_ERROR, times=2)
    with pytest.raises(AssertionError, match="happened 0 of 1 times"):
        put_once(tmp_path, Reset(Stage.BODY, len(BODY) + 1), times=1)


def test_faults_meet_those_they_are_meant_for(server: FaultServer, wire: http.client.HTTPConnection) -> None:
    """A fault for one part, or one key, leaves all others alone."""
    server.inject(Operation.PUT, faults.ACCESS_DENIED, key="other")
    assert put(wire)[0] == 200
    wire.request("PUT", "/bucket/other", BODY)
    answer = wire.getresponse()
    assert (answer.status, b"AccessDenied" in answer.read()) == (403, True)


def test_an_upload_the_client_broke_off_leaves_nothing(server: FaultServer) -> None:
    """A client that goes away in the midst of a body leaves no object."""
    address = urlsplit(server.address.endpoint)
    with socket.create_connection((address.hostname, address.port)) as bare:
        bare.sendall(f"PUT {OBJECT} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 1000\r\n\r\nhalf".encode())
        server.journal.wait(lambda: any(seen.received_bytes for seen in server.journal.requests()))
    server.journal.wait(lambda: server.journal.requests()[0].ended)
    assert server.objects == {}
