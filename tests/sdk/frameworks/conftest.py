"""What needs libraries that are too large for every run of the tests: tried where they are installed.

`make frameworks` installs them (about 1.3 GB) and runs these tests; what a run leaves out, it names at its end.
"""

from importlib.util import find_spec

import pytest

MISSING = [name for name in ("plotly", "polars", "ray", "torch") if find_spec(name) is None]
collect_ignore = [f"test_{name}.py" for name in MISSING]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tried."""
    if MISSING:
        terminalreporter.write_line(
            f"NOT TRIED: what needs {', '.join(MISSING)}; `make frameworks` does", yellow=True
        )
