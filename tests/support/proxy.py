"""A TCP proxy on loopback that can lose its way: what is left of a broken network where no namespace can be made.

It breaks connections, not packets: the kernel beside it still acknowledges what fits into its buffers.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Self

from support.fault_server.exchange import reset
from support.ports import reserved

_STOP_SECONDS = 10.0
_PIECE_BYTES = 64 << 10
# Small, so that a client feels soon that nothing is passed on.
_RECEIVE_BUFFER_BYTES = 256 << 10


class Proxy:
    """Passes connections on to `target` (host and port), until something is done about it."""

    def __init__(self, target: tuple[str, int], bytes_per_second: int) -> None:
        """Listen; each connection sends no faster than `bytes_per_second`."""
        self._target = target
        self._pause_seconds = _PIECE_BYTES / bytes_per_second
        self._reservation = reserved()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._resets = False
        self._server: asyncio.Server | None = None
        self._do(self._listen())

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._reservation.getsockname()
        return host, port

    def cut(self) -> None:
        """Pass nothing on, in either direction, and close nothing."""
        self._do(self._switch(passing=False))

    def reset(self) -> None:
        """Reset every connection, and each that comes as soon as something is said on it."""
        self._do(self._reset())

    def refuse(self) -> None:
        """Reset every connection and listen no more."""
        self._do(self._refuse())

    def mend(self) -> None:
        """Pass everything on again."""
        self._do(self._mend())

    def close(self) -> None:
        """End it."""
        self._do(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        self._loop.close()
        self._reservation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP_SECONDS)

    async def _listen(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.bind(self.address)
        self._server = await asyncio.start_server(self._accepted, sock=sock)

    async def _switch(self, *, passing: bool) -> None:
        if passing:
            self._passing.set()
        else:
            self._passing.clear()

    async def _reset(self) -> None:
        self._resets = True
        for writer in list(self._writers):
            reset(writer.transport)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _mend(self) -> None:
        self._resets = False
        self._passing.set()
        if self._server is None:
            await self._listen()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._resets:
            # Not before: a reset in answer to nothing may look like a connection that was never made.
            await reader.read(1)
            reset(writer.transport)
            return
        await self._passing.wait()
        theirs, ours = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, ours), (theirs, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._writers.add(sink)
        try:
            while piece := await source.read(_PIECE_BYTES):
                await asyncio.sleep(self._pause_seconds * len(piece) / _PIECE_BYTES)
                await self._passing.wait()
                sink.write(piece)
                await sink.drain()
        except ConnectionError:  # the other pump of the two hears of it, too
            return
        finally:
            self._writers.discard(sink)
            sink.close()
