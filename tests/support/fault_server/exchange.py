"""One request and its answer on the wire, with the faults that the script has for it.

The only place that touches the connection. Breaking it is `Broken`: nobody may answer after that.
"""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import aiohttp
from aiohttp import web

from support.fault_server import bucket
from support.fault_server.answers import Answer
from support.fault_server.errors import S3Error
from support.fault_server.faults import (
    Close,
    Delay,
    FlipBit,
    Garbage,
    KeepShort,
    Refuse,
    Reset,
    Silence,
    Slow,
    Stage,
    Staged,
)
from support.fault_server.journal import Journal, Seen
from support.fault_server.script import Fate

# Closing with a linger time of nothing discards what is unsent and sends an RST.
_NO_LINGER = struct.pack("ii", 1, 0)
_SLOW_TURNS_PER_SECOND = 20


class Broken(Exception):  # noqa: N818  # it is no error of this program
    """The connection is gone: by the script's will, or the client's."""


class Exchange:
    """A request that is being answered."""

    def __init__(self, request: web.BaseRequest, fate: Fate, seen: Seen, journal: Journal) -> None:
        self._request = request
        self._fate = fate
        self._seen = seen
        self._journal = journal

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body as the faults let it arrive."""
        if self._request.headers.get("expect", "").lower() == "100-continue":
            await self.reach(Stage.BODY, 0)
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        offset = 0
        async for piece in self._pieces():
            for start, end in self._spans(Stage.BODY, offset, len(piece)):
                await self.reach(Stage.BODY, start)
                self._journal.received(self._seen, end - start)
                if received := self._altered(piece[start - offset : end - offset], start):
                    yield received
            offset += len(piece)
        await self.reach(Stage.BODY, offset)
        await self.reach(Stage.RECEIVED)

    async def _pieces(self) -> AsyncIterator[bytes]:
        began, count = time.monotonic(), 0
        speed = self._speed
        try:
            while not self._request.content.at_eof():
                if speed:
                    piece = await self._request.content.read(max(1, speed // _SLOW_TURNS_PER_SECOND))
                else:
                    piece = await self._request.content.readany()
                count += len(piece)
                if speed:
                    await asyncio.sleep(began + count / speed - time.monotonic())
                if piece:
                    yield piece
        except (ConnectionError, aiohttp.ClientError, web.RequestPayloadError) as error:
            raise Broken("the client went away") from error

    def _spans(self, stage: Stage, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield a piece's start and end, or those of its halves where a fault is to happen between them."""
        points = {fault.after_bytes for fault in self._due(stage)}
        yield from pairwise(
            [offset, *sorted(point for point in points if offset < point < offset + size), offset + size]
        )

    def _altered(self, piece: bytes, start: int) -> bytes:
        if (flip := self._fate.find(FlipBit)) and start <= flip.at_byte < start + len(piece):
            self._fate.happened(flip)
            changed = bytearray(piece)
            changed[flip.at_byte - start] ^= 1
            piece = bytes(changed)
        if (keep := self._fate.find(KeepShort)) and start + len(piece) > keep.size_bytes:
            self._fate.happened(keep)
            piece = piece[: max(0, keep.size_bytes - start)]
        return piece

    async def reach(self, stage: Stage, at_bytes: int = 0) -> None:
        """Let happen what the script has for this moment; raises Broken and S3Error."""
        for fault in self._due(stage):
            if fault.after_bytes == at_bytes or stage in {Stage.RECEIVED, Stage.APPLIED}:
                await self._happen(fault)

    def _due(self, stage: Stage) -> list[Staged]:
        """Return what is to happen at a stage and did not yet."""
        return [fault for fault in self._fate.left(Staged) if fault.stage is stage]

    async def _happen(self, fault: Staged) -> None:
        self._fate.happened(fault)
        match fault:
            case Delay():
                await asyncio.sleep(fault.seconds)
            case Silence():
                await asyncio.get_running_loop().create_future()
            case Refuse():
                headers = {"retry-after": fault.retry_after} if fault.retry_after else {}
                raise S3Error(fault.status, fault.code, fault.message, headers=headers)
            case Garbage():
                self._write(fault.data)
                self._transport.close()
                raise Broken("garbage was sent")
            case Close():
                self._transport.close()
                raise Broken("closed")
            case Reset():
                reset(self._transport)
                raise Broken("reset")
            case _:
                raise AssertionError(f"{fault} has no stage")

    async def answer(self, answer: Answer) -> web.StreamResponse:
        """Send an answer as the faults let it go out."""
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if not self._request.content.is_eof():
            response.force_close()
        bodiless = self._request.method == "HEAD" or answer.status == 204
        response.content_length = 0 if answer.status == 204 else answer.size_bytes
        self._journal.answering(self._seen, answer.status)
        try:
            await response.prepare(self._request)
            if not bodiless:
                await self._send(response, answer)
            await response.write_eof()
        except ConnectionError as error:
            raise Broken("the client went away") from error
        return response

    async def _send(self, response: web.StreamResponse, answer: Answer) -> None:
        pieces = bucket.read(answer.pieces, answer.start, answer.end) if answer.pieces else iter([answer.body])
        began, offset, speed = time.monotonic(), 0, self._speed
        for piece in pieces:
            for start, end in self._spans(Stage.ANSWER, offset, len(piece)):
                await self.reach(Stage.ANSWER, start)
                if speed:
                    await asyncio.sleep(began + end / speed - time.monotonic())
                await response.write(piece[start - offset : end - offset])
            offset += len(piece)
        await self.reach(Stage.ANSWER, offset)

    @property
    def _speed(self) -> int:
        """How many bytes may pass in a second; 0 for any number."""
        if (slow := self._fate.find(Slow)) is None:
            return 0
        self._fate.happened(slow)
        return slow.bytes_per_second

    @property
    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None:
            raise Broken("the client went away")
        return transport

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


def reset(transport: asyncio.WriteTransport) -> None:
    """Reset a connection: its other end gets an RST."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
