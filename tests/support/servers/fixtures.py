"""Fixtures: servers that are started once per session, when the first test wants them, and stopped at its end."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.fault_server.server import FaultServer
from support.servers.address import Address
from support.servers.moto import Moto
from support.servers.process import UnavailableError
from support.servers.rclone import Rclone
from support.servers.rgw import Rgw
from support.servers.server import Server, new_bucket

StartServer = Callable[[str], Server]

STARTERS: dict[str, Callable[[Path], Server]] = {"rgw": lambda _: Rgw(), "rclone": Rclone, "moto": Moto}


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Return a starter of servers, one of each kind per session; all are gone at its end."""
    running: dict[str, Server] = {}

    def started(kind: str) -> Server:
        if kind not in running:
            try:
                running[kind] = STARTERS[kind](tmp_path_factory.mktemp(kind))
            except UnavailableError as error:
                missing(kind, str(error))
        return running[kind]

    yield started
    for server in running.values():
        server.stop()


def missing(kind: str, reason: str) -> None:
    """Skip the test, loudly; fail it where the machine is meant to have all servers."""
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"{kind} CANNOT BE STARTED: {reason}")
    pytest.skip(f"NOT TRIED ON {kind.upper()}: {reason}")


@pytest.fixture(params=STARTERS)
def s3_server(request: pytest.FixtureRequest, start_server: StartServer) -> Server:
    """Return a running server, each kind in turn; others use it, too."""
    return start_server(request.param)


@pytest.fixture
def s3_bucket(s3_server: Server) -> Address:
    """Return the address of a bucket with nothing in it, on each kind of server in turn."""
    return new_bucket(s3_server.address)


@pytest.fixture
def rgw(start_server: StartServer) -> Rgw:
    """Return Ceph's gateway, which others use, too: whoever kills or freezes it sets it going again."""
    server = start_server("rgw")
    assert isinstance(server, Rgw)
    return server


@pytest.fixture
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """Return a fault server with an empty bucket; at the end every fault of its script must have happened."""
    with FaultServer(tmp_path_factory.mktemp("fault-server")) as server:
        yield server
