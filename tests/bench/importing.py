"""What `import dropoff` costs beyond Python itself."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.rig import Result, Rig, Times

ROUNDS = 20
MOST_SECONDS = 0.060
_CHECKOUT = Path(__file__).resolve().parents[2]
_FIND_MSGSPEC = "import msgspec, pathlib; print(pathlib.Path(msgspec.__file__).parents[1])"


def run(rig: Rig) -> Iterator[Result]:
    """Start Python with and without the import by turns: as a training script has it, and here."""
    clean = _clean_environment(rig.directory / "venv")
    yield _measured("import dropoff, beyond bare Python", str(clean), most=MOST_SECONDS)
    yield _measured("the same in this environment", sys.executable, most=None)


def _clean_environment(directory: Path) -> Path:
    """Make an environment with what the SDK depends on and no more: linked, for nothing is to be downloaded."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    packages = next((directory / "lib").glob("python*/site-packages"))
    found = subprocess.run([sys.executable, "-c", _FIND_MSGSPEC], check=True, capture_output=True, text=True)
    (packages / "msgspec").symlink_to(Path(found.stdout.strip()) / "msgspec")
    (packages / "dropoff").symlink_to(_CHECKOUT / "sdk" / "dropoff")
    return directory / "bin" / "python"


def _measured(what: str, python: str, most: float | None) -> Result:
    bare, imported = _Starts(), _Starts()
    for number in range(1 + ROUNDS):
        for starts, code in ((bare, "pass"), (imported, "import dropoff")):
            starts.add([python, "-c", code])
            if number == 0:  # warms up
                starts.clear()
    note = f"processor time {1e3 * (imported.processor.p50 - bare.processor.p50):.1f} ms"
    return Result(what, imported.wall.p50 - bare.wall.p50, "s", ROUNDS, most=most, note=note)


class _Starts:
    """Runs of a command: how long they took, and how much of that on a core."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.wall, self.processor = Times(), Times()

    def add(self, command: list[str]) -> None:
        before = _children_seconds()
        self.wall.add(lambda: subprocess.run(command, check=True))
        self.processor.note(_children_seconds() - before)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
