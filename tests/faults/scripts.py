"""Training scripts in processes of their own, for what must not be done to the process of the tests."""

import os
import subprocess
import sys
import textwrap

from support.daemon import DaemonProcess

_SCRIPT_SECONDS = 60


def run_script(daemon: DaemonProcess, script: str, *arguments: object) -> list[str]:
    """Run the lines as a program whose SDK knows the daemon; return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script), *map(str, arguments)],
        env=os.environ | daemon.environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SCRIPT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
