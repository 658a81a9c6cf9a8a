"""`dropoff demo`: a real training script, a daemon killed in the middle, and the proof that nothing was lost."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dropoff.errors import RefusedError
from dropoff.settings import load
from dropoffd.cli.commands import follow
from dropoffd.cli.text import size
from dropoffd.errors import Exit, StartError

EPOCHS = 10
_KILL_AFTER_EPOCH, _RESTART_AFTER_EPOCH = 3, 6
_LOOK_SECONDS = 0.02


def run(directory: str | None) -> int:
    """Run the demo below `directory`, or a new temporary one, and return the exit code."""
    script = _script()
    root = Path(directory or tempfile.mkdtemp(prefix="dropoff-demo-")).absolute()
    root.mkdir(parents=True, exist_ok=True)
    os.environ.update(_environment(root))
    ledger = root / "ledger.jsonl"
    ledger.unlink(missing_ok=True)
    print(f"1. A daemon starts with embedded defaults: no account, no server; the store is {root / 'store'}")
    daemon = _Daemon(root / "daemon.log")
    try:
        print(f"2. {script.name} trains {EPOCHS} epochs and saves each under the same file name\n")
        for line in _training(script, ledger):
            print(f"     {line}")
            if line.startswith(f"epoch {_KILL_AFTER_EPOCH}:"):
                daemon.kill()
                print(f"\n3. The daemon (pid {daemon.pid}) is killed with SIGKILL; training goes on\n")
            if line.startswith(f"epoch {_RESTART_AFTER_EPOCH}:"):
                daemon = _Daemon(root / "daemon.log")
                print(f"\n4. It is started again (pid {daemon.pid}), finds what it had, and looks into the inbox\n")
        print("\n5. The script has exited and its files are deleted; the daemon delivers what is left")
        outcome = follow(load(), ())
        if outcome != Exit.OK:
            return outcome
        files, wrong = _verify(root / "store", ledger)
    finally:
        daemon.stop()
    print("", *_tree(root / "store"), sep="\n")
    if wrong:
        print("\nNOT what was saved:", *wrong, sep="\n  ")
        return Exit.SOFTWARE
    print(f"\n6. All {files} files in the store have the sha256 that they had at the moment of their save.")
    print(_next_steps(root, script))
    return Exit.OK


class _Daemon:
    """A daemon in a process of its own, ready to serve."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("a")
        begin = log.stat().st_size
        self._process = subprocess.Popen(  # our own program
            [sys.executable, "-m", "dropoffd", "serve"], stdin=subprocess.DEVNULL, stderr=self._log
        )
        self.pid = self._process.pid
        with log.open() as lines:
            lines.seek(begin)
            while " ready " not in lines.readline():
                if self._process.poll() is not None:
                    raise StartError(f"unable to start the daemon of the demo: see {log}", exit_code=Exit.FAILED)
                time.sleep(_LOOK_SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def stop(self) -> None:
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.wait()
        self._log.close()


def _script() -> Path:
    if importlib.util.find_spec("sklearn") is None:
        raise StartError(
            "unable to run the demo: it trains with scikit-learn, which is not installed",
            hint="pip install 'dropoff[demo]'",
        )
    for place in (
        Path(__file__).parents[3] / "docs" / "examples",  # a checkout
        Path(__file__).parents[2] / "dropoff_examples",  # the wheel
    ):
        if (place / "train_digits.py").exists():
            return place / "train_digits.py"
    raise StartError("unable to run the demo: this installation lacks train_digits.py", hint="install the wheel")


def _environment(root: Path) -> dict[str, str]:
    return {
        "DROPOFF_STATE_DIR": str(root / "state"),
        "DROPOFF_RUNTIME_DIR": str(root / "run"),
        "DROPOFF_CACHE_DIR": str(root / "cache"),
        "DROPOFF_STORE": (root / "store").as_uri(),
        "DROPOFF_SPOOL_FLOOR_BYTES": "0",
        "TRAIN_DIR": str(root),
    }


def _training(script: Path, ledger: Path) -> Iterator[str]:
    """Run the script; yield what it prints, as it prints it."""
    command = [sys.executable, str(script), "--epochs", str(EPOCHS), "--ledger", str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own example
        for line in process.stdout or ():
            yield line.rstrip()
    if process.returncode != 0:
        raise RefusedError(f"unable to finish the demo: the training script ended with {process.returncode}")


def _verify(store: Path, ledger: Path) -> tuple[int, list[str]]:
    """Compare the store with the ledger; return how many files were compared and what differs."""
    files, wrong = 0, []
    for line in ledger.read_text().splitlines():
        saved = json.loads(line)
        (record,) = store.glob(f"*/runs/*/files/{saved['job']}.json")
        entries = {entry["path"]: entry for entry in json.loads(record.read_bytes())["entries"]}
        for name, expected in saved["files"].items():
            files += 1
            entry = entries[name]
            data = (store / entry["key"]).read_bytes()
            if "offset" in entry:
                data = data[entry["offset"] : entry["offset"] + entry["size"]]
            if hashlib.sha256(data).hexdigest() != expected:
                wrong.append(f"{name} of job {saved['job']}")
    return files, wrong


def _tree(directory: Path, indent: str = "     ") -> Iterator[str]:
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield f"{indent}{path.name}/"
            yield from _tree(path, indent + "  ")
        else:
            yield f"{indent}{path.name}  {size(path.stat().st_size)}"


def _next_steps(root: Path, script: Path) -> str:
    return f"""
Where to go next
  look around     find {root / "store"}
  your own        dropoff serve &   then in your script: dropoff.init(project="mine").save_file("best.pt")
  the example     {script}
  settings        the README's table, or ~/.config/dropoff/config.toml"""
