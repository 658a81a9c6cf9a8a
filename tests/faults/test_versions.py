"""Many hosts commit versions of one artifact and are killed: every number is there, once.

`DROPOFF_TEST_COMMITS` sets how many versions, `DROPOFF_TEST_SEED` replays who is killed when.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import committer
from support import oracle

HOSTS = 16
COMMITS = int(os.environ.get("DROPOFF_TEST_COMMITS", "1000"))
KILLS = COMMITS // 20
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
TESTS = Path(committer.__file__).parents[1]


def start(root: Path, host: int) -> "subprocess.Popen[bytes]":
    """Start a host, or start it again."""
    mine = len(range(host, COMMITS, HOSTS))
    command = [sys.executable, committer.__file__, str(root / f"{host}"), str(root / "store"), str(host), str(mine)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DROPOFF_")}
    return subprocess.Popen(command, env=environment | {"PYTHONPATH": str(TESTS)}, stdin=subprocess.DEVNULL)


@pytest.mark.timeout(120 + 4 * COMMITS)
def test_no_version_is_lost_or_doubled_by_a_race_of_killed_hosts(tmp_path: Path) -> None:
    """Sixteen hosts race for numbers and are killed: no number is lost or doubled, and each host keeps its order."""
    print(f"replay: DROPOFF_TEST_COMMITS={COMMITS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
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
    found = oracle.manifests(tmp_path / "store")
    assert [manifest["version"] for manifest in found] == list(range(COMMITS))
    drafts = [oracle.content(tmp_path / "store", manifest["entries"][0]).decode() for manifest in found]
    for host in range(HOSTS):
        mine = [draft for draft in drafts if draft.startswith(f"{host}-")]
        assert mine == [f"{host}-{number}" for number in range(len(range(host, COMMITS, HOSTS)))]
    assert kills == KILLS
    latest = (tmp_path / "store/project/artifacts/cats/aliases/latest.json").read_text()
    assert f'"version":{COMMITS - 1},' in latest
