"""Content travels without aiohttp: answers of every form, answers that come early, connections that end."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dropoffd.stores.base import Body, BrokenError, Bytes, UnavailableError, UnreachableError
from dropoffd.stores.http import Http
from dropoffd.stores.line import head
from dropoffd.stores.reply import Incoming, Reply
from dropoffd.stores.turns import PIECES_A_TURN

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LARGE_BYTES = 64 << 20
LARGE = [bytes(LARGE_BYTES), Bytes(bytes(LARGE_BYTES), "")]

ANSWERS: dict[str, tuple[bytes, int, bytes]] = {
    "with a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", 200, b"body"),
    "without a reason": (b"HTTP/1.1 403\r\ncontent-length: 0\r\n\r\n", 403, b""),
    "in chunks": (
        b"HTTP/1.1 500 -\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<Er\r\nA;note\r\nror>sorry<\r\n0\r\n\r\n",
        500,
        b"<Error>sorry<",
    ),
    "in chunks, with fields behind": (
        b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nfield: value\r\n\r\n",
        200,
        b"x",
    ),
    "after others": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 -\r\nsoon: yes\r\n\r\n" + OK, 200, b""),
    "that has no body": (b"HTTP/1.1 204 -\r\netag: x\r\n\r\n", 204, b""),
    "until the end": (b"HTTP/1.0 503 -\r\n\r\nlater", 503, b"later"),
}
GARBAGE = {
    "no HTTP": b"220 mail.invalid ESMTP\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\ncontent-length: +4\r\n\r\nbody",
    "no chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-4\r\nbody\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nbody",
    "no header": b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "no end": b"HTTP/1.1 200 OK\r\nx: " + b"x" * (2 << 20),
    "cut off": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbo",
}


class Server:
    """Reads requests, and answers each as the script says; counts connections."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.read_bodies = True
        self.connections = 0
        self.heads: list[bytes] = []
        self.asked, self.over = asyncio.Event(), asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, until an answer of nothing or one that has no other end."""
        self.connections += 1
        try:
            while self.script:
                received = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(received)
                self.asked.set()
                if self.read_bodies and not received.startswith(b"GET"):
                    await reader.readexactly(int(received.lower().partition(b"content-length: ")[2].split()[0]))
                answer = self.script.pop(0)
                writer.write(answer)
                await writer.drain()
                if not self.read_bodies:
                    await self.over.wait()
                if not answer or not _has_an_end(answer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def _has_an_end(answer: bytes) -> bool:
    return b"content-length: 0" in answer.lower() or answer.startswith(b"HTTP/1.1 206")


def part(body: bytes) -> bytes:
    """Return an answer that is part of an object."""
    return b"HTTP/1.1 206 -\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Return both kinds of event loops: the daemon's, and the one that others are like."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def serving(scheme: str = "http", trust: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a server on a port of its own."""
    running = Server()
    listening = await asyncio.start_server(running.serve, "127.0.0.1", 0, ssl=trust)
    running.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/bucket/key"
    async with listening:
        yield running
        running.over.set()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Return a server."""
    async with serving() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """Return a client."""
    opened = Http()
    yield opened
    await opened.aclose()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a certificate for this machine that nobody signed, and its key."""
    path = tmp_path / "certificate.pem"
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    named = ["-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", *options, *named, "-out", path, "-keyout", path.with_suffix(".key")], check=True
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".key").read_bytes())
    return path


