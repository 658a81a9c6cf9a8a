"""Kill the daemon and the processes that save, at random moments, again and again: nothing acknowledged is lost.

`DROPOFF_TEST_KILLS` sets the number of rounds, `DROPOFF_TEST_SEED` replays a run (as far as the machine's
timing lets: the seed decides what is saved, who is killed, and after how long).
"""

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from faults import campaign
from faults.campaign import Writer
from support.daemon import DaemonProcess, MakeDaemon

KILLS = int(os.environ.get("DROPOFF_TEST_KILLS", "200"))
# So that processes which share the tests share the rounds.
PARTS = 4
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
WRITERS = 3


def _kill_in_the_middle_of_a_start(daemon: DaemonProcess, chance: random.Random) -> None:
    failed = threading.Thread(target=_try_to_start, args=(daemon,))
    failed.start()
    while daemon.process is None and failed.is_alive():
        time.sleep(0.001)
    victim = daemon.process
    time.sleep(chance.uniform(0, 0.6))
    if victim is not None:
        victim.kill()
    failed.join()
    daemon.kill()


def _try_to_start(daemon: DaemonProcess) -> None:
    try:
        daemon.start()
    except RuntimeError:  # killed before it was ready
        return


@pytest.mark.timeout(120 + 2 * KILLS)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_acknowledged_is_lost_torn_or_doubled_by_kills(
    make_daemon: MakeDaemon, tmp_path: Path, part: int
) -> None:
    """Whoever is killed, whenever: every save that returned is in the store once, with the bytes of its call."""
    print(f"replay: DROPOFF_TEST_KILLS={KILLS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(f"{SEED}-{part}")
    daemon = make_daemon(
        answer_deadline_seconds=0.5, retry_first_seconds=0.05, copy_after_seconds=chance.choice((0.05, 10))
    )
    writers = [Writer(f"{SEED}-{n}", daemon, tmp_path / "work") for n in range(WRITERS)]
    kills: Counter[str] = Counter()
    daemon.start()
    for one in writers:
        one.start()
    try:
        for _ in range(part, KILLS, PARTS):
            time.sleep(chance.choice((chance.uniform(0, 0.1), chance.uniform(0, 0.5))))
            assert [one.name for one in writers if not one.alive] == []
            victims = chance.choices(("daemon", "start", "writer", "both"), (50, 12, 18, 20))[0]
            kills[victims] += 1
            if victims != "writer":
                daemon.kill()
            if victims in {"writer", "both"}:
                one = chance.choice(writers)
                one.kill()
                one.start()
            if victims == "start":
                _kill_in_the_middle_of_a_start(daemon, chance)
            if victims != "writer":
                daemon.start()
    finally:
        for one in writers:
            if one.alive:
                one.kill()
    assert daemon.process is not None
    assert daemon.process.poll() is None, daemon.log[-20:]
    settled = daemon.run("kills", "run").flush(60 + KILLS / 10)
    shapes = campaign.check(daemon, writers)
    assert settled.pending == 0
    campaign.check_nothing_is_left(daemon)
    print(
        f"{dict(kills)} kills, {sum(len(one.acknowledged) for one in writers)} acknowledged, {dict(shapes)} delivered"
    )


@pytest.mark.timeout(60 + KILLS)
def test_deposits_of_killed_writers_are_whole_or_not_there(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Without a daemon, a writer killed in the middle of a deposit leaves whole jobs and nothing else."""
    print(f"replay: DROPOFF_TEST_KILLS={KILLS} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    daemon = make_daemon()
    writers = [Writer(f"{SEED}-{n}", daemon, tmp_path / "work") for n in range(WRITERS)]
    for one in writers:
        one.start()
    for round_ in range(max(10, KILLS // 10)):
        one = writers[round_ % WRITERS]
        before = len(one.acknowledged)
        while len(one.acknowledged) == before:
            assert one.alive
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        one.kill()
        one.start()
    for one in writers:
        one.kill()
    daemon.start()
    assert daemon.run("kills", "run").flush(60).pending == 0
    campaign.check(daemon, writers)
    campaign.check_nothing_is_left(daemon)
    # Their space is given back, too, once nobody can still be at it: a checkpoint half copied is many gigabytes.
    inbox = daemon.root / "state" / "inbox"
    for unfinished in inbox.iterdir():
        os.utime(unfinished, (0, 0))
    daemon.start()
    deadline = time.monotonic() + 10
    while os.listdir(inbox):
        assert time.monotonic() < deadline
        time.sleep(0.01)
