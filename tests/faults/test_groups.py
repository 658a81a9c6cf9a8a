"""Many hosts make one version together and are killed: it is made once, and has what every one of them brought.

`DROPOFF_TEST_SEED` replays who is killed when.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import contributor
from support import oracle

HOSTS, KILLS = 16, 24
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
TESTS = Path(contributor.__file__).parents[1]


def start(root: Path, host: int) -> "subprocess.Popen[bytes]":
    """Start a host, or start it again."""
    command = [
        sys.executable,
        contributor.__file__,
        str(root / f"{host}"),
        str(root / "store"),
        f"{host}",
        f"{HOSTS}",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DROPOFF_")}
    return subprocess.Popen(command, env=environment | {"PYTHONPATH": str(TESTS)}, stdin=subprocess.DEVNULL)


@pytest.mark.timeout(180)
def test_killed_hosts_make_one_version_that_has_it_all(tmp_path: Path) -> None:
    """Sixteen hosts contribute, and each of them finishes, killed at random: one version, with sixteen files."""
    print(f"replay: DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    running = {host: start(tmp_path, host) for host in range(HOSTS)}
    kills = 0
    while running:
        time.sleep(chance.uniform(0, 0.2))
        for host, process in list(running.items()):
            if process.poll() is not None:
                assert process.returncode in {0, -9}, host
                del running[host]
                if process.returncode:
                    running[host] = start(tmp_path, host)
        if running and kills < KILLS:
            running[chance.choice(sorted(running))].kill()
            kills += 1
    (made,) = oracle.manifests(tmp_path / "store")
    found = {entry["path"]: oracle.content(tmp_path / "store", entry) for entry in made["entries"]}
    assert found == {f"{host}": b"from %d" % host for host in range(HOSTS)}
    assert kills == KILLS
    assert not list((tmp_path / "store").glob("project/artifacts/cats/parts/g/*/*"))
