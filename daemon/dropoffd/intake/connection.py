"""One connection: frames and descriptors in, answers out.

asyncio's transports do not hand out descriptors, so the socket is read directly. Descriptors arrive with the
frame they belong to, in order. Whatever ends the connection, none stays open.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable

from dropoff.answers import Reply
from dropoff.errors import DropoffError
from dropoff.messages import Working, encode
from dropoff.questions import Request, decode_any_request
from dropoff.wire import FrameDecoder, frame

_READ_BYTES = 64 << 10
_DESCRIPTORS_MAX = 4
# Who sends more before it has an answer is not read from until it has some.
_REQUESTS_MAX = 64


class Connection:
    """A connected, non-blocking Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._requests: deque[Request] = deque()
        self._descriptors: deque[int] = deque()
        self._end = select.poll()
        self._end.register(sock, select.POLLRDHUP)
        self._arrival: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._reading = self._paused = self._ended = False
        self.at_once: Callable[[Request, Connection], Reply | None] = lambda *_: None
        """Answers a request that comes while none is served, if that waits for nothing: it saves changes of task."""
        self.done = 0
        """How far the work on the present request is, where that is counted."""

    async def receive(self) -> Request | None:
        """Return the next request, None at the end; raises ProtocolError for garbage and OSError."""
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._socket, self._on_readable)
        while not self._requests:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return None
            self._arrival = self._loop.create_future()
            await self._arrival
        if len(self._requests) == 1 and self._paused and not self._ended:
            self._paused = False
            self._loop.add_reader(self._socket, self._on_readable)
        return self._requests.popleft()

    def _on_readable(self) -> None:
        try:
            self._read()
            self._answer_at_once()
        except (OSError, DropoffError) as error:
            self._failure = error
            self._ended = True
        if self._ended or len(self._requests) > _REQUESTS_MAX:
            self._paused = not self._ended
            self._loop.remove_reader(self._socket)
        if self._arrival is not None and not self._arrival.done() and (self._requests or self._ended):
            self._arrival.set_result(None)

    def _read(self) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self._socket, _READ_BYTES, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        self._descriptors.extend(descriptors)
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > _REQUESTS_MAX:
            raise ConnectionAbortedError("more descriptors than any message has")
        self._ended = not data
        self._requests.extend(decode_any_request(data) for data in self._decoder.feed(data))

    def _answer_at_once(self) -> None:
        waited_for = self._arrival is not None and not self._arrival.done()
        if waited_for and len(self._requests) == 1:
            reply = self.at_once(self._requests[0], self)
            if reply is not None:
                self._requests.popleft()
                fd = self.take_descriptor()
                if fd is not None:
                    os.close(fd)
                self._send_now(reply)

    def descriptor(self) -> int | None:
        """Return the descriptor that came with the request, which stays the connection's; None if none did."""
        return self._descriptors[0] if self._descriptors else None

    def take_descriptor(self) -> int | None:
        """Return the descriptor that came with the request, now the caller's; None if none did."""
        return self._descriptors.popleft() if self._descriptors else None

    def caller_waits(self) -> bool:
        """Tell whether the other end is still there; who gives up closes its end first."""
        return not self._end.poll(0)

    async def send(self, reply: Reply) -> None:
        """Send an answer; raises OSError when nobody is there."""
        data = frame(encode(reply))
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._loop.sock_sendall(self._socket, memoryview(data)[sent:])

    def send_working(self) -> None:
        """Tell the caller that we are at it, if that can be told without waiting."""
        with contextlib.suppress(BlockingIOError):  # it has enough to read
            self._send_now(Working(self.done))

    def _send_now(self, reply: Reply) -> None:
        data = frame(encode(reply))
        with contextlib.suppress(ConnectionError):  # the caller is gone
            if self._socket.send(data) < len(data):
                self._socket.shutdown(socket.SHUT_RDWR)  # half a frame: out of step for good

    def close(self) -> None:
        """End the connection and close what came with it."""
        self._loop.remove_reader(self._socket)
        for fd in self._descriptors:
            os.close(fd)
        self._descriptors.clear()
        self._socket.close()
