"""Ill-behaved callers: bare connections to the daemon's socket that say what no SDK would."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from dropoff.answers import Reply
from dropoff.messages import PROTOCOL, Hello, Welcome, Working, decode_reply, encode
from dropoff.wire import FrameDecoder, frame
from support.daemon import DaemonProcess

ANSWER_SECONDS = 20.0


class Peer:
    """One connection on which any bytes can be sent."""

    def __init__(self, daemon: DaemonProcess, *, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(ANSWER_SECONDS)
        self.socket.connect(os.path.join(daemon.settings.runtime_dir, "daemon.sock"))
        self._decoder = FrameDecoder()
        self._frames: list[bytes] = []
        if greet:
            self.send(frame(encode(Hello(PROTOCOL, "a test"))))
            assert isinstance(self.reply(), Welcome)

    def send(self, data: bytes, descriptors: Iterable[int] = ()) -> None:
        """Send bytes, and descriptors with the first of them."""
        sent = socket.send_fds(self.socket, [data], list(descriptors))
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def ask(self, message: Any, descriptors: Iterable[int] = ()) -> Reply | None:
        """Send anything that msgpack holds, framed, and return the answer; None if the daemon hung up."""
        self.send(frame(msgspec.msgpack.encode(message)), descriptors)
        return self.reply()

    def reply(self) -> Reply | None:
        """Return the next answer, signs of life passed over; None if the daemon hung up."""
        while isinstance(reply := self._next(), Working):
            pass
        return reply

    def _next(self) -> Reply | None:
        while not self._frames:
            try:
                data = self.socket.recv(64 << 10)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return decode_reply(self._frames.pop(0))

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def descriptors_of(daemon: DaemonProcess) -> int:
    """Return how many descriptors the daemon has open."""
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def resident_bytes_of(daemon: DaemonProcess) -> int:
    """Return how much memory the daemon occupies."""
    assert daemon.process is not None
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
