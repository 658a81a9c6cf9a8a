"""The Unix listener: who may speak, and what they said, to the handlers.

The socket is 0600 in a 0700 directory, and each peer's user id is checked besides. It is bound under a
temporary name and renamed over the old one, after a look whether somebody live answers there; the directory
is locked meanwhile, so that of daemons that start at once the second finds the first.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import socket

import anyio
import anyio.abc

from dropoff.answers import Reply
from dropoff.errors import DropoffError, ProtocolError
from dropoff.messages import PROTOCOL, Code, Hello, Refused, Wait, Welcome
from dropoff.questions import Curating, Reading, Request
from dropoff.settings import SOCKET_NAME
from dropoff.version import VERSION
from dropoff.wire import peer
from dropoffd.errors import Exit, StartError
from dropoffd.filesystem import private_directory
from dropoffd.intake.connection import Connection
from dropoffd.intake.handlers import Handlers

_log = logging.getLogger(__name__)

CONNECTIONS_MAX = 1024
_BACKLOG = 256
# Well within the SDK's shortest sensible deadline.
_WORKING_SECONDS = 0.02
# Who waits for deliveries waits long; then a sign of life now and then is enough.
_WAITING_SECONDS = 5.0


class Listener:
    """Serves connections on the socket in `runtime_dir`."""

    def __init__(self, runtime_dir: str, handlers: Handlers) -> None:
        self._runtime_dir = runtime_dir
        self._handlers = handlers
        self._socket: socket.socket | None = None
        self._connections = 0
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._connections_most = min(CONNECTIONS_MAX, soft // 4)

    def bind(self) -> None:
        """Take the socket's place; raises StartError if somebody live has it or the directory is not ours."""
        try:
            private_directory(self._runtime_dir)
        except OSError as error:
            raise StartError(
                f"unable to use the runtime directory {self._runtime_dir}: {error.strerror}",
                hint="set DROPOFF_RUNTIME_DIR to a directory of your own with mode 0700",
            ) from error
        # Through the directory's descriptor the path always fits sun_path's 107 bytes (unix(7)).
        directory = os.open(self._runtime_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            _refuse_live(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            new = f"{SOCKET_NAME}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=directory)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            umask = os.umask(0o177)
            try:
                sock.bind(f"/proc/self/fd/{directory}/{new}")
            finally:
                os.umask(umask)
            sock.listen(_BACKLOG)
            os.rename(new, SOCKET_NAME, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
        self._socket = sock

    async def run(self) -> None:
        """Accept and serve, until cancelled."""
        assert self._socket is not None, "bind comes first"  # noqa: S101  # a programming error
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as group:
            while True:
                try:
                    sock, _ = await loop.sock_accept(self._socket)
                except OSError as error:  # out of descriptors: those who wait keep waiting in the backlog
                    _log.warning("accept failed cause=%s", error)
                    await anyio.sleep(0.1)
                    continue
                _, uid = peer(sock)
                if uid != os.geteuid() or self._connections >= self._connections_most:
                    _log.warning("connection refused uid=%d connections=%d", uid, self._connections)
                    sock.close()
                    continue
                sock.setblocking(False)
                group.start_soon(self._serve, sock)

    def close(self) -> None:
        """Let callers find nobody here; the socket's file goes, so that they look no longer."""
        if self._socket is not None:
            # In this order: once closed, it may have made way for another daemon's.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._runtime_dir, SOCKET_NAME))
            self._socket.close()

    async def _serve(self, sock: socket.socket) -> None:
        connection = Connection(sock)
        self._connections += 1
        try:
            if await self._welcome(connection):
                while (request := await connection.receive()) is not None:
                    await self._answer(connection, request)
                    # Not the first: a call that is made again comes first on its new connection, and whether it was
                    # made before only the rows tell, which nobody asks here.
                    connection.at_once = self._at_once
        except ProtocolError as error:
            _log.warning("connection ended cause=%s", error)
            with contextlib.suppress(OSError):
                await connection.send(Refused(Code.GARBAGE, error.message))
        except OSError:
            pass  # the caller is gone, which is its right
        finally:
            self._connections -= 1
            connection.close()

    async def _welcome(self, connection: Connection) -> bool:
        hello = await connection.receive()
        if hello is None:
            return False
        if not isinstance(hello, Hello):
            await connection.send(Refused(Code.PROTOCOL, "unable to serve a connection that did not say hello"))
            return False
        if hello.protocol > PROTOCOL:
            await connection.send(
                Refused(
                    Code.PROTOCOL,
                    f"unable to serve {hello.client}: it speaks protocol {hello.protocol}, this daemon {PROTOCOL}",
                    "upgrade the daemon: pip install -U 'dropoff[daemon]', then restart it",
                )
            )
            return False
        await connection.send(Welcome(PROTOCOL, f"dropoffd {VERSION}", os.getpid()))
        return True

    async def _answer(self, connection: Connection, request: Request) -> None:
        with _signs_of_life(connection, patient=isinstance(request, Wait | Reading | Curating)):
            try:
                reply = await self._handlers.handle(request, connection)
            except DropoffError as error:
                reply = Refused(Code.NOT_ALLOWED, error.message, error.hint)
            except Exception as error:  # noqa: BLE001  # a bug must cost one answer, and neither the daemon nor its trace
                reply = _bug(error)
        if reply is not None:
            await connection.send(reply)

    def _at_once(self, request: Request, connection: Connection) -> Reply | None:
        try:
            return self._handlers.at_once(request, connection)
        except Exception as error:  # noqa: BLE001  # as above
            return _bug(error)


def _bug(error: Exception) -> Refused:
    _log.exception("request failed in a way nobody foresaw")
    return Refused(
        Code.FAILED,
        f"unable to serve the request: {type(error).__name__}: {error}",
        "this is a bug; its trace is in the daemon's log",
    )


class _signs_of_life:  # noqa: N801  # used as a function
    """Send `Working` now and then for as long as the block runs."""

    def __init__(self, connection: Connection, *, patient: bool) -> None:
        self._connection = connection
        self._most = _WAITING_SECONDS if patient else _WORKING_SECONDS
        self._pause = _WORKING_SECONDS
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._beat)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        self._connection.send_working()
        self._pause = min(2 * self._pause, self._most)
        self._timer = self._loop.call_later(self._pause, self._beat)


def _refuse_live(path: str) -> None:
    """Raise StartError if somebody accepts connections at `path`; a socket nobody listens on is stale."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pid = 0  # alive, with a full backlog
        else:
            pid, _ = peer(probe)
    raise StartError(
        f"unable to start: a daemon already answers on this socket (pid {pid or 'unknown'})",
        hint="stop it, or set another DROPOFF_RUNTIME_DIR",
        exit_code=Exit.RUNNING,
    )
