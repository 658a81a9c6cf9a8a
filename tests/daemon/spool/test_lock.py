"""One daemon per spool."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dropoffd.errors import Exit, StartError
from dropoffd.spool.lock import SpoolLock


def test_a_second_holder_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    """Who comes second is told who was first, and may come when the first is done."""
    lock = SpoolLock(str(tmp_path))
    with pytest.raises(StartError, match=f"pid {os.getpid()}") as caught:
        SpoolLock(str(tmp_path))
    assert caught.value.exit_code == Exit.RUNNING
    lock.release()
    SpoolLock(str(tmp_path)).release()


_HOLD = """
import sys
from dropoffd.spool.lock import SpoolLock

lock = SpoolLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """A holder that was killed holds nothing, although its file is there."""
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartError, match=f"pid {holder.pid}"):
            SpoolLock(str(tmp_path))
        holder.kill()
        holder.wait()
        SpoolLock(str(tmp_path)).release()


def test_a_shorter_pid_leaves_nothing_of_a_longer(tmp_path: Path) -> None:
    """The file holds the pid of the present holder alone."""
    (tmp_path / "lock").write_text("4194304999\n")
    lock = SpoolLock(str(tmp_path))
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    lock.release()
