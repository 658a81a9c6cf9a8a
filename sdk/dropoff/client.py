"""The connection to the daemon: one per process, made when first needed, and made again when it breaks.

Blocking sockets and a lock, no thread. After a fork the child drops what it inherited and connects by itself.
A call waits in silence at most the answer deadline; `Working` from the daemon starts that time again. Whoever
gives up closes the connection *first*: the daemon looks, after it froze the content, whether the caller still
waits, and drops what it froze if not. So content captured late is never taken for the content of the call.
"""

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

import msgspec

from dropoff.errors import (
    DamagedError,
    DropoffError,
    NotStoredError,
    ProtocolError,
    RefusedError,
    SpoolFullError,
    UnavailableError,
    UnstableSourceError,
    UsageError,
)
from dropoff.messages import (
    PROTOCOL,
    Code,
    Hello,
    JobRequest,
    Refused,
    Welcome,
    Working,
    decode_reply,
    encode,
)
from dropoff.settings import SOCKET_NAME, Settings
from dropoff.version import VERSION
from dropoff.wire import FrameDecoder, frame, peer

# After the daemon kept silent, saves go straight to the inbox for a while, so that a hung daemon costs one
# deadline and not one per save.
_SILENT_FIRST_SECONDS, _SILENT_MOST_SECONDS = 1.0, 30.0
_RECEIVE_BYTES = 64 << 10

_ERRORS: dict[Code, Callable[..., DropoffError]] = {
    Code.SPOOL_FULL: SpoolFullError,
    Code.UNSTABLE: UnstableSourceError,
    Code.NOT_REGULAR: UsageError,
    Code.UNREADABLE: UsageError,
    Code.STORE: UsageError,
    Code.PROTOCOL: ProtocolError,
    Code.GARBAGE: ProtocolError,
    Code.STOPPING: UnavailableError,
    Code.NOT_STORED: NotStoredError,
    Code.DAMAGED: DamagedError,
}


class Client:
    """Calls the daemon of these settings; safe from several threads, after fork, and in signal handlers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._owner = 0
        self._connection: Connection | None = None
        self._silent_until = 0.0
        self._silent_seconds = _SILENT_FIRST_SECONDS

    def call(self, request: JobRequest, *, fd: int | None = None) -> msgspec.Struct:
        """Return the daemon's answer to `request`, `fd` travelling with it.

        Raises UnavailableError when no daemon answers in time, and what a refusal stands for.
        """
        if self._pid != os.getpid():
            # The parent's connection and lock: neither is ours, and the lock may be held by a thread that
            # does not exist here.
            if self._connection:
                self._connection.close()
            self._reset()
        me = threading.get_ident()
        if self._owner == me:
            raise UnavailableError("unable to ask the daemon from a signal handler that interrupted a call")
        deadline = self._settings.answer_deadline_seconds
        if not self._lock.acquire(timeout=deadline):
            raise UnavailableError("unable to ask the daemon: another thread's call takes long")
        self._owner = me
        try:
            return self._call(request, fd, deadline)
        finally:
            self._owner = 0
            self._lock.release()

    def _call(self, request: JobRequest, fd: int | None, deadline: float) -> msgspec.Struct:
        if time.monotonic() < self._silent_until:
            raise UnavailableError("unable to ask the daemon: it did not answer a moment ago")
        fresh = self._connection is None
        try:
            try:
                return checked(self._connected(deadline).ask(request, fd))
            except ConnectionError:
                # The daemon was restarted since the last call. Asking again is safe: a job has one id.
                self._drop()
                if fresh:
                    raise
                return checked(self._connected(deadline).ask(request, fd))
        except TimeoutError as error:
            self._drop()
            self._silent_until = time.monotonic() + self._silent_seconds
            self._silent_seconds = min(2 * self._silent_seconds, _SILENT_MOST_SECONDS)
            raise UnavailableError(
                f"unable to ask the daemon: no answer within {deadline} s",
                hint="see `dropoff status` and the daemon's log",
            ) from error
        except OSError as error:
            self._drop()
            raise UnavailableError(
                f"unable to reach the daemon: {error.strerror or error}", hint="start it with `dropoff serve`"
            ) from error
        except BaseException as error:
            # Ctrl-C in the middle of an answer, or garbage: the stream is no longer in step.
            if not isinstance(error, DropoffError) or isinstance(error, ProtocolError):
                self._drop()
            raise

    def _connected(self, silence_seconds: float) -> "Connection":
        if self._connection is None:
            self._connection = Connection(self._settings, silence_seconds)
            self._silent_seconds = _SILENT_FIRST_SECONDS
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.hang_up()
            self._connection = None


class Connection:
    """One open conversation with the daemon, whose answers `decode` reads: by itself those about jobs.

    Raises OSError (TimeoutError after silence), UnavailableError, or ProtocolError from every method.
    """

    def __init__(
        self,
        settings: Settings,
        silence_seconds: float,
        decode: Callable[[bytes], msgspec.Struct] = decode_reply,
    ) -> None:
        self._decode = decode
        self._decoder = FrameDecoder()
        self._frames: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Not __del__: in a cycle of garbage the socket could be collected first, and warn that nobody closed it.
        weakref.finalize(self, self._socket.close)
        try:
            self._socket.settimeout(silence_seconds)
            _connect(self._socket, settings.runtime_dir)
            _, uid = peer(self._socket)
            if uid != os.geteuid():
                raise ProtocolError(
                    f"unable to trust the daemon at {settings.runtime_dir}: it runs as user {uid}",
                    hint="set DROPOFF_RUNTIME_DIR to a directory of your own",
                )
            welcome = checked(self.ask(Hello(PROTOCOL, f"dropoff {VERSION}")))
            if not isinstance(welcome, Welcome):
                raise ProtocolError(f"unable to talk to the daemon: it answered hello with {welcome!r}")
        except BaseException:
            self.close()
            raise

    def ask(
        self, request: msgspec.Struct, fd: int | None = None, told: Callable[[Working], None] | None = None
    ) -> msgspec.Struct:
        """Send one request and return its answer, a refusal included; `told` hears meanwhile how far it is."""
        self.send(request, fd)
        return self.receive(told)

    def send(self, request: msgspec.Struct, fd: int | None = None) -> None:
        """Send one request, whose answer is to be received."""
        data = frame(encode(request))
        sent = socket.send_fds(self._socket, [data], [] if fd is None else [fd])
        if sent < len(data):
            self._socket.sendall(memoryview(data)[sent:])

    def receive(self, told: Callable[[Working], None] | None = None) -> msgspec.Struct:
        """Return the answer to the request that was sent before all others, a refusal included."""
        while isinstance(reply := self._next(), Working):
            if told is not None:
                told(reply)
        return reply

    def _next(self) -> msgspec.Struct:
        while not self._frames:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the daemon closed the connection")
            self._frames = self._decoder.feed(data)
        return self._decode(self._frames.pop(0))

    def hang_up(self) -> None:
        """End the conversation for everybody: a forked child has the socket, too, and closing would not tell."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        """Let go of this process's end."""
        self._socket.close()


def checked(reply: msgspec.Struct) -> msgspec.Struct:
    """Return `reply`, or raise what a refusal stands for."""
    if isinstance(reply, Refused):
        raise _ERRORS.get(reply.code, RefusedError)(reply.message, hint=reply.hint)
    return reply


def _connect(sock: socket.socket, runtime_dir: str) -> None:
    # sun_path holds 107 bytes (unix(7)); through the directory's descriptor its own length does not matter.
    directory = os.open(runtime_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
    finally:
        os.close(directory)
