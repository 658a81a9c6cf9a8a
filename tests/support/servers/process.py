"""A server's process: started, watched until it answers, ended however a test likes."""

import contextlib
import http.client
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
_PAUSE_SECONDS = 0.02


class UnavailableError(Exception):
    """This machine cannot run such a server, for the reason given."""


class Process:
    """One process; `log` is the file of what it said."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start it. It does not outlive the tests, however these end."""
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as the kernel would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self.kill()

    def until_it_answers(self, port: int) -> None:
        """Return when it answers HTTP, whatever it answers; RuntimeError with its log if it does not."""
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the server did not get ready:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(_PAUSE_SECONDS)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def require(*programs: str) -> None:
    """Raise UnavailableError for a program that is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise UnavailableError(f"not installed: {', '.join(missing)}")
