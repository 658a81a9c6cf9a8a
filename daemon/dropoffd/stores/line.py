"""A connection that carries content: an HTTP/1.1 request out, its answer in, and again (RFC 9112).

aiohttp's machinery costs as much as all else that a small upload needs, and copies what is large three times. So it
finds the way to the server (names, addresses, certificates), and from there on this speaks. It knows what uploads and
reads of ranges need and no more: bodies of known length, one request at a time, no redirects.

An answer that comes before all is sent ends the sending. What was not understood to its end, or is out of step, is
never used for another request.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from dropoffd.limits.pace import PIECE_BYTES
from dropoffd.stores.reply import Incoming, Reply

Pieces = AsyncGenerator[memoryview | bytes, None]

# For heads and what is short; of a large body no more than this is copied.
_SCRATCH_BYTES = 16 << 10


class Line(asyncio.BufferedProtocol):
    """A connection that is there; `hang_up` gives back what whoever made it keeps of it."""

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self.transport = transport
        self.usable = True
        """Whether another request may be sent."""
        self._hang_up = hang_up
        self._maker = transport.get_protocol()
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._buffer: memoryview | None = None
        self._answer = Incoming()
        self._in_place = False
        self._reply: asyncio.Future[Reply] | None = None
        self._room: asyncio.Future[None] | None = None
        self._told: Callable[[int], None] = _nobody
        transport.set_protocol(self)
        # Only when nothing is left to write, the bytes of a piece are not needed any more.
        transport.set_write_buffer_limits(high=1, low=0)

    @property
    def buffer(self) -> memoryview:
        """Memory for a piece of a body, used again and again: the kernel clears what is new, page by page."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(PIECE_BYTES))
        return self._buffer

    async def send(
        self, head: bytes, body: bytes | Pieces, told: Callable[[int], None], answer: Incoming | None = None
    ) -> Reply:
        """Send a request and return its answer; `told` hears how many bytes of that have come.

        A piece of the body must stay as it is until the next is asked for. Raises what asking for a piece raises, and
        OSError.
        """
        self.usable = False
        whole = True
        self._answer, self._told = answer or Incoming(), told
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._reply = reply
        try:
            if self.transport.is_closing():
                raise ConnectionResetError("it ended the connection")
            if isinstance(body, bytes):
                self.transport.writelines((head, body))
            else:
                whole = await self._send_pieces(head, body, reply)
            found = await reply
            # What was not sent of a body would be taken from the next request.
            sent = whole and not self.transport.get_write_buffer_size()
            self.usable = sent and not found.last and not self.transport.is_closing()
        finally:
            self._reply, self._told = None, _nobody
            if reply.done() and not reply.cancelled():
                reply.exception()  # whoever was interrupted does not ask
            if not self.usable:
                self.close()
        return found

    async def _send_pieces(self, head: bytes, pieces: Pieces, reply: "asyncio.Future[Reply]") -> bool:
        """Send a body; False if the answer came before all of it was sent."""
        self.transport.write(head)
        async with aclosing(pieces):
            async for piece in pieces:
                # Asked right before: while the piece was read the other end may have gone, or answered.
                if reply.done() or self.transport.is_closing():
                    return False
                self.transport.write(piece)
                if self._room is not None:
                    await self._room
        return True

    def close(self) -> None:
        """End the connection at once, whatever is on its way."""
        self.usable = False
        self.transport.abort()
        self._hang_up()

    def pause_writing(self) -> None:
        """Have the next piece wait."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have it go."""
        self._let_go()
        self._room = None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the protocol's
        """Return where the next bytes are to be received."""
        place = self._answer.place() if self._reply is not None and not self._reply.done() else None
        self._in_place = bool(place)
        return place or self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Take some of an answer."""
        if self._reply is None or self._reply.done():
            self.usable = False  # nobody asked
            return
        try:
            reply = self._answer.placed(nbytes) if self._in_place else self._answer.feed(self._scratch[:nbytes])
        except ValueError as error:
            self._fail(ConnectionError(f"its answer is no HTTP: {error}"))
            return
        self._told(self._answer.received_bytes)
        if reply is not None:
            self._reply.set_result(reply)
            self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end for that of an answer which told no other, or for a failure."""
        self._maker.connection_lost(exc)
        self.usable = False
        if self._reply is not None and not self._reply.done():
            try:
                reply = self._answer.end()
            except ValueError as error:
                exc, reply = ConnectionError(f"its answer is no HTTP: {error}"), None
            if reply is not None:
                self._reply.set_result(reply)
        self._fail(exc or ConnectionResetError("it ended the connection"))

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
        self._let_go()

    def _let_go(self) -> None:
        """Have a sender that waits for room look what happened; what he wrote is still on its way."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return a request's head as it is sent; raises ValueError for a value that would be more than one line."""
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()))
    text = "\r\n".join(lines)
    if text.count("\n") >= len(lines) or text.count("\r") >= len(lines):
        raise ValueError("unable to send a header with a line break in it")
    return f"{text}\r\n\r\n".encode()


def _nobody(_: int) -> None:
    """Hear what nobody wants to know."""
