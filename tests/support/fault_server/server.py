"""An S3 server for tests: true to the protocol until its script says otherwise.

It runs in a thread of its own, on a port of its own, and keeps its objects when it is stopped and started again. A
test may look at these while it runs: `journal` (each request), `objects` and `uploads` (what is stored). Leaving it
as a context manager asserts that every fault of the script happened.
"""

import asyncio
import secrets
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web

from support.fault_server import answers
from support.fault_server import bucket as shelf
from support.fault_server.altering import altered
from support.fault_server.answers import Answer
from support.fault_server.behaviour import Behaviour
from support.fault_server.bucket import Bucket, Object, Upload
from support.fault_server.calls import Call, Operation, understood
from support.fault_server.errors import S3Error
from support.fault_server.exchange import Broken, Exchange, reset
from support.fault_server.faults import Fault
from support.fault_server.journal import Journal
from support.fault_server.script import Fate, Line, Script
from support.fault_server.service import Service
from support.fault_server.signature import Keys
from support.ports import reserved
from support.servers.address import Address

REGION = "eu-test-1"
BUCKET = "bucket"
_STOP_SECONDS = 10.0
# Small, so that a client feels at once how fast the server reads, and where it stopped.
_RECEIVE_BUFFER_BYTES = 256 << 10
_SHUTDOWN_SECONDS = 0.01


class FaultServer:
    """The server; `home` is where the bytes lie, `host` the address that it listens on."""

    def __init__(self, home: Path, behaviour: Behaviour | None = None, host: str = "127.0.0.1") -> None:
        self.script = Script()
        self.journal = Journal()
        self._service = Service(home, REGION)
        self._service.behaviour = behaviour or Behaviour()
        self._service.buckets[BUCKET] = Bucket()
        self._reservation = reserved(host)
        self._failures: list[Exception] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.keys = self.add_keys()

    @property
    def address(self) -> Address:
        """Where it is and who may use it."""
        host, port = self._reservation.getsockname()
        return Address(
            endpoint=f"http://{host}:{port}",
            region=REGION,
            bucket=BUCKET,
            access_key=self.keys.access_key,
            secret_key=self.keys.secret_key,
            session_token=self.keys.session_token,
        )

    @property
    def behaviour(self) -> Behaviour:
        """Which store it plays; may be set at any time."""
        return self._service.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._service.behaviour = behaviour

    def add_keys(self, session_token: str = "") -> Keys:
        """Make credentials that the server takes from now on, and return them."""
        keys = Keys(f"TEST{secrets.token_hex(8).upper()}", secrets.token_urlsafe(24), session_token)
        self._service.keys[keys.access_key] = keys
        return keys

    def revoke(self, keys: Keys) -> None:
        """Take these credentials no more."""
        del self._service.keys[keys.access_key]

    def inject(
        self,
        operation: Operation | None,
        *faults: Fault,
        part: int | None = None,
        key: str | None = None,
        times: int = 1,
    ) -> None:
        """Let these faults happen to the next `times` requests of an operation (None: any), of a part, of a key."""
        self.script.add(Line(operation, faults, part, key, times))

    @property
    def objects(self) -> dict[str, Object]:
        """What is stored now, by key."""
        return dict(self._service.buckets[BUCKET].objects)

    @property
    def uploads(self) -> list[Upload]:
        """The uploads that were begun and neither completed nor aborted."""
        return list(self._service.buckets[BUCKET].uploads.values())

    def content(self, key: str) -> bytes:
        """Return the bytes of an object."""
        return b"".join(shelf.read(self.objects[key].pieces))

    def start(self) -> Self:
        """Listen, and return when it does; after `stop` on the same port."""
        listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening)), daemon=True)
        self._thread.start()
        if not listening.wait(_STOP_SECONDS):
            raise RuntimeError("the fault server did not start")
        return self

    def stop(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._thread is None:
            return
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_SECONDS)
        assert not self._thread.is_alive(), "the fault server did not stop"
        self._thread = None

    def close(self) -> None:
        """Stop for good; raises what went wrong in the server itself."""
        self.stop()
        self._reservation.close()
        if self._failures:
            raise ExceptionGroup("the fault server failed", self._failures)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.script.assert_hit()

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = web.Server(self._handle, access_log=None, auto_decompress=False)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            sock.bind(self._reservation.getsockname())
            listener = await self._loop.create_server(server, sock=sock)
            listening.set()
            await self._stopping.wait()
            listener.close()
            for connection in server.connections:
                if connection.transport is not None:
                    reset(connection.transport)
            await server.shutdown(_SHUTDOWN_SECONDS)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = understood(request.method, request.raw_path, request.headers)
        fate = self.script.take(call)
        seen = self.journal.begin(call, fate.faults)
        exchange = Exchange(request, fate, seen, self.journal)
        try:
            return await exchange.answer(await self._answer(exchange, call, fate))
        except Broken:
            return web.Response()  # aiohttp wants one, and finds nobody to send it to
        except Exception as error:
            self._failures.append(error)
            raise
        finally:
            self.journal.end(seen)

    async def _answer(self, exchange: Exchange, call: Call, fate: Fate) -> Answer:
        common = self._service.common_headers()
        try:
            answer = altered(await self._service.answer(exchange, call), fate)
        except S3Error as error:
            answer = answers.error(error, common["x-amz-request-id"])
        return msgspec.structs.replace(answer, headers=answer.headers | common)
