"""A real daemon in a process of its own, with directories of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import dropoff
from dropoff.settings import Settings, load

READY_SECONDS = 30.0
STOP_SECONDS = 30.0


class DaemonProcess:
    """`dropoff serve` on the directories below `root`; every start is a new process."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root
        self.environment = {
            "DROPOFF_STATE_DIR": str(root / "state"),
            "DROPOFF_RUNTIME_DIR": str(root / "run"),
            "DROPOFF_CACHE_DIR": str(root / "cache"),
            "DROPOFF_STORE": f"file://{root / 'store'}",
            "DROPOFF_SPOOL_FLOOR_BYTES": "0",
            "DROPOFF_ANSWER_DEADLINE_SECONDS": "5",
        } | {f"DROPOFF_{name.upper()}": str(value) for name, value in settings.items()}
        self.process: subprocess.Popen[str] | None = None
        self.log: list[str] = []
        self._reader: threading.Thread | None = None

    @property
    def settings(self) -> Settings:
        """The settings that the daemon runs with, for an SDK in this process."""
        return load(self.environment)

    @property
    def store(self) -> Path:
        """The directory that it delivers to."""
        return self.root / "store"

    def start(self, prefix: tuple[str, ...] = ()) -> "DaemonProcess":
        """Start it and return when it is ready; `prefix` runs it under another program."""
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "dropoffd", "serve"],
            env=self._whole_environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process, ready), daemon=True)
        self._reader.start()
        if not ready.wait(READY_SECONDS) or self.process.poll() is not None:
            self.kill()
            raise RuntimeError("the daemon did not get ready:\n" + "".join(self.log))
        return self

    def _read(self, process: "subprocess.Popen[str]", ready: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line)
            if " ready " in line:
                ready.set()
        ready.set()

    def _whole_environment(self) -> dict[str, str]:
        # What steers the tests is no setting, and the daemon refuses what is none.
        return {k: v for k, v in os.environ.items() if not k.startswith("DROPOFF_")} | self.environment

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as the kernel would: no warning, nothing finished."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def end(self) -> None:
        """End it and its guards, who would stand in for it as long as its state directory is there."""
        self.kill()
        for path in (self.root / "state").glob("guard-*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name.removeprefix("guard-")), signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        assert self._reader is not None
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process = None
        return code

    def command(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `dropoff` with these arguments."""
        return subprocess.run(
            [sys.executable, "-m", "dropoffd", *arguments],
            env=self._whole_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=check,
        )

    def run(self, project: str = "project", name: str = "run", **arguments: object) -> dropoff.Run:
        """Open a run in this process that saves to this daemon."""
        return dropoff.init(project, name, settings=self.settings, **arguments)  # type: ignore[arg-type]


MakeDaemon = Callable[..., DaemonProcess]


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when `holds` does, which nobody tells by itself; fail if it does not in time."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it did not come to be"
        time.sleep(0.02)
