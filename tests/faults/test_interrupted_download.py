"""A download that the daemon's death, a broken network or its caller's end interrupts, and the next one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dropoff.errors import UnavailableError
from dropoff.reading import StoredVersion, open_version
from dropoffd.fetch.plan import PIECE_BYTES
from support.daemon import DaemonProcess, MakeDaemon
from support.fault_server.calls import Operation
from support.fault_server.faults import Silence, Slow, Stage
from support.fault_server.server import FaultServer

PIECES = 6
CONTENT = os.urandom(PIECES * PIECE_BYTES)


@pytest.fixture
def daemon(make_daemon: MakeDaemon, fault_server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> DaemonProcess:
    """Return a running daemon whose store is a bucket of the fault server, with a version in it."""
    address = fault_server.address
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.secret_key)
    url = f"s3://{address.bucket}/prefix?endpoint={address.endpoint}&region={address.region}&style=path"
    return make_daemon(store=url).start()


@pytest.fixture
def version(daemon: DaemonProcess, tmp_path: Path, fault_server: FaultServer) -> StoredVersion:
    """Return a version of one large file."""
    source = tmp_path / "large.bin"
    source.write_bytes(CONTENT)
    daemon.run().log_artifact(source, "large", "model").wait(60)
    found = open_version("project/large", settings=daemon.settings)
    fault_server.journal.clear()
    return found


def pieces(server: FaultServer, key: str) -> int:
    """Return how many pieces of an object were asked for."""
    return len(server.journal.requests(Operation.GET, key=key))


def key_of(server: FaultServer) -> str:
    """Return the key of the large object."""
    (key,) = [key for key in server.objects if key.endswith("/large.bin")]
    return key


def test_a_killed_daemons_download_goes_on(
    daemon: DaemonProcess, version: StoredVersion, fault_server: FaultServer, tmp_path: Path
) -> None:
    """After SIGKILL in the middle nothing stands under its name, and the next download asks for what is missing."""
    key = key_of(fault_server)
    fault_server.inject(Operation.GET, Silence(Stage.ANSWER, 1000), key=key, times=2)
    raised: list[BaseException] = []

    def download() -> None:
        try:
            version.download(tmp_path / "out")
        except UnavailableError as error:
            raised.append(error)

    caller = threading.Thread(target=download)
    caller.start()
    note = tmp_path / "out" / ".dropoff-incoming"
    deadline = time.monotonic() + 30
    while sum(len(path.read_text().splitlines()) for path in note.glob("*.have")) < PIECES - 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    daemon.kill()
    caller.join(30)
    assert len(raised) == 1
    assert not (tmp_path / "out" / "large.bin").exists()
    fault_server.journal.clear()
    daemon.start()
    version.download(tmp_path / "out")
    assert (tmp_path / "out" / "large.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["large.bin"]
    assert pieces(fault_server, key) == 2


def test_who_hangs_up_ends_the_work(
    daemon: DaemonProcess, version: StoredVersion, fault_server: FaultServer, tmp_path: Path
) -> None:
    """When the caller is killed the daemon stops fetching for him, and goes on to serve others."""
    key = key_of(fault_server)
    # A piece would take longer than the test waits for its end.
    fault_server.inject(Operation.GET, Slow(128 << 10), key=key, times=PIECES)
    program = (
        "import sys; from dropoff.reading import open_version; open_version('project/large').download(sys.argv[1])"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "out")], env=daemon._whole_environment())
    fault_server.journal.wait(lambda: pieces(fault_server, key) == PIECES)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    fault_server.journal.wait(lambda: all(one.ended for one in fault_server.journal._seen if one.call.key == key))
    version.download(tmp_path / "again")
    assert (tmp_path / "again" / "large.bin").read_bytes() == CONTENT
