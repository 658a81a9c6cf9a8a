"""Silence on a connection: noticed within seconds, at every stage of a request.

Why at the socket: packets vanish in silence. Nobody arms a timeout while a body is sent, the kernel tries again for a
quarter of an hour, and each try that fails doubles the pause before the next: after an outage of 120 s a transfer
stood still for another 169 s. While we wait for an answer it is the other end that tries again, and its pauses nobody
here can bound. But a keepalive is answered by every end that is there: where none is, we do not wait for the answer.
"""

import asyncio
import fcntl
import socket
import struct

import anyio

from dropoffd.stores.base import StalledError, UnreachableError

STALL_SECONDS = 10.0
ANSWER_SECONDS = 60.0
HINT = "deliveries go on by themselves when it answers; check the network, the endpoint and proxies"
_SIOCOUTQ = 0x5411  # linux/sockios.h: bytes that the other end has not acknowledged
# linux/tcp.h, struct tcp_info: tcpi_last_ack_recv, in milliseconds.
_LAST_ACK = struct.Struct("56xI")


class Wire:
    """One request on its way: the connection that it was given, how far its body is, and since when nothing moved."""

    def __init__(self, place: str, scope: anyio.CancelScope, answer_seconds: float) -> None:
        self.transport: asyncio.Transport | None = None
        self.handed_bytes = self.received_bytes = 0
        self.waits_for_us = False
        self.silence: UnreachableError | None = None
        self.failure: Exception | None = None
        self._place = place
        self._scope = scope
        self._answer_seconds = answer_seconds
        # A store that puts parts together sends blanks meanwhile, as seldom as it likes.
        self._patient = answer_seconds > ANSWER_SECONDS
        self._last = (-1, -1, -1)
        self._since = 0.0

    def look(self, now: float) -> None:
        """Cancel the request, and keep the reason, if nothing has moved for too long."""
        pending, quiet_seconds = self._of_socket()
        state = (self.handed_bytes, self.received_bytes, pending)
        if quiet_seconds > STALL_SECONDS:
            self._end(UnreachableError, f"nothing came back for {STALL_SECONDS:.0f} s")
        elif state != self._last or self.waits_for_us:
            self._last, self._since = state, now
        elif pending and now - self._since > STALL_SECONDS:
            self._end(StalledError, f"no byte was acknowledged for {STALL_SECONDS:.0f} s")
        elif self.received_bytes and not self._patient and now - self._since > STALL_SECONDS:
            self._end(StalledError, f"no byte came for {STALL_SECONDS:.0f} s")
        elif now - self._since > self._answer_seconds:
            self._end(StalledError, f"no answer within {self._answer_seconds:.0f} s")

    def _end(self, kind: type[UnreachableError], cause: str) -> None:
        self.silence = kind(f"unable to reach {self._place}: {cause}", hint=HINT)
        self._scope.cancel()

    def _of_socket(self) -> tuple[int, float]:
        """Return how many bytes are not acknowledged, and for how long nothing was."""
        sock = self.transport.get_extra_info("socket") if self.transport else None
        if sock is None:
            return 0, 0.0
        try:
            pending = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))[0]
            return pending, quiet_seconds(sock)
        except OSError:  # closed meanwhile: whoever waits for it is told by its protocol
            return 0, 0.0


def quiet_seconds(sock: socket.socket) -> float:
    """Return for how long the other end has acknowledged nothing, keepalives included."""
    (milliseconds,) = _LAST_ACK.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.size))
    return float(milliseconds) / 1000
