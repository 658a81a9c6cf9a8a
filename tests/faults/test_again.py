"""Calls that are made again, since nobody knew whether they had been heard."""

import os
from pathlib import Path

import msgspec
import pytest

from daemon.making import run_info, save
from dropoff.content import SMALL_MAX_BYTES
from dropoff.ids import new_job_id
from dropoff.messages import Accepted, JobList, Jobs, JobState
from dropoff.saves import Save
from faults.peers import Peer
from support.daemon import DaemonProcess


@pytest.mark.parametrize("size", [1000, SMALL_MAX_BYTES + 1], ids=["small", "large"])
def test_a_call_that_is_made_again_makes_no_second_job(daemon: DaemonProcess, tmp_path: Path, size: int) -> None:
    """Whatever way it came the first time, and also when the job has ended: it is answered, and is the same job."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    run = msgspec.structs.replace(run_info(), store=f"file://{daemon.store}")
    # The first save of a connection takes another way than those after it.
    saves = [msgspec.structs.replace(save(run=run, name=name), job=new_job_id()) for name in (b"first", b"later")]
    with open(source, "rb") as file:
        with Peer(daemon) as peer:
            for one in saves:
                assert isinstance(peer.ask(one, [file.fileno()]), Accepted)
        _again(daemon, saves, file.fileno())
        daemon.command("wait", *(one.job for one in saves))
        _again(daemon, saves, file.fileno())
    with Peer(daemon) as peer:
        listed = peer.ask(Jobs())
    assert isinstance(listed, JobList)
    found = [(report.job, report.state) for report in listed.jobs]
    assert sorted(found) == sorted((one.job, JobState.DELIVERED) for one in saves)


def _again(daemon: DaemonProcess, saves: list[Save], fd: int) -> None:
    """Make each call again, as the SDK does: on a new connection."""
    for one in saves:
        with Peer(daemon) as peer:
            assert isinstance(peer.ask(one, [fd]), Accepted)
