"""Fixtures for the SDK's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import DaemonProcess


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return one running daemon for the tests of a file; a test that pauses it resumes it."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("daemon")).start()
    yield daemon
    daemon.end()


@pytest.fixture
def paused(shared: DaemonProcess) -> Iterator[DaemonProcess]:
    """Return the daemon while it delivers nothing."""
    shared.command("pause")
    yield shared
    shared.command("resume")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small file."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"content")
    return path
