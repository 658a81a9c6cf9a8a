"""Ceph's RADOS Gateway: a store that is in production everywhere, with one monitor and one OSD in memory behind it.

It verifies signatures, the clock, payload digests and Content-MD5; version 16 ignores `x-amz-checksum-*` and
conditions on completing an upload.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from support.ports import reserved
from support.servers.address import Address
from support.servers.process import READY_SECONDS, Process, require
from support.servers.server import keys, new_bucket

_PAUSE_SECONDS = 0.05
_COMMAND_SECONDS = 20
# Everything that writes to a disk, waits for more of its kind, or asks who is there, is off or short.
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
# The gateway's default for the first is `secure`, which without keys ends in -13 again and again.
ms mon client mode = crc
ms client mode = crc
ms cluster mode = crc
ms service mode = crc
ms crc data = false
log file = /dev/null
log to stderr = true
err to stderr = true
mon cluster log to file = false
admin socket =
run dir = {home}
crash dir = {home}/crash
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
mon initial members = a
mon data = {home}/mon
mon data avail warn = 1
mon data avail crit = 0
mon osd full ratio = .97
mon osd nearfull ratio = .95
mon osd backfillfull ratio = .96
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = {home}/osd
osd objectstore = memstore
osd class load list = *
osd class default list = *
osd max object name len = 2048
memstore device bytes = {most_bytes}
memstore page set = false
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw thread pool size = 64
"""
_MOST_BYTES = 12 << 30
_MEMORY = "/dev/shm"


class Rgw:
    """A gateway and the small cluster behind it, alone on this machine's loopback."""

    def __init__(self, configuration: Mapping[str, str] | None = None) -> None:
        """Start all of it in about 3 s; `configuration` is further settings of the gateway, as in ceph.conf."""
        require("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
        self._home = Path(tempfile.mkdtemp(prefix="dropoff-rgw-", dir=_MEMORY if os.path.isdir(_MEMORY) else None))
        self._ports = [reserved() for _ in range(3)]
        self._cluster: list[Process] = []
        self._gateway: Process | None = None
        access_key, secret_key = keys()
        try:
            self._configure(configuration or {})
            self._start_cluster()
            self.admin("user", "create", "--uid=test", "--display-name=test", "--max-buckets=0",
                       f"--access-key={access_key}", f"--secret-key={secret_key}")  # fmt: skip
            self.start()
            address = Address(
                endpoint=f"http://127.0.0.1:{self._port(0)}",
                region="default",
                bucket="",
                access_key=access_key,
                secret_key=secret_key,
            )
            self.address = new_bucket(address)
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start the gateway, also after `kill`: objects stay, they are with the OSD."""
        self._gateway = self._spawn("radosgw", "-f", "-n", "client.rgw.a")
        self._gateway.until_it_answers(self._port(0))

    def kill(self) -> None:
        """End the gateway as the kernel would; its port refuses connections."""
        assert self._gateway is not None
        self._gateway.kill()

    def freeze(self) -> None:
        """Stop the OSD where it is: requests hang."""
        self._cluster[-1].signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the OSD go on."""
        self._cluster[-1].signal(signal.SIGCONT)

    def admin(self, *arguments: str) -> str:
        """Run `radosgw-admin`: quotas, suspended users."""
        return self._run("radosgw-admin", "-c", self._configuration, *arguments)

    def stop(self) -> None:
        """End all of it and free its memory."""
        for process in (self._gateway, *reversed(self._cluster)):
            if process is not None:
                process.stop()
        for port in self._ports:
            port.close()
        shutil.rmtree(self._home)

    @property
    def _configuration(self) -> str:
        return str(self._home / "ceph.conf")

    def _port(self, number: int) -> int:
        return int(self._ports[number].getsockname()[1])

    def _configure(self, configuration: Mapping[str, str]) -> None:
        for name in ("mon", "osd", "crash"):
            (self._home / name).mkdir()
        self._fsid = str(uuid.uuid4())
        self._monitor = f"[v2:127.0.0.1:{self._port(1)},v1:127.0.0.1:{self._port(2)}]"
        text = _CONFIGURATION.format(
            fsid=self._fsid, monitor=self._monitor, home=self._home, most_bytes=_MOST_BYTES, port=self._port(0)
        )
        text += "".join(f"{name} = {value}\n" for name, value in configuration.items())
        Path(self._configuration).write_text(text)

    def _start_cluster(self) -> None:
        map_of_monitors = str(self._home / "monmap")
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._monitor, map_of_monitors)
        self._run("ceph-mon", "-c", self._configuration, "--mkfs", "-i", "a", "--monmap", map_of_monitors)
        self._cluster.append(self._spawn("ceph-mon", "-f", "-i", "a"))
        # The command waits for the monitor by itself.
        identity = str(uuid.uuid4())
        self._ceph("osd", "new", identity)
        self._run("ceph-osd", "-c", self._configuration, "-i", "0", "--mkfs", "--osd-uuid", identity)
        self._cluster.append(self._spawn("ceph-osd", "-f", "-i", "0"))
        deadline = time.monotonic() + READY_SECONDS
        while " 1 up" not in self._ceph("osd", "stat"):
            if time.monotonic() > deadline:
                raise RuntimeError("the OSD did not get ready")
            time.sleep(_PAUSE_SECONDS)

    def _spawn(self, program: str, *arguments: str) -> Process:
        return Process([program, "-c", self._configuration, *arguments], self._home / f"{program}.log")

    def _ceph(self, *arguments: str) -> str:
        return self._run("ceph", "-c", self._configuration, "--connect-timeout", str(_COMMAND_SECONDS), *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS * 2, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-4000:]}")
        return done.stdout
