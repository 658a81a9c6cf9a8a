"""Frames on the Unix socket: four bytes of length, big-endian, then that many bytes of msgpack.

Bounded on purpose: a frame larger than `FRAME_MAX_BYTES` is garbage or an attack, and the connection ends.
This module knows nothing of what the frames mean.
"""

import socket
import struct

from dropoff.errors import ProtocolError

FRAME_MAX_BYTES = 1 << 20
_LENGTH = struct.Struct("!I")


def frame(body: bytes) -> bytes:
    """Return `body` with its length before it; raises ProtocolError if it is over the bound."""
    if len(body) > FRAME_MAX_BYTES:
        raise ProtocolError(
            f"unable to send a message of {len(body)} bytes: the limit is {FRAME_MAX_BYTES}",
            hint="move large metadata into a file and save that",
        )
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Cuts a stream of bytes into frames; holds at most one unfinished frame and what one read gave."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take `data` and return the frames it completes; raises ProtocolError on an impossible length."""
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > FRAME_MAX_BYTES:
                raise ProtocolError(f"unable to read a frame of {length} bytes: the limit is {FRAME_MAX_BYTES}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + _LENGTH.size : end]))
            start = end
        if start:
            del self._buffer[:start]
        return frames


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return the process id and user id at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
