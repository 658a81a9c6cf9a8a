"""One daemon per state directory and per socket, on a disk that can be trusted, for one user."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dropoff.errors import ProtocolError
from dropoff.messages import PROTOCOL, Hello, encode
from dropoff.wire import frame
from dropoffd.errors import Exit
from faults import mounts
from support.daemon import DaemonProcess, MakeDaemon

_START_SECONDS = 30


def _refused(daemon: DaemonProcess) -> "subprocess.CompletedProcess[str]":
    """Start a daemon that must not come up."""
    return daemon.command("serve", check=False)


def _pid(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def test_a_second_daemon_is_refused_with_the_pid(make_daemon: MakeDaemon) -> None:
    """A second daemon on the same state directory exits with 75 and names the first; that one goes on."""
    first = make_daemon().start()
    second = make_daemon(runtime_dir=first.root / "another")
    done = _refused(second)
    assert (done.returncode, f"pid {_pid(first)}" in done.stderr) == (Exit.RUNNING, True)
    assert first.command("status").returncode == 0


def test_of_twenty_daemons_one_lives(make_daemon: MakeDaemon) -> None:
    """Twenty daemons started at once on a fresh directory: nineteen exit with 75, one serves."""
    daemon = make_daemon()
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "dropoffd", "serve"],
            env=os.environ | daemon.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(20)
    ]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while sum(one.poll() is None for one in crowd) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (living,) = [one for one in crowd if one.poll() is None]
        assert [one.returncode for one in crowd if one is not living] == [Exit.RUNNING] * 19
        while (done := daemon.command("status", "--json", check=False)).returncode:
            assert living.poll() is None
            assert time.monotonic() < deadline
        assert f'"pid":{living.pid}' in re.sub(r"\s", "", done.stdout)
    finally:
        for one in crowd:
            one.kill()
            one.wait()


def test_of_daemons_with_one_socket_one_lives(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Daemons started at once for several state directories but one socket: one serves, none is left unreachable."""
    environments = [make_daemon(tmp_path / f"root-{n}", runtime_dir=tmp_path / "run").environment for n in range(8)]
    crowd = [
        subprocess.Popen(
            [sys.executable, "-m", "dropoffd", "serve"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for environment in environments
    ]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while sum(one.poll() is None for one in crowd) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(str(one.poll()) for one in crowd) == ["75"] * 7 + ["None"]
    finally:
        for one in crowd:
            one.kill()
            one.wait()


def test_a_killed_daemon_makes_room_at_once(daemon: DaemonProcess) -> None:
    """The lock dies with its holder: the next daemon starts at once, over the stale socket."""
    for _ in range(3):
        before = _pid(daemon)
        daemon.kill()
        assert (Path(daemon.settings.runtime_dir) / "daemon.sock").is_socket()
        daemon.start()
        assert _pid(daemon) != before
        assert daemon.command("status").returncode == 0


@pytest.mark.parametrize("what", ["a file", "a socket nobody listens on", "a link that leads nowhere"])
def test_what_lies_in_the_sockets_place_is_replaced(make_daemon: MakeDaemon, what: str) -> None:
    """Anything dead under the socket's name makes way, and what a link points to is left alone."""
    daemon = make_daemon()
    place = Path(daemon.settings.runtime_dir) / "daemon.sock"
    place.parent.mkdir(mode=0o700)
    if what == "a file":
        place.touch()
    elif what == "a link that leads nowhere":
        place.symlink_to(place.parent / "nowhere")
    else:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(place))
    daemon.start()
    assert daemon.command("status").returncode == 0
    assert os.listdir(place.parent) == ["daemon.sock"]
    assert daemon.stop() == 0
    assert os.listdir(place.parent) == []


def test_a_live_socket_is_refused_with_the_pid(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A daemon of another state directory does not take the socket of one that lives, also if that is stopped."""
    first = make_daemon(tmp_path / "first").start()
    second = make_daemon(tmp_path / "second", runtime_dir=first.settings.runtime_dir)
    for stopped in (False, True):
        if stopped:
            first.signal(signal.SIGSTOP)
        done = _refused(second)
        first.signal(signal.SIGCONT)
        assert (done.returncode, f"pid {_pid(first)}" in done.stderr) == (Exit.RUNNING, True)
    assert first.command("status").returncode == 0


@pytest.mark.parametrize("which", ["state", "run"])
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o707, 0o770])
def test_a_directory_open_to_others_is_refused(make_daemon: MakeDaemon, which: str, mode: int) -> None:
    """A state or runtime directory that others may enter is neither used nor repaired; the hint says what to do."""
    daemon = make_daemon()
    directory = daemon.root / which
    directory.mkdir()
    directory.chmod(mode)
    done = _refused(daemon)
    assert (done.returncode, "0700" in done.stderr) == (Exit.CONFIG, True)
    assert directory.stat().st_mode & 0o777 == mode
    assert not (directory / "daemon.sock").exists()


@pytest.mark.parametrize("which", ["state", "run"])
def test_a_linked_directory_is_refused(make_daemon: MakeDaemon, which: str) -> None:
    """A symbolic link in the place of a private directory is refused: somebody may have put it there."""
    daemon = make_daemon()
    (daemon.root / "elsewhere").mkdir(mode=0o700)
    (daemon.root / which).symlink_to(daemon.root / "elsewhere")
    assert _refused(daemon).returncode == Exit.CONFIG
    assert os.listdir(daemon.root / "elsewhere") == []


@mounts.needs_root
@pytest.mark.parametrize("which", ["state", "run"])
def test_somebody_elses_directory_is_refused(make_daemon: MakeDaemon, which: str) -> None:
    """A directory of another user is refused, even by root."""
    daemon = make_daemon()
    (daemon.root / which).mkdir(mode=0o700)
    os.chown(daemon.root / which, 65534, 65534)
    assert _refused(daemon).returncode == Exit.CONFIG
    assert os.listdir(daemon.root / which) == []


@contextmanager
def _fuse(path: Path, source: Path) -> Iterator[None]:
    """Mount a directory over another through FUSE, as network file systems in user space are."""
    for directory in (path, source):
        directory.mkdir(mode=0o700, parents=True)
    subprocess.run(["bindfs", str(source), str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@mounts.needs_root
@pytest.mark.skipif(not shutil.which("bindfs"), reason="BINDFS IS MISSING: no FUSE file system to refuse")
def test_a_state_directory_on_fuse_is_refused_unless_allowed(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A state directory where locks cannot be trusted is refused with a hint; a setting overrides that."""
    daemon = make_daemon()
    with _fuse(tmp_path / "state", tmp_path / "behind"):
        done = _refused(daemon)
        assert (done.returncode, "FUSE" in done.stderr, "hint:" in done.stderr) == (Exit.CONFIG, True, True)
        allowed = make_daemon(allow_network_state="true").start()
        assert allowed.stop() == 0


_STRANGER = """
    import os, socket, sys
    os.setgid(65534); os.setuid(65534)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    try:
        sock.connect(sys.argv[1])
        sock.sendall(bytes.fromhex(sys.argv[2]))
        print(len(sock.recv(1000)))
    except OSError as error:
        print(type(error).__name__)
"""


@mounts.needs_root
@pytest.mark.parametrize("opened", [False, True], ids=["as it is", "with its permissions opened"])
def test_another_user_is_not_served(daemon: DaemonProcess, opened: bool) -> None:
    """Another user does not reach the socket; were it opened to all, the daemon hangs up before it listens."""
    runtime = Path(daemon.settings.runtime_dir)
    above = [path for path in (runtime, *runtime.parents) if path != Path("/")]
    modes = {path: path.stat().st_mode & 0o7777 for path in above}
    try:
        for path in above:
            if opened or path != runtime:
                path.chmod(modes[path] | 0o011)
        if opened:
            (runtime / "daemon.sock").chmod(0o666)
        hello = frame(encode(Hello(PROTOCOL, "a stranger"))).hex()
        script = "\n".join(line.strip() if line.startswith("    ") and not line.startswith("     ") else line[4:]
                           for line in _STRANGER.splitlines())  # fmt: skip
        done = subprocess.run(
            ["/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable, "-c", script,
             str(runtime / "daemon.sock"), hello],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        answers = {"0", "ConnectionResetError", "BrokenPipeError"} if opened else {"PermissionError"}
        assert done.stdout.strip() in answers
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert daemon.command("status").returncode == 0


@mounts.needs_root
def test_the_sdk_trusts_no_daemon_of_another_user(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """An SDK that finds another user's listener in its socket's place sends nothing there and says so."""
    daemon = make_daemon()
    runtime = Path(daemon.settings.runtime_dir)
    runtime.mkdir(mode=0o700)
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime / "daemon.sock"))
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            listener.listen()
            theirs.send(b"listening")
            accepted, _ = listener.accept()
            theirs.send(accepted.recv(1000) or b"silence")
            os._exit(0)
        assert ours.recv(100) == b"listening"
        source = tmp_path / "source"
        source.write_bytes(b"secret")
        with pytest.raises(ProtocolError, match="65534"):
            daemon.run().save_file(source)
        assert ours.recv(100) == b"silence"
        os.waitpid(pid, 0)
