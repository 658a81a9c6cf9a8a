"""The documents say what the code does."""

import re
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec

from dropoff.messages import JobState
from dropoff.serializers.choosing import BUILT_IN
from dropoff.serializers.pickled import PICKLED
from dropoff.serializers.serializer import Serializer
from dropoff.settings import Settings
from dropoffd.errors import Exit

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def rows() -> dict[str, list[str]]:
    """Return the README's table of settings, by key."""
    table = README.split("<!-- settings -->")[1]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row for row in cells[2:]}


def test_every_setting_has_a_row_with_its_unit_default_and_variable() -> None:
    """The README's table of settings is the one in the code, row for row."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert list(rows()) == list(hints)
    for key, hint in hints.items():
        assert get_origin(hint) is Annotated
        meta = next(arg for arg in get_args(hint)[1:] if arg.description)
        _, unit, default, variable, description = rows()[key]
        assert (unit, variable, description) == (meta.extra["unit"], f"`DROPOFF_{key.upper()}`", meta.description)
        if defaults[key] != "":
            assert default == f"`{shown(defaults[key])}`"


def shown(value: object) -> str:
    """Return a default as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_every_serializer_has_a_row_with_its_endings() -> None:
    """The README's table of serializers is the one in the code, row for row."""
    lines = README.split("<!-- serializers -->")[1].strip().splitlines()[2:]
    said = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert said == [(one.of, endings(one), f"`{one.name}`") for one in (*BUILT_IN, PICKLED)]


def endings(one: Serializer) -> str:
    """Return the endings of a serializer's names as the README has them."""
    shown = ", ".join(f"`{ending}`" for ending in one.endings)
    return shown + ", on request" * one.on_request + ", or any" * one.any_ending


def test_every_exit_code_is_documented() -> None:
    """Each exit code has its row in the README."""
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert documented == {code.value for code in Exit}


def test_every_job_state_is_documented() -> None:
    """Each state of a job has its row in the design's table."""
    design = (ROOT / "docs" / "design.md").read_text()
    assert [state for state in JobState if f"| {state} |" not in design] == []


def test_every_command_is_documented() -> None:
    """Each command of the command line is named in the README."""
    names = re.findall(r'verb\("(\w+)"', (ROOT / "daemon/dropoffd/cli/parser.py").read_text())
    assert len(names) > 5
    assert [name for name in names if f"`dropoff {name}" not in README] == []


def test_links_between_documents_lead_somewhere() -> None:
    """Each relative link in a document names a file that is there."""
    for document in (ROOT / "README.md", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
