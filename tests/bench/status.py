"""How long `dropoff status` takes, as a person waits for it."""

import subprocess
import sys
from collections.abc import Iterator

from bench.rig import Result, Rig, Times

ROUNDS = 20
MOST_SECONDS = 0.150


def run(rig: Rig) -> Iterator[Result]:
    """Run the command, and Python alone, by turns."""
    commands, bare = Times(), Times()
    with rig.daemon() as daemon:
        daemon.command("status")
        for _ in range(ROUNDS):
            commands.add(lambda: daemon.command("status"))
            bare.add(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    note = f"bare Python {bare.p50 * 1e3:.1f} ms, worst {commands.worst * 1e3:.0f} ms"
    yield Result("dropoff status, p50", commands.p50, "s", ROUNDS, most=MOST_SECONDS, note=note)
