"""Kill the daemon while it sends large objects in parts, again and again: each kill costs the parts in flight.

`DROPOFF_TEST_KILLS` sets the number of rounds (a twentieth: each costs megabytes), `DROPOFF_TEST_SEED` replays a run
as far as the machine's timing lets: the seed decides what is saved, and when the daemon is killed.
"""

import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.site import MIB, PREFIX, SMALL, WAIT_SECONDS, Site
from support import oracle, stores
from support.daemon import DaemonProcess, MakeDaemon
from support.fault_server.calls import Operation
from support.fault_server.server import FaultServer
from support.servers.address import Address
from support.servers.client import client
from support.servers.rgw import Rgw
from support.servers.server import new_bucket

KILLS = max(1, int(os.environ.get("DROPOFF_TEST_KILLS", "200")) // 20)
# Ceph keeps what it is given in memory, and what was removed for hours.
KILLS_OF_RGW = min(max(1, KILLS // 3), 10)
SEED = os.environ.get("DROPOFF_TEST_SEED") or os.urandom(4).hex()
PART_BYTES = 8 * MIB
# Many more parts than are in flight: whoever sends all that was stored once more is found out.
PARTS_MOST = 12
IN_FLIGHT = 2
KILLS_PER_OBJECT_MOST = 4


def _objects(chance: random.Random, kills: int) -> Iterator[tuple[int, list[int]]]:
    """Yield objects as (size in bytes, how many parts are stored when each kill comes), until so many were made."""
    while kills:
        size = chance.randrange((PARTS_MOST - 4) * PART_BYTES, PARTS_MOST * PART_BYTES)
        moments = sorted(
            chance.randint(0, -(-size // PART_BYTES))
            for _ in range(min(kills, chance.randint(1, KILLS_PER_OBJECT_MOST)))
        )
        kills -= len(moments)
        yield size, moments


def _wait_for_parts(server: FaultServer, count: int) -> None:
    journal = server.journal

    def stored() -> bool:
        found = {seen.call.part for seen in journal.requests(Operation.PART) if seen.status == 200}
        return len(found) >= count or any(seen.status == 200 for seen in journal.requests(Operation.COMPLETE))

    journal.wait(stored)


@pytest.mark.timeout(120 + 10 * KILLS)
def test_a_kill_costs_the_parts_in_flight(tmp_path: Path, fault_server: FaultServer) -> None:
    """Whenever the daemon is killed, objects arrive once and true, and what was stored is not sent again."""
    print(f"replay: DROPOFF_TEST_KILLS={KILLS * 20} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    site = Site(tmp_path / "site", fault_server, in_flight_max=IN_FLIGHT)
    again = 0
    try:
        site.start()
        for size, moments in _objects(chance, KILLS):
            site.save(size)
            for stored in moments:
                _wait_for_parts(fault_server, stored)
                time.sleep(chance.uniform(0, 0.1))
                site.daemon.kill()
                site.daemon.start()
            assert site.daemon.run().flush(WAIT_SECONDS).pending == 0
            site.check()
            again += sum(seen.received_bytes for seen in fault_server.journal.requests(Operation.PART)) - size
            completed = [seen for seen in fault_server.journal.requests(Operation.COMPLETE) if seen.status == 200]
            assert len(completed) <= 1
            site.forget()
            fault_server.journal.clear()
            shutil.rmtree(site.root / "work")
            os.mkdir(site.root / "work")
    finally:
        site.end()
    print(f"{KILLS} kills, {again / KILLS / PART_BYTES:.2f} parts sent again for each")
    # Over all kills: a part that is confirmed and no row yet is still in flight, beside the one that took its place.
    assert again <= KILLS * IN_FLIGHT * PART_BYTES


@pytest.mark.timeout(120 + 20 * KILLS_OF_RGW)
def test_kills_leave_nothing_open_or_twice_in_rgw(tmp_path: Path, rgw: Rgw, make_daemon: MakeDaemon) -> None:
    """Killed at any moment of a delivery, the daemon delivers to Ceph's gateway once, and ends what it began."""
    print(f"replay: DROPOFF_TEST_KILLS={KILLS * 20} DROPOFF_TEST_SEED={SEED} pytest {__file__}")
    chance = random.Random(SEED)
    address = new_bucket(rgw.address)
    daemon = make_daemon(store=stores.url(address, PREFIX), in_flight_max=IN_FLIGHT, retry_first_seconds=0.05)
    daemon.environment |= stores.environment(address)
    daemon.start()
    saved: dict[str, dict[bytes, str]] = {}
    _save(daemon, tmp_path / "first", SMALL, saved)
    assert daemon.run().flush(WAIT_SECONDS).pending == 0  # it found out about the store
    began = time.monotonic()
    _save(daemon, tmp_path / "undisturbed", PARTS_MOST * PART_BYTES, saved)
    assert daemon.run().flush(WAIT_SECONDS).pending == 0
    most_seconds = time.monotonic() - began
    for number, (size, kills) in enumerate(_objects(chance, KILLS_OF_RGW)):
        _save(daemon, tmp_path / f"object-{number}", size, saved)
        for _ in kills:
            time.sleep(chance.uniform(0, most_seconds / len(kills)))
            daemon.kill()
            daemon.start()
        assert daemon.run().flush(WAIT_SECONDS).pending == 0
    seen = _downloaded(address, tmp_path / "seen")
    digests = {
        job: {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for job, files in oracle.contents(seen).items()
    }
    assert digests == saved
    # One object for each file, one record for each save, and the run's own.
    assert sum(path.is_file() for path in seen.rglob("*")) == 2 * len(saved) + 1
    assert "Uploads" not in client(address).list_multipart_uploads(Bucket=address.bucket)
    print(f"{KILLS_OF_RGW} kills, {sum('upload goes on' in line for line in daemon.log)} in the midst of an upload")


def _save(daemon: DaemonProcess, path: Path, size: int, saved: dict[str, dict[bytes, str]]) -> None:
    data = os.urandom(size)
    path.write_bytes(data)
    delivery = daemon.run().save_file(path)
    saved[delivery.id] = {path.name.encode(): hashlib.sha256(data).hexdigest()}


def _downloaded(address: Address, directory: Path) -> Path:
    stranger = client(address)
    pages = stranger.get_paginator("list_objects_v2").paginate(Bucket=address.bucket)
    for key in [item["Key"] for page in pages for item in page["Contents"]]:
        path = directory / key.removeprefix(f"{PREFIX}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stranger.get_object(Bucket=address.bucket, Key=key)["Body"].read())
    return directory
