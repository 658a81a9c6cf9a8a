"""A daemon, a server that speaks S3, and the road between them, which a test breaks and mends."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dropoff.delivery import Delivery
from support.daemon import DaemonProcess
from support.fault_server.calls import Operation
from support.fault_server.journal import Seen
from support.fault_server.server import FaultServer
from support.nameserver import NameServer
from support.network import Network
from support.proxy import Proxy

PART_BYTES, PARTS = 8 << 20, 8
IN_FLIGHT = 4
# A part in flight takes about 3 s.
_SPEED_BYTES = 10 << 20
WAIT_SECONDS = 60.0
_PAUSE_SECONDS = 0.01
_LEFT_ALONE = "store is left alone"
_NAME = "store.example"
_ASKS_OURS = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s"
        time.sleep(_PAUSE_SECONDS)


def url(server: FaultServer, endpoint: str) -> str:
    """Return the server's bucket, reached at `endpoint`, as the URL of a store."""
    return f"s3://{server.address.bucket}/prefix?endpoint={endpoint}&region={server.address.region}"


class Site:
    """The two ends of a road: `server` at its far end, `daemon` at the near one."""

    def __init__(
        self, home: Path, server: FaultServer, endpoint: str, prefix: tuple[str, ...] = (), **settings: object
    ) -> None:
        self.home = home
        self.server = server
        self.daemon = DaemonProcess(home, store=url(server, endpoint), in_flight_max=IN_FLIGHT, **settings)
        self.daemon.environment |= {
            "AWS_ACCESS_KEY_ID": server.keys.access_key,
            "AWS_SECRET_ACCESS_KEY": server.keys.secret_key,
            "no_proxy": "*",
        }
        self._prefix = prefix

    def start(self) -> None:
        """Start the daemon, also after it was killed."""
        self.daemon.start(self._prefix)

    def save(self, size: int, name: str) -> Delivery:
        """Hand over a file of random bytes."""
        path = self.home / name
        path.write_bytes(os.urandom(size))
        return self.daemon.run().save_file(path)

    def begun(self, parts: int = 2) -> Delivery:
        """Hand a large file over; return when that many of its parts are stored and another is not half sent."""
        saved = self.save(PARTS * PART_BYTES, "large")
        self.server.journal.wait(
            lambda: len(self.stored) >= parts and any(0 < one.received_bytes < PART_BYTES // 2 for one in self.parts)
        )
        return saved

    @property
    def parts(self) -> list[Seen]:
        """Each time that a part of the large file was sent."""
        return [one for one in self.server.journal.requests(Operation.PART) if one.call.key.endswith("/large")]

    @property
    def stored(self) -> set[int]:
        """Its parts that the server took."""
        return {one.call.part for one in self.parts if one.status == 200}

    @property
    def arrived_bytes(self) -> int:
        """How many of its bytes arrived, those that came twice included."""
        return sum(one.received_bytes for one in self.parts)

    def goes_on(self, since: float) -> float:
        """Wait until the upload was taken up since then and a part arrives; return how long that took."""
        journal = self.server.journal

        def arrives() -> bool:
            # What a connection that was given up had in its buffers arrives, too, but nobody asked for the parts.
            asked = [one.at_seconds for one in journal.requests(Operation.PARTS) if one.at_seconds > since]
            return any(asked and one.at_seconds > asked[0] and one.received_bytes for one in self.parts)

        journal.wait(arrives)
        return time.monotonic() - since

    def is_left_alone(self) -> bool:
        """Tell whether the daemon ever found the store away."""
        return any(_LEFT_ALONE in line for line in self.daemon.log)

    def until_left_alone(self, times: int = 1, *, after: int = 0) -> None:
        """Wait until the daemon found the store away so many times, from that line of its log on."""
        self.until_logged(_LEFT_ALONE, times, after=after)

    def until_logged(self, text: str, times: int = 1, *, after: int = 0) -> None:
        """Wait until so many lines of the daemon's log, from that one on, have the text."""
        _until(lambda: sum(text in line for line in self.daemon.log[after:]) >= times)

    def left_alone(self) -> list[dict[str, Any]]:
        """Return what `dropoff status` says of stores that are left alone."""
        found: list[dict[str, Any]] = json.loads(self.daemon.command("status", "--json").stdout)["stores"]
        return found

    def check_arrival(self, saved: Delivery) -> None:
        """Assert that a job is delivered with its bytes, and none of its tries used up."""
        receipt = saved.wait(WAIT_SECONDS)
        (key,) = (key for key in self.server.objects if key.endswith(receipt.key))
        assert hashlib.sha256(self.server.content(key)).hexdigest() == receipt.sha256
        report = saved.report()
        assert report is not None
        assert report.attempts == 0

    def check_large_arrival(self, saved: Delivery, outages: int = 1) -> None:
        """Assert `check_arrival`, and that no more was sent again than what was in flight at each outage."""
        self.check_arrival(saved)
        assert self.arrived_bytes - PARTS * PART_BYTES <= outages * IN_FLIGHT * PART_BYTES, self.parts


@contextmanager
def networked(home: Path, **settings: object) -> Iterator[tuple[Network, Site]]:
    """Make a slow network with a server and a daemon, not yet started, at its ends."""
    with ExitStack() as stack:
        network, server = _ends(stack, home)
        site = Site(home, server, server.address.endpoint, network.client.prefix, **settings)
        stack.callback(site.daemon.end)
        yield network, site


@contextmanager
def named(home: Path) -> Iterator[tuple[Network, Site, NameServer]]:
    """Make the same, but the daemon knows the server by a name, for which it asks a name server beside it."""
    with ExitStack() as stack:
        network, server = _ends(stack, home)
        with network.server.inside():
            names = stack.enter_context(NameServer(network.address, network.address))
        asks = home / "resolv.conf"
        asks.write_text(f"nameserver {network.address}\n")
        prefix = (*network.client.prefix, "unshare", "--mount", "sh", "-c", _ASKS_OURS, str(asks))
        site = Site(home, server, server.address.endpoint.replace(network.address, _NAME), prefix)
        stack.callback(site.daemon.end)
        yield network, site, names


def _ends(stack: ExitStack, home: Path) -> tuple[Network, FaultServer]:
    network = Network()
    stack.callback(network.close)
    network.set_speed(_SPEED_BYTES)
    (home / "server").mkdir()
    with network.server.inside():
        return network, stack.enter_context(FaultServer(home / "server", host=network.address))


@contextmanager
def proxied(home: Path) -> Iterator[tuple[Proxy, Site]]:
    """Make a slow proxy between a server and a daemon, not yet started, all on loopback."""
    with ExitStack() as stack:
        (home / "server").mkdir()
        server = stack.enter_context(FaultServer(home / "server"))
        proxy = stack.enter_context(Proxy(_place(server), _SPEED_BYTES // IN_FLIGHT))
        host, port = proxy.address
        site = Site(home, server, f"http://{host}:{port}")
        stack.callback(site.daemon.end)
        yield proxy, site


def _place(server: FaultServer) -> tuple[str, int]:
    found = urlsplit(server.address.endpoint)
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port
