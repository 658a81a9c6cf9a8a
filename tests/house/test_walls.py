"""The walls of the house: who may import whom, and which library has which door."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK, DAEMON = ROOT / "sdk" / "dropoff", ROOT / "daemon" / "dropoffd"

# Each storey may use those below it, never those above; rooms of one storey do not know each other.
STOREYS = (
    ("cli",),
    ("daemon",),
    ("intake", "control", "tidying"),
    ("copying", "curator", "dispatch", "reuse"),
    ("reader",),
    ("auditing", "collecting", "removing"),
    ("index",),
    ("capture", "spool", "schedule", "transfer", "catalogue", "fetch"),
    ("stores",),
    ("limits",),
    ("custody", "clock", "crc", "errors", "filesystem", "log", "paging", "pieces", "systemd", "threads", "writeback"),
)
DOORS = {
    "aiohttp": {"stores/http.py"},
    "awscrt": {"crc.py", "stores/s3/credentials.py"},
    "xml": {"stores/s3/answers.py"},
    "sqlite3": {"index/", "spool/"},
    "tenacity": {"stores/retry.py"},
    "uvloop": {"daemon.py"},
    "rich": {"cli/progress.py"},
    "ctypes": {"filesystem.py", "writeback.py", "capture/idle.py"},
    "subprocess": {"cli/demo.py"},
}
# What users may ask for on both ends; nobody loads it who did not.
UNPICKLES = SDK / "serializers" / "pickled.py"
# Where the user's own libraries are imported, by name.
BY_NAME = SDK / "serializers" / "libraries.py"
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "joblib", "requests", "urllib3"}


def modules(top: Path) -> list[Path]:
    """Return the modules of a package."""
    return sorted(top.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, also late."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a file calls by one name or as an attribute, and the first argument if that is text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            said = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            yield ast.unparse(node.func).rpartition(".")[2], str(said)


def room(path: Path) -> str:
    """Return the folder, or the module, that a file of the daemon belongs to."""
    return path.relative_to(DAEMON).parts[0].removesuffix(".py")


def storey(name: str) -> int:
    """Return how far from the top a room is; raises StopIteration for one that has no place yet."""
    return next(number for number, rooms in enumerate(STOREYS) if name in rooms)


@pytest.mark.parametrize("path", modules(SDK), ids=lambda path: path.name)
def test_the_sdk_needs_msgspec_alone_and_never_the_daemon(path: Path) -> None:
    """A module of the SDK imports the standard library, msgspec and its own package."""
    allowed = sys.stdlib_module_names | {"msgspec", "dropoff"}
    assert [name for name in imports(path) if name.split(".")[0] not in allowed] == []


@pytest.mark.parametrize("path", modules(DAEMON), ids=lambda path: str(path.relative_to(DAEMON)))
def test_dependencies_point_down(path: Path) -> None:
    """A module of the daemon imports only from storeys below its own, or from its own room."""
    here = room(path)
    if here in {"__init__", "__main__"}:
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("dropoffd.")} - {here}
    assert {other for other in used if storey(other) <= storey(here)} == set()


def test_each_library_has_one_door() -> None:
    """A library is imported where it is wanted and nowhere else."""
    for path in modules(DAEMON):
        name = str(path.relative_to(DAEMON))
        for imported in imports(path):
            doors = DOORS.get(imported.split(".")[0])
            assert doors is None or any(name.startswith(door) for door in doors), f"{name} imports {imported}"


def test_nothing_that_runs_what_it_reads_is_imported() -> None:
    """No module can unpickle or otherwise execute what it reads, but the one that users have to ask for."""
    for path in (*modules(SDK), *modules(DAEMON)):
        named = {said for called, said in calls(path) if called in {"library", "import_module", "__import__"}}
        found = {name.split(".")[0] for name in (*imports(path), *named)} & FORBIDDEN
        assert found == ({"pickle"} if path == UNPICKLES else set()), path


def test_modules_are_imported_by_name_in_one_place() -> None:
    """What the walls cannot see, an import by a name that is computed, is made in one module."""
    dynamic = {"import_module", "__import__", "exec", "eval"}
    found = {path for path in (*modules(SDK), *modules(DAEMON)) if dynamic & {called for called, _ in calls(path)}}
    assert found == {BY_NAME}


def test_only_the_choice_of_serializers_knows_the_one_that_unpickles() -> None:
    """The module that can unpickle is imported by one other, and there not before somebody asks."""
    found = {path for path in modules(SDK) if any("pickled" in name.split(".") for name in imports(path))}
    assert {path.name for path in found} == {"choosing.py"}
    tree = ast.parse((UNPICKLES.parent / "choosing.py").read_text())
    at_once = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert "dropoff.serializers.pickled" not in at_once


def test_every_module_tells_its_story() -> None:
    """Every module opens with a docstring."""
    assert [
        path for path in (*modules(SDK), *modules(DAEMON)) if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []
