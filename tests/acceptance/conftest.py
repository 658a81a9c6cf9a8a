"""Fixtures for the tests of the main job: file systems to run it on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.filesystems import KINDS, FileSystem, UnavailableError

MountFileSystem = Callable[[str], FileSystem]


@pytest.fixture(autouse=True)
def _no_test_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `DROPOFF_TEST_*`, which are ours, from daemons and training processes: they refuse unknown settings."""
    for key in [key for key in os.environ if key.startswith("DROPOFF_TEST_")]:
        monkeypatch.delenv(key)


@pytest.fixture(scope="session")
def mount_file_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountFileSystem]:
    """Return a maker of mounted file systems, one of each kind per session; all are gone at its end."""
    home = tmp_path_factory.mktemp("file-systems")
    made: dict[str, FileSystem] = {}

    def mounted(kind: str) -> FileSystem:
        if kind not in made:
            try:
                made[kind] = FileSystem(kind, home)
            except UnavailableError as error:
                missing(kind, str(error))
        return made[kind]

    yield mounted
    for one in made.values():
        one.close()


def missing(kind: str, reason: str) -> None:
    """Skip the test, loudly; fail it where the machine is meant to have all file systems."""
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"{kind} CANNOT BE MOUNTED: {reason}")
    pytest.skip(f"NOT TRIED ON {kind.upper()}: {reason}")


@pytest.fixture(params=KINDS)
def file_system(request: pytest.FixtureRequest, mount_file_system: MountFileSystem) -> Iterator[FileSystem]:
    """Return a mounted file system with nothing on it, each kind in turn."""
    one = mount_file_system(request.param)
    yield one
    one.clear()


@pytest.fixture
def filesystem(file_system: FileSystem) -> Path:
    """Return an empty directory on each kind of file system in turn."""
    path = file_system.path / "here"
    path.mkdir()
    return path
