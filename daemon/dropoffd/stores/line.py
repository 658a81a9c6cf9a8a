"""A connection that takes small bodies: an HTTP/1.1 request out, its answer in, and again (RFC 9112).

aiohttp's machinery costs as much as all else that a small upload needs. So it finds the way to the server (names,
addresses, certificates), and from there on this speaks. It knows what small uploads need and no more: bodies from
memory, one request at a time, short answers, no redirects.

What was not understood to its end, or is out of step, is never used for another request.
"""

import asyncio
import re
from collections.abc import Callable, Mapping

import msgspec

_ANSWER_MOST_BYTES = 1 << 20
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")
# What follows, whatever their heads say: nothing.
_BODILESS = frozenset({204, 304})


class Reply(msgspec.Struct, frozen=True):
    """An answer; names of headers in lower case. `last` if the connection ends with it."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    last: bool


class Line(asyncio.Protocol):
    """A connection that is there; `hang_up` gives back what whoever made it keeps of it."""

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self.transport = transport
        self.usable = True
        """Whether another request may be sent."""
        self._hang_up = hang_up
        self._maker = transport.get_protocol()
        self._answer = Incoming()
        self._reply: asyncio.Future[Reply] | None = None
        self._told: Callable[[int], None] = _nobody
        transport.set_protocol(self)

    async def send(self, head: bytes, body: bytes, told: Callable[[int], None]) -> Reply:
        """Send a request and return its answer; `told` hears how many bytes of that have come. Raises OSError."""
        self.usable = False
        self._answer, self._told = Incoming(), told
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._reply = reply
        try:
            self.transport.writelines((head, body))
            answer = await reply
            # What was not sent of a body would be taken from the next request.
            sent = not self.transport.get_write_buffer_size()
            self.usable = sent and not answer.last and not self.transport.is_closing()
        finally:
            self._reply, self._told = None, _nobody
            if reply.done() and not reply.cancelled():
                reply.exception()  # whoever was interrupted does not ask
            if not self.usable:
                self.close()
        return answer

    def close(self) -> None:
        """End the connection at once, whatever is on its way."""
        self.usable = False
        self.transport.abort()
        self._hang_up()

    def data_received(self, data: bytes) -> None:
        """Take some of an answer."""
        if self._reply is None or self._reply.done():
            self.usable = False  # nobody asked
            return
        try:
            reply = self._answer.feed(data)
        except ValueError as error:
            self._fail(ConnectionError(f"its answer is no HTTP: {error}"))
            return
        self._told(self._answer.received_bytes)
        if reply is not None:
            self._reply.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end for that of an answer which told no other, or for a failure."""
        self._maker.connection_lost(exc)
        self.usable = False
        if self._reply is not None and not self._reply.done() and (reply := self._answer.end()) is not None:
            self._reply.set_result(reply)
        self._fail(exc or ConnectionResetError("it ended the connection"))

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


class Incoming:
    """An answer as it comes in; raises ValueError for what is none."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self._data = bytearray()
        self._head: tuple[int, dict[str, str], bool] | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> Reply | None:
        """Take what came and return the answer once all of it is there."""
        self.received_bytes += len(data)
        if self.received_bytes > _ANSWER_MOST_BYTES:
            raise ValueError("it has no end")
        self._data += data
        while self._head is None:
            if b"\r\n\r\n" not in self._data:
                return None
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            parsed = _parsed(bytes(head))
            if parsed[0] >= 200:  # what comes before is said in passing
                self._head = parsed
        _, headers, _ = self._head
        if "transfer-encoding" in headers:
            return self._reply(all_is_there=self._chunks_end(headers["transfer-encoding"]))
        length = self._length()
        if length is None or len(self._data) < length:
            return None
        self._body, self._data = self._data[:length], self._data[length:]
        return self._reply(all_is_there=True)

    def end(self) -> Reply | None:
        """Return the answer if the connection's end is its own."""
        if self._head is None or "transfer-encoding" in self._head[1] or self._length() is not None:
            return None
        status, headers, _ = self._head
        return Reply(status, headers, bytes(self._data), last=True)

    def _length(self) -> int | None:
        status, headers, _ = self._head or (204, {}, False)
        if status in _BODILESS:
            return 0
        told = headers.get("content-length")
        if told is not None and not (told.isascii() and told.isdecimal()):
            raise ValueError(f"its length is {told!r}")
        return None if told is None else int(told)

    def _chunks_end(self, coding: str) -> bool:
        """Move whole chunks to the body, and tell whether the last one is there (RFC 9112, 7.1)."""
        if coding.lower() != "chunked":
            raise ValueError(f"its coding is {coding!r}")
        while b"\r\n" in self._data:
            line, _, rest = self._data.partition(b"\r\n")
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise ValueError(f"a chunk begins with {bytes(line[:20])!r}")
            size = int(found[1], 16)
            if size == 0:
                _, end, after = (b"\r\n" + rest).partition(b"\r\n\r\n")  # perhaps with fields before it
                self._data = bytearray(after) if end else self._data
                return bool(end)
            if len(rest) < size + 2:
                return False
            self._body += rest[:size]
            self._data = rest[size + 2 :]
        return False

    def _reply(self, *, all_is_there: bool) -> Reply | None:
        if not all_is_there or self._head is None:
            return None
        status, headers, last = self._head
        return Reply(status, headers, bytes(self._body), last=last or bool(self._data))


def head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return a request's head as it is sent; raises ValueError for a value that would be more than one line."""
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()))
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines):
        raise ValueError("unable to send a header with a line break in it")
    return f"{text}\r\n\r\n".encode()


def _parsed(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Return the status and headers of an answer's head, and whether the connection ends with the answer."""
    first, *lines = head.split(b"\r\n")
    found = _STATUS.match(first)
    if found is None:
        raise ValueError(f"it begins with {first[:20]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        if not colon or name != name.strip():
            raise ValueError(f"a header is {name[:20]!r}")
        headers[name.lower()] = value.strip()
    asked = headers.get("connection", "keep-alive" if found[1] == b"1" else "close")
    return int(found[2]), headers, "close" in asked.lower()


def _nobody(_: int) -> None:
    """Hear what nobody wants to know."""
