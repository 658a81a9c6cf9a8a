"""The guard: a small process that keeps leases alive when the daemon is killed.

A lease dies with the last copy of its open file description. So the guard, forked before anything else of the
daemon is there, is handed a copy of each leased description. While the daemon lives the guard sleeps. When the
daemon is killed, the guard hears the end of their socket and takes the daemon's part: whoever opens such a file
for writing waits until the guard has copied it, under the name where the next daemon looks for it. That daemon,
once it has leases of its own, sends the guard home.

Without it, a daemon's death would leave acknowledged content to whoever overwrites it first.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket

from dropoff.content import copy, stamp
from dropoffd.capture import lease

_log = logging.getLogger(__name__)

# Ends the name of a copy that a guard has not finished.
COPYING = ".guard"
_PREFIX = "guard-"
_MESSAGE_BYTES = 8192
# What the guard is told waits in the socket, descriptors and all, until it is woken: a wake-up costs the caller of a
# save more than the message. The socket has room for some hundred.
_TOLD_MOST = 64
_ROOM_MILLISECONDS = 1000
# Only a guard without a daemon wakes up by itself, to see whether its state directory is still there.
_LOOK_SECONDS = 60.0
_HANDED_OVER = signal.SIGUSR1
_SIGNALS = frozenset({lease.BREAK_SIGNAL, lease.OVERFLOW_SIGNAL, _HANDED_OVER, signal.SIGTERM})


class Guard:
    """The daemon's end: tells the guard what to hold."""

    def __init__(self, state_dir: str) -> None:
        """Fork the guard; only before there are threads, an event loop or a lock."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heard, bell = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            os.close(bell)
            _live(theirs, heard, state_dir)
        theirs.close()
        os.close(heard)
        ours.setblocking(False)
        os.set_blocking(bell, False)
        self._socket = ours
        self._bell = bell
        self._told = 0
        self._gone = False

    def hold(self, name: str, fd: int, size: int, path: str) -> None:
        """Keep the lease of `fd` alive; should it come to that, copy its `size` bytes to `path`."""
        self._tell(f"hold\0{name}\0{size}\0{path}", [fd])
        if self._told >= _TOLD_MOST:
            self._wake()

    def drop(self, name: str) -> None:
        """Let go of what was held under `name`, at once: its blocks are free only then."""
        self._tell(f"drop\0{name}", [])
        self._wake()

    def close(self) -> None:
        """Leave the guard alone with what it still holds; with nothing, it ends."""
        self._socket.close()
        os.close(self._bell)

    def _wake(self) -> None:
        self._told = 0
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # it has not heard the last ring yet, or is gone
            os.write(self._bell, b"!")

    def _tell(self, message: str, descriptors: list[int]) -> None:
        if self._gone:
            return
        try:
            self._send(os.fsencode(message), descriptors)
        except OSError as error:
            # Still leased, by the daemon alone: what is lost is only the protection against its own death.
            self._gone = True
            _log.error("guard gone pid=%d cause=%s: content is unprotected while no daemon runs", self.pid, error)

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        self._told += 1
        try:
            socket.send_fds(self._socket, [message], descriptors)
        except BlockingIOError:
            self._wake()
            room = select.poll()
            room.register(self._socket, select.POLLOUT)
            room.poll(_ROOM_MILLISECONDS)
            socket.send_fds(self._socket, [message], descriptors)


def send_home(state_dir: str, own: int) -> None:
    """End the guards of earlier daemons, whose content has leases of this daemon's now."""
    for name in os.listdir(state_dir):
        pid = name.removeprefix(_PREFIX)
        if name == pid or not pid.isdigit() or int(pid) == own:
            continue
        path = os.path.join(state_dir, name)
        with contextlib.suppress(OSError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # the guard lives: the lock proves that the pid is still its own
                os.kill(int(pid), _HANDED_OVER)
            os.unlink(path)


class _Held:
    def __init__(self, fd: int, size: int, path: str) -> None:
        self.fd = fd
        self.size = size
        self.path = path

    def copy_and_release(self) -> None:
        """Copy the content and let the waiting writer go on, in this order whatever happens."""
        part = self.path + COPYING
        try:
            target = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                before = stamp(self.fd)
                copy(self.fd, target, self.size)
                if stamp(self.fd) != before:  # the kernel broke the lease by force, and the writer was there
                    return
                with contextlib.suppress(FileExistsError):  # the daemon's own, made before a writer got through
                    os.link(part, self.path)
            finally:
                os.close(target)
        except OSError:
            pass  # no space: the next daemon will see by the stamp that the content was written to
        finally:
            with contextlib.suppress(OSError):
                os.unlink(part)
            self.close()

    def close(self) -> None:
        """Give the lease back."""
        with contextlib.suppress(OSError):
            lease.release(self.fd)
        os.close(self.fd)


def _live(sock: socket.socket, heard: int, state_dir: str) -> None:
    """Be the guard; never returns."""
    code = 1
    try:
        _detach(sock.fileno(), heard)
        path = os.path.join(state_dir, f"{_PREFIX}{os.getpid()}")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = _listen(sock, heard)
        if held:
            _stand_in(held, path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        code = 0
    finally:
        os._exit(code)


def _detach(*kept: int) -> None:
    """Share nothing with the daemon but what is kept: no terminal, no output, no descriptors."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _listen(sock: socket.socket, heard: int) -> dict[str, _Held]:
    """Do as told whenever the bell rings, until the daemon is gone; return what is held then."""
    held: dict[str, _Held] = {}
    sock.setblocking(False)
    while os.read(heard, _MESSAGE_BYTES):
        _do_as_told(sock, held)
    _do_as_told(sock, held)
    return held


def _do_as_told(sock: socket.socket, held: dict[str, _Held]) -> None:
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        if not message:
            return
        word, name, *rest = os.fsdecode(message).split("\0")
        if word == "hold" and descriptors:
            held[name] = _Held(descriptors[0], int(rest[0]), rest[1])
        elif name in held:
            os.close(held.pop(name).fd)  # the daemon has released, or goes on with, the lease itself


def _stand_in(held: dict[str, _Held], path: str) -> None:
    """Answer for the dead daemon, until another one takes over or there is nothing left to hold."""
    for one in held.values():
        fcntl.fcntl(one.fd, fcntl.F_SETOWN, os.getpid())
    relieved = False
    while True:
        # First, also when relieved: for a file that a writer waits for, the next daemon got no lease.
        for name in [name for name, one in held.items() if not lease.intact(one.fd)]:
            held.pop(name).copy_and_release()
        if relieved or not held or not os.path.exists(path):
            return
        found = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS)
        relieved = found is not None and found.si_signo == _HANDED_OVER
        if found is not None and found.si_signo == signal.SIGTERM:  # somebody cleans up: protect all, and go
            for one in held.values():
                one.copy_and_release()
            return
