"""Fixtures for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import DaemonProcess, MakeDaemon

pytest_plugins = ["support.servers.fixtures"]


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[MakeDaemon]:
    """Return a maker of daemons, not yet started; whatever still runs at the end is killed."""
    made: list[DaemonProcess] = []

    def make(root: Path = tmp_path, **settings: object) -> DaemonProcess:
        made.append(DaemonProcess(root, **settings))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> DaemonProcess:
    """Return a running daemon."""
    return make_daemon().start()