@pytest.mark.parametrize(("raw", "status", "data"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_understood(server: Server, http: Http, raw: bytes, status: int, data: bytes) -> None:
    """An answer of each form has its status and all of its body."""
    server.script = [raw]
    answer = await http.request("PUT", server.url, {}, b"content")
    assert (answer.status, answer.data) == (status, data)


@pytest.mark.parametrize(("raw", "status", "data"), list(ANSWERS.values())[:-1], ids=list(ANSWERS)[:-1])
def test_an_answer_may_come_byte_by_byte(raw: bytes, status: int, data: bytes) -> None:
    """It is there with its last byte and not before."""
    incoming = Incoming()
    replies = [incoming.feed(raw[n : n + 1]) for n in range(len(raw))]
    assert replies[:-1] == [None] * (len(raw) - 1)
    assert replies[-1] is not None
    assert (replies[-1].status, replies[-1].data, replies[-1].last) == (status, data, False)


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_answer_is_none(server: Server, http: Http, raw: bytes) -> None:
    """Whatever comes instead of an answer makes the store unavailable."""
    server.script = [raw]
    with pytest.raises(UnavailableError):
        await http.request("PUT", server.url, {}, b"content")


async def test_a_connection_is_used_again(server: Server, http: Http) -> None:
    """Bodies from memory and in pieces go over one connection, each whole."""
    server.script = [OK] * 3
    for body in (b"content", Bytes(b"x" * (1 << 20), ""), b""):
        assert (await http.request("PUT", server.url, {"x-note": "ours"}, body)).status == 200
    assert server.connections == 1
    assert [b"x-note: ours" in received for received in server.heads] == [True] * 3


@pytest.mark.parametrize(
    "answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK + b"and more", OK.replace(b"1.1", b"1.0")]
)
async def test_a_connection_that_ends_is_not_used_again(server: Server, http: Http, answer: bytes) -> None:
    """After an answer that says so, or with which something came that nobody asked for, another one is made."""
    server.script = [answer, OK]
    for _ in range(2):
        assert (await http.request("PUT", server.url, {}, b"content")).status == 200
    assert server.connections == 2


async def test_a_connection_that_was_ended_meanwhile_is_replaced(server: Server, http: Http) -> None:
    """A server may end an idle connection just when it is used again: the request is sent on another one."""
    server.script = [OK, b"", OK]
    for _ in range(2):
        assert (await http.request("PUT", server.url, {}, b"content")).status == 200
    assert server.connections == 2


async def test_a_new_connection_that_ends_is_told(server: Server, http: Http) -> None:
    """The same on a connection that was just made is trouble, and whoever retries hears of it."""
    server.script = [b"", OK]
    with pytest.raises(UnavailableError, match="ended"):
        await http.request("PUT", server.url, {}, b"content")


@pytest.mark.parametrize("body", LARGE, ids=["whole", "in pieces"])
async def test_an_early_answer_ends_the_sending(server: Server, http: Http, body: Body | bytes) -> None:
    """A server that refuses a body before it has all of it is heard, and the connection is not used again."""
    server.script, server.read_bodies = [b"HTTP/1.1 403 -\r\ncontent-length: 0\r\n\r\n", OK], False
    sent: list[int] = []
    assert (await http.request("PUT", server.url, {}, body, sent.append)).status == 403
    assert sum(sent) < LARGE_BYTES
    assert (await http.request("PUT", server.url, {}, b"")).status == 200
    assert server.connections == 2


class Counting(Bytes):
    """A body that counts how many pieces of it are read between two of the loop's turns that others get."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, "")
        self.in_a_row = self.most_in_a_row = 0

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Count."""
        self.in_a_row += 1
        self.most_in_a_row = max(self.most_in_a_row, self.in_a_row)
        return super().read_cached(buffer, offset)

    async def be_another(self) -> None:
        """Take each turn of the loop."""
        while True:
            self.in_a_row = 0
            await asyncio.sleep(0)


async def test_a_large_body_leaves_the_loop_to_others(server: Server, http: Http) -> None:
    """However much the socket takes, others get their turn after every few pieces."""
    server.script, body = [OK], Counting(bytes(LARGE_BYTES))
    another = asyncio.create_task(body.be_another())
    assert (await http.request("PUT", server.url, {}, body)).status == 200
    another.cancel()
    assert 0 < body.most_in_a_row <= PIECES_A_TURN


async def test_over_tls_it_is_the_same(certificate: Path) -> None:
    """Bodies of any size arrive over a connection whose other end is known, and go nowhere if it is not."""
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate)
    async with serving("https", ours) as server:
        trusting, wary = Http(str(certificate)), Http()
        server.script = [OK] * 4
        for body in (b"content", Bytes(b"x" * LARGE_BYTES, ""), b"more"):
            assert (await trusting.request("PUT", server.url, {}, body)).status == 200
        server.script = [part(b"y" * LARGE_BYTES)]
        buffer = bytearray(LARGE_BYTES)
        answer = await trusting.request("GET", server.url, {}, into=memoryview(buffer))
        assert (answer.into_bytes, bytes(buffer)) == (LARGE_BYTES, b"y" * LARGE_BYTES)
        assert server.connections == 1
        with pytest.raises(UnreachableError, match="unable to trust"):
            await wary.request("PUT", server.url, {}, b"content")
        await trusting.aclose()
        await wary.aclose()


RANGES: dict[str, tuple[bytes, bytes, bytes]] = {
    "with a length": (part(b"0123456789"), b"0123456789", b""),
    "less than asked for": (part(b"012"), b"012", b""),
    "large": (part(bytes(range(256)) * 8192), bytes(range(256)) * 8192, b""),
    "that says so in another way": (
        b"HTTP/1.1 200 OK\r\ncontent-range: bytes 0-2/9\r\ncontent-length: 3\r\n\r\n012", b"012", b"",
    ),
    "in chunks": (b"HTTP/1.1 206 -\r\ntransfer-encoding: chunked\r\n\r\n2\r\n01\r\n1\r\n2\r\n0\r\n\r\n", b"012", b""),
    "until the end": (b"HTTP/1.0 206 -\r\n\r\n012", b"012", b""),
    "of nothing": (b"HTTP/1.1 206 -\r\ncontent-length: 0\r\n\r\n", b"", b""),
    "that is all of an object": (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n012", b"", b"012"),
    "that is none": (b"HTTP/1.1 416 -\r\ncontent-length: 5\r\n\r\nsorry", b"", b"sorry"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "placed", "data"), RANGES.values(), ids=RANGES)
async def test_a_range_is_received_where_it_is_wanted(
    server: Server, http: Http, raw: bytes, placed: bytes, data: bytes
) -> None:
    """What is part of an object lies in the buffer, and nothing behind it is touched; anything else is an answer."""
    server.script = [raw]
    buffer = bytearray(b"-" * (max(10, len(placed)) + 1))
    answer = await http.request("GET", server.url, {}, into=memoryview(buffer)[:-1])
    assert (answer.data, answer.into_bytes) == (data, len(placed))
    assert buffer == placed + b"-" * (len(buffer) - len(placed))


@pytest.mark.parametrize("name", [name for name in RANGES if name not in {"large", "until the end"}])
def test_a_range_may_come_byte_by_byte(name: str) -> None:
    """It is there with its last byte and not before, fed or received in its place."""
    raw, placed, data = RANGES[name]
    buffer = memoryview(bytearray(10))
    incoming, replies = Incoming(into=buffer), list[Reply | None]()
    for byte in raw:
        if place := incoming.place():
            place[0] = byte
            replies.append(incoming.placed(1))
        else:
            replies.append(incoming.feed(bytes([byte])))
    assert replies[:-1] == [None] * (len(raw) - 1)
    assert replies[-1] is not None
    assert (bytes(buffer[: replies[-1].into_bytes]), replies[-1].data) == (placed, data)


@pytest.mark.parametrize(
    "raw",
    [
        part(b"01234567890"),
        b"HTTP/1.0 206 -\r\n\r\n01234567890",
        b"HTTP/1.1 206 -\r\ntransfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
    ],
)
async def test_more_than_was_asked_for_is_no_answer(server: Server, http: Http, raw: bytes) -> None:
    """A server that sends more than the range makes the store unavailable."""
    server.script = [raw]
    with pytest.raises(BrokenError, match="more than was asked for"):
        await http.request("GET", server.url, {}, into=memoryview(bytearray(10)))


async def test_a_range_that_is_given_up_touches_nothing_more(server: Server, http: Http) -> None:
    """Once nobody waits for it a buffer may be used for something else, whatever still comes; so may the client."""
    raw = part(b"x" * LARGE_BYTES)
    server.script, server.read_bodies, buffer = [raw[:1_000_000], OK], False, bytearray(LARGE_BYTES)
    asked = asyncio.create_task(http.request("GET", server.url, {}, into=memoryview(buffer)))
    while not buffer[0]:  # noqa: ASYNC110  # nobody tells when some of it came
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    buffer[:] = bytes(LARGE_BYTES)
    server.over.set()
    assert (await http.request("PUT", server.url, {}, b"content")).status == 200
    assert not any(buffer)


class Failing(Bytes):
    """A body that cannot be read to its end."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fail from the second piece on."""
        if offset:
            raise OSError("unable to read")
        return super().read_cached(buffer, offset)


class Late(Bytes):
    """A body whose second piece comes when the test says so."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data, "")
        self.goes_on = threading.Event()

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Have the first piece alone."""
        return 0 if offset else super().read_cached(buffer, offset)

    def read(self, size: int, offset: int) -> bytes:
        """Return a later one."""
        self.goes_on.wait(60)
        return super().read(size, offset)


async def test_a_connection_that_ends_while_a_piece_is_read_is_broken(server: Server, http: Http) -> None:
    """Nothing is written to what is closed by then: it is the connection's trouble, and no other."""
    server.script, server.read_bodies, body = [b""], False, Late(bytes(1 << 20))
    server.over.set()
    asked = asyncio.create_task(http.request("PUT", server.url, {}, body))
    await server.asked.wait()
    while not all(wire.transport and wire.transport.is_closing() for wire in http._wires):  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # nobody tells when a connection's end was noticed
    body.goes_on.set()
    with pytest.raises(BrokenError, match="unable to use"):
        await asked


async def test_trouble_with_a_body_is_its_own(server: Server, http: Http) -> None:
    """What reading the body raises is raised as it is, and the half of a request is not followed by another."""
    server.script = [OK] * 2
    with pytest.raises(OSError, match="unable to read"):
        await http.request("PUT", server.url, {}, Failing(bytes(1 << 20), ""))
    assert (await http.request("PUT", server.url, {}, b"content")).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("value", ["one\r\ntwo: three", "one\ntwo", "one\rtwo"])
def test_a_header_is_one_line(value: str) -> None:
    """A value with a line break in it, which would be another header, is not sent."""
    with pytest.raises(ValueError, match="line break"):
        head("PUT", "/key", {"x-note": value})


@pytest.mark.parametrize("body", LARGE, ids=["whole", "in pieces"])
async def test_a_request_that_is_given_up_leaves_no_half(server: Server, http: Http, body: Body | bytes) -> None:
    """Whoever is interrupted while a body is on its way leaves a connection that nobody uses again."""
    server.script, server.read_bodies = [b"", OK], False
    stuck = asyncio.create_task(http.request("PUT", server.url, {}, body))
    await server.asked.wait()
    stuck.cancel()
    with pytest.raises((asyncio.CancelledError, UnavailableError)):
        await stuck
    assert (await http.request("PUT", server.url, {}, b"")).status == 200
    assert server.connections == 2
