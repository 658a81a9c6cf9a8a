"""Silence on a connection: noticed within seconds, at every stage of a request.

Why at the socket: packets vanish in silence. Nobody arms a timeout while a body is sent, the kernel tries again for a
quarter of an hour, and each try that fails doubles the pause before the next: after an outage of 120 s a transfer
stood still for another 169 s. While we wait for an answer it is the other end that tries again, and its pauses nobody
here can bound. But a keepalive is answered by every end that is there: where none is, we do not wait for the answer.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct

import anyio

from dropoffd.stores.base import StalledError, UnreachableError

STALL_SECONDS = 10.0
ANSWER_SECONDS = 60.0
HINT = "deliveries go on by themselves when it answers; check the network, the endpoint and proxies"
# Two keepalives went unanswered.
_DEAD_SECONDS = 6.0
# Several within the time that counts as silence: one of them may be lost.
_KEEPALIVE_IDLE_SECONDS, _KEEPALIVE_EVERY_SECONDS, _KEEPALIVE_TRIES = 3, 2, 4
_UNACKNOWLEDGED_MOST_MS = 20_000
# Kernel 6.15 can bound the pause between two retransmissions (TCP_RTO_MAX_MS), so that a transfer goes on within a
# second of the network's return; older ones refuse the option. linux/tcp.h; Python has no name for it.
_TCP_RTO_MAX_MS = 44
_RTO_MOST_MS = 1000
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
            return pending, _quiet_seconds(sock)
        except OSError:  # closed meanwhile: whoever waits for it is told by its protocol
            return 0, 0.0


def wary_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """Return a socket for TCP that notices when the other end is gone, and when it is back."""
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MOST_MS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_TRIES)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _RTO_MOST_MS)
    return sock


def is_dead(sock: socket.socket) -> bool:
    """Tell whether the other end of an idle connection has not answered for longer than one that is there would."""
    return _quiet_seconds(sock) >= _DEAD_SECONDS


def _quiet_seconds(sock: socket.socket) -> float:
    """Return for how long the other end has acknowledged nothing, keepalives included."""
    (milliseconds,) = _LAST_ACK.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.size))
    return float(milliseconds) / 1000
