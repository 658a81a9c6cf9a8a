"""HTTP for stores: one request out, one bounded answer in; the only door to aiohttp on this side.

What it promises beyond aiohttp: a body is read in pieces that never block the event loop and held in small
buffers; silence is noticed within seconds, at every stage; connections recover within a second of the network's
return. What goes wrong on the way is BrokenError, or UnreachableError where the next request would meet the same.

An upload has no total time limit: it may take as long as bytes move (`silence.py`).
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
import anyio.to_thread
import msgspec
from aiohttp.connector import AddrInfoType
from yarl import URL

from dropoffd.limits.pace import PIECE_BYTES
from dropoffd.stores import line
from dropoffd.stores.base import Body, BrokenError, CorruptError, Progress, UnavailableError, UnreachableError
from dropoffd.stores.line import Line, Pieces
from dropoffd.stores.reply import Incoming
from dropoffd.stores.silence import ANSWER_SECONDS, HINT, Wire, is_dead, wary_socket
from dropoffd.stores.turns import Turns

ANSWER_MOST_BYTES = 64 << 20
_CONNECT_SECONDS = 5.0
# With the name's resolution.
_REACH_SECONDS = 10.0
_LOOK_SECONDS = 1.0
# Short: after a change of the network an idle connection leads nowhere.
_IDLE_SECONDS = 15.0


Judge = Callable[[str], None]


class Answer(msgspec.Struct, frozen=True):
    """What came back; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    into_bytes: int = 0
    """How much of the body was received where the request wanted it, instead of in `data`."""


_wire: ContextVar[Wire] = ContextVar("wire")


