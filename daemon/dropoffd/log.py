"""The daemon's log: one line a fact, `key=value`, to standard error, where the journal or a file takes it."""

import logging
import sys


def setup(level: int = logging.INFO) -> None:
    """Send the daemon's log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(name)s %(message)s"))
    root = logging.getLogger("dropoffd")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    # A line a delivery: what none of them shows need not be found out ("Optimization" in the logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
