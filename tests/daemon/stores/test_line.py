"""Uploads speak HTTP themselves: answers of every form, answers that come early, connections that end."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dropoffd.stores.base import Body, Bytes, UnavailableError, UnreachableError
from dropoffd.stores.http import Http
from dropoffd.stores.line import Incoming, head
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
                if self.read_bodies:
                    await reader.readexactly(int(received.lower().partition(b"content-length: ")[2].split()[0]))
                answer = self.script.pop(0)
                writer.write(answer)
                await writer.drain()
                if not self.read_bodies:
                    await self.over.wait()
                if not answer or b"content-length: 0" not in answer.lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


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
    """Bodies from memory go over one connection, each whole."""
    server.script = [OK] * 3
    for body in (b"content", b"x" * (1 << 20), b""):
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
        server.script = [OK] * 3
        for body in (b"content", Bytes(b"x" * LARGE_BYTES, ""), b"more"):
            assert (await trusting.request("PUT", server.url, {}, body)).status == 200
        assert server.connections == 2  # what goes in pieces is for aiohttp
        with pytest.raises(UnreachableError, match="unable to trust"):
            await wary.request("PUT", server.url, {}, b"content")
        await trusting.aclose()
        await wary.aclose()


class Failing(Bytes):
    """A body that cannot be read to its end."""

    def read_cached(self, buffer: memoryview, offset: int) -> int:
        """Fail from the second piece on."""
        if offset:
            raise OSError("unable to read")
        return super().read_cached(buffer, offset)


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