class _Connector(aiohttp.TCPConnector):
    """Gives no request an idle connection that leads nowhere, and tells each which one it was given."""

    async def connect(  # its arguments are aiohttp's
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            sock = connection.transport.get_extra_info("socket") if connection.transport else None
            if sock is None or not is_dead(sock):
                _wire.get().transport = connection.transport
                return connection
            connection.close()


class Http:
    """Sends requests to one server; to be made in a thread (certificates are read), connected on first use.

    With `judge`, which raises OSError for an address that must not be used, it connects to whatever server a URL
    names: each address is judged when it is about to be connected to, whatever a name stood for before, and no proxy
    is used, behind which nobody here sees addresses.
    """

    def __init__(self, ca_file: str = "", judge: Judge | None = None) -> None:
        self._judge = judge
        self._trust = ssl.create_default_context(cafile=ca_file or None)
        self._session: aiohttp.ClientSession | None = None
        self._wires: set[Wire] = set()
        self._watchdog: asyncio.Task[None] | None = None
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._idle: dict[str, list[tuple[float, Line]]] = {}
        self._turns = Turns()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(
                    limit=0, ssl=self._trust, socket_factory=self._socket, keepalive_timeout=_IDLE_SECONDS
                ),
                # The watchdog takes the place of a total limit.
                timeout=aiohttp.ClientTimeout(total=None, connect=_REACH_SECONDS, sock_connect=_CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._watchdog = asyncio.create_task(self._watch())
        return self._session

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for wire in list(self._wires):
                wire.look(time.monotonic())
            for lines in self._idle.values():
                while lines and not _fresh(*lines[0]):
                    lines.pop(0)[1].close()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | bytes = b"",
        progress: Progress | None = None,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        into: memoryview | None = None,
    ) -> Answer:
        """Send one request and return its answer, whatever its status.

        `url` is sent as it is. Once all is sent the server may keep silent for `answer_seconds`. `into` takes the
        body of an answer that is part of an object.
        """
        with anyio.CancelScope() as scope:
            wire = Wire(_shown(url), scope, answer_seconds)
            _wire.set(wire)
            self._wires.add(wire)
            try:
                return await self._send(method, url, headers, body, progress, wire, into)
            except aiohttp.ClientConnectorCertificateError as error:
                found = error.certificate_error
                cause = found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else str(found)
                raise UnreachableError(
                    f"unable to trust {_shown(url)}: {cause}",
                    hint="set AWS_CA_BUNDLE to the file of the authority that signed its certificate",
                ) from error
            except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
                raise UnreachableError(f"unable to reach {_shown(url)}: {error}", hint=HINT) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if wire.failure is not None:  # the body's own, which aiohttp wraps
                    raise wire.failure from None
                cause = str(error) or type(error).__name__
                raise BrokenError(f"unable to use {_shown(url)}: {cause}", hint=HINT) from error
            finally:
                self._wires.discard(wire)
        assert wire.silence is not None, "nobody else cancels the scope"  # noqa: S101  # a programming error
        raise wire.silence

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | bytes,
        progress: Progress | None,
        wire: Wire,
        into: memoryview | None,
    ) -> Answer:
        size = len(body) if isinstance(body, bytes) else body.size_bytes
        sent = {**headers, "content-length": str(size)} if size or method in {"PUT", "POST"} else headers
        wire.handed_bytes = size if isinstance(body, bytes) else 0
        target = URL(url, encoded=True)
        proxy = self._proxy(target.scheme, target.host or "")
        if proxy is None and (method == "PUT" or into is not None):
            return await self._directly(method, target, sent, body, progress, wire, into)
        if isinstance(body, bytes):
            data: bytes | Pieces | None = body or None
        else:
            # While a piece's end is still on its way to the kernel aiohttp asks for the next.
            buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(2)]
            data = _pieces(body, progress, wire, self._turns, buffers)
        async with self._opened().request(
            method,
            target,
            proxy=proxy,
            headers=sent,
            data=data,
            allow_redirects=False,
            skip_auto_headers=("content-type", "accept-encoding", "accept"),
        ) as response:
            # Some servers answer a range with all of the object, and rclone a range with 200.
            partial = response.status == 206 or "content-range" in response.headers
            filled, received = 0, b""
            if into is not None and partial:
                filled = await _fill(response, into, wire)
            else:
                received = await _bounded(response, wire)
        if progress and isinstance(body, bytes) and response.ok:
            progress(size)
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, received, filled)

    async def _directly(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: Body | bytes,
        progress: Progress | None,
        wire: Wire,
        into: memoryview | None,
    ) -> Answer:
        """Send or receive content without aiohttp's machinery."""
        head = line.head(method, url.raw_path_qs, {"user-agent": aiohttp.http.SERVER_SOFTWARE, **headers})
        idle = self._idle.setdefault(f"{url.scheme}://{url.raw_authority}", [])

        def told(size: int) -> None:
            wire.received_bytes = size

        while True:
            known = self._known(idle)
            used = known or await self._connected(url.origin())
            wire.transport = used.transport
            data = body if isinstance(body, bytes) else _pieces(body, progress, wire, self._turns, (used.buffer,))
            answer = Incoming() if into is None else Incoming(ANSWER_MOST_BYTES, into)
            try:
                reply = await used.send(head, data, told, answer)
            except ConnectionError:
                if known is None or wire.received_bytes or wire.failure is not None:
                    raise
                continue  # it was ended while nobody used it
            if used.usable:
                idle.append((time.monotonic(), used))
            if progress and isinstance(body, bytes) and reply.status < 300:
                progress(len(body))
            return Answer(reply.status, reply.headers, reply.data, reply.into_bytes)

    def _known(self, idle: list[tuple[float, Line]]) -> Line | None:
        """Return a connection that nobody uses, if one may still lead somewhere."""
        while idle:
            since, known = idle.pop()
            if _fresh(since, known):
                return known
            known.close()
        return None

    async def _connected(self, origin: URL) -> Line:
        """Return a new connection; the way to the server is aiohttp's to find."""
        session = self._opened()
        request = aiohttp.ClientRequest("PUT", origin, session=session, loop=asyncio.get_running_loop())
        connector = session.connector
        assert connector is not None, "the session is open"  # noqa: S101  # a programming error
        try:  # as aiohttp's own requests do
            async with asyncio.timeout(_REACH_SECONDS):
                connection = await connector.connect(request, [], session.timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {origin}") from error
        transport = connection.transport
        assert transport is not None, "it has just been made"  # noqa: S101  # same
        return Line(transport, connection.close)

    def _proxy(self, scheme: str, host: str) -> str | None:
        """Return the proxy that the environment names, if any.

        aiohttp would read that, and ~/.netrc, in threads at each request, which doubles what a small one costs; and
        what a netrc has for a host would take the place of our signature.
        """
        if self._judge is not None:
            return None
        if (scheme, host) not in self._proxies:
            self._proxies[scheme, host] = None if proxy_bypass(host) else getproxies().get(scheme)
        return self._proxies[scheme, host]

    def _socket(self, address: AddrInfoType) -> socket.socket:
        if self._judge is not None:
            self._judge(str(address[4][0]))
        return wary_socket(*address[:3])

    async def aclose(self) -> None:
        """Close every connection."""
        for lines in self._idle.values():
            while lines:
                lines.pop()[1].close()
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None


def _fresh(idle_since: float, known: Line) -> bool:
    """Tell whether an idle connection may still lead somewhere."""
    sock = known.transport.get_extra_info("socket")
    return known.usable and time.monotonic() - idle_since < _IDLE_SECONDS and (sock is None or not is_dead(sock))


async def _pieces(
    body: Body, progress: Progress | None, wire: Wire, turns: Turns, buffers: Sequence[memoryview]
) -> Pieces:
    """Yield the body's bytes, read into the buffers by turns: where that waits for no disk here, else in a thread."""
    offset = turn = 0
    while offset < body.size_bytes:
        wire.waits_for_us = True
        await turns.take()
        try:
            piece = await _piece(body, buffers[turn], offset)
        except Exception as error:
            wire.failure = error
            raise
        wire.waits_for_us = False
        yield piece
        turn = (turn + 1) % len(buffers)
        offset += len(piece)
        wire.handed_bytes = offset
        if progress:
            progress(len(piece))


async def _piece(body: Body, buffer: memoryview, offset: int) -> memoryview | bytes:
    size = min(len(buffer), body.size_bytes - offset)
    count = body.read_cached(buffer[:size], offset)
    piece = buffer[:count] if count else await anyio.to_thread.run_sync(body.read, size, offset)
    if not piece:
        raise CorruptError(f"unable to send all of the content: it ends after {offset} bytes")
    await body.admit(len(piece))
    return piece


async def _fill(response: aiohttp.ClientResponse, buffer: memoryview, wire: Wire) -> int:
    filled = 0
    async for chunk in response.content.iter_any():
        if filled + len(chunk) > len(buffer):
            raise UnavailableError(f"unable to use {response.url.host}: it sends more than it was asked for")
        buffer[filled : filled + len(chunk)] = chunk
        filled = wire.received_bytes = filled + len(chunk)
    return filled


async def _bounded(response: aiohttp.ClientResponse, wire: Wire) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        wire.received_bytes = len(data)
        if len(data) > ANSWER_MOST_BYTES:
            raise UnavailableError(f"unable to use {response.url.host}: its answer has no end")
    return bytes(data)


def _shown(url: str) -> str:
    return url.partition("?")[0]
