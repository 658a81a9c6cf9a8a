"""Read leases (fcntl(2), F_SETLEASE): while one is held, whoever opens the file for writing waits in the kernel.

Learnt by trying: the lease belongs to the open file description, so it is taken on one that nobody else has a
copy of. It is refused while anybody has the file open for writing. The kernel breaks it by force after
/proc/sys/fs/lease-break-time. The signal says only that some lease is being broken; which, each tells itself.
"""

import errno
import fcntl
import os
import signal

# A real-time signal, because those queue; one with no meaning in libc or the language's runtime.
BREAK_SIGNAL = signal.SIGRTMIN + 5
# What the kernel sends instead when its queue of real-time signals is full.
OVERFLOW_SIGNAL = signal.SIGIO

_REFUSED = frozenset({errno.EAGAIN, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK})


def reopen(fd: int) -> int | None:
    """Return a description of one's own of the file behind `fd`, even a deleted one; None if not permitted."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def take(fd: int) -> bool:
    """Take a read lease on `fd`, which nobody else has a copy of; False where it is refused."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, BREAK_SIGNAL)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        # The signal is for the process: one to a thread that has ended would be lost.
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    except OSError as error:
        if error.errno in _REFUSED:
            return False
        raise
    return True


def intact(fd: int) -> bool:
    """Tell whether the lease on `fd` is held and nobody waits for it."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def held(fd: int) -> bool:
    """Tell whether the lease on `fd` is held, also when somebody waits for it: so nobody has written.

    While it is being broken F_GETLEASE says what it says of one that is gone; /proc/locks knows the difference.
    """
    if intact(fd):
        return True
    pid = str(os.getpid())
    inode = f":{os.fstat(fd).st_ino}"
    with open("/proc/locks", encoding="ascii") as lines:
        fields = [line.split() for line in lines]
    return any(f[1:3] == ["LEASE", "BREAKING"] and f[4] == pid and f[5].endswith(inode) for f in fields)


def release(fd: int) -> None:
    """Give the lease on `fd` back; who waited for it goes on."""
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
