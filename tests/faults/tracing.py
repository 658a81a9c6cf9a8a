"""Kill, fail or slow down a daemon at an exact system call, through strace(1)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.daemon import DaemonProcess

missing = shutil.which("strace") is None
if missing and os.environ.get("CI") and os.geteuid() == 0:
    raise RuntimeError("strace is missing, and so are the tests at exact system calls: apt-get install strace")
needs_strace = pytest.mark.skipif(missing, reason="STRACE IS MISSING: nothing is tested at exact system calls")


@contextmanager
def injected(daemon: DaemonProcess, *injections: str) -> Iterator[None]:
    """Do as the injections (strace's `-e inject=`) say to the running daemon, for as long as the block runs."""
    assert daemon.process is not None
    options = [option for injection in injections for option in ("-e", f"inject={injection}")]
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", os.devnull, *options, "-p", str(daemon.process.pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        for line in tracer.stderr:
            if "attached" in line:
                break
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def traced(*injections: str) -> tuple[str, ...]:
    """Return a prefix that starts a daemon with the injections; it is the daemon's own process all the same."""
    options = [option for injection in injections for option in ("-e", f"inject={injection}")]
    return ("strace", "-D", "-f", "-o", os.devnull, *options)
