"""Idle I/O priority for one thread (ioprio_set(2)); Python has no door to it."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_SYSCALL = {"x86_64": 251, "aarch64": 30, "riscv64": 30}.get(platform.machine())
_WHO_PROCESS = 1
_IDLE, _NONE = 3 << 13, 0


@contextmanager
def idle_priority() -> Iterator[None]:
    """Let this thread's disk accesses wait for everybody else's."""
    _set(_IDLE)
    try:
        yield
    finally:
        _set(_NONE)


def _set(priority: int) -> None:
    # A hint: where it is not to be had, copying merely competes with others.
    if _SYSCALL is not None:
        ctypes.CDLL(None).syscall(_SYSCALL, _WHO_PROCESS, 0, priority)
