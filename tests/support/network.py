"""A network of the tests' own: a client, a router and a server, each in a namespace, joined by veth pairs.

The namespaces have no names: they last as long as this process has them open, so nothing is left however it ends, and
what a test breaks is broken in there alone. Addresses are those for documentation (RFC 5737), which no machine has.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.servers.process import UnavailableError, require

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_CLIENT, _CLIENT_SIDE = "192.0.2.2", "192.0.2.1"
_SERVER, _SERVER_SIDE = "198.51.100.2", "198.51.100.1"
# More than a packet may be before the network card would cut it up, else tbf drops it.
_BURST_BYTES = 128 << 10
_QUEUE_MS = 100
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """One namespace, its loopback up."""

    def __init__(self) -> None:
        """Make it; raises UnavailableError."""
        before = os.open(_HERE, os.O_RDONLY)
        try:
            if _libc.unshare(_CLONE_NEWNET):
                raise UnavailableError(f"network namespaces: {os.strerror(ctypes.get_errno())}")
            self._fd = os.open(_HERE, os.O_RDONLY)
            _enter(before)
        finally:
            os.close(before)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.prefix = ("nsenter", f"--net={self.path}")
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str) -> None:
        """Run a command there."""
        try:
            subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread live there; sockets, threads and processes that it makes stay."""
        before = os.open(_HERE, os.O_RDONLY)
        _enter(self._fd)
        try:
            yield
        finally:
            _enter(before)
            os.close(before)

    def close(self) -> None:
        """Let go of it: it ends with the last process and socket in it."""
        os.close(self._fd)


class Network:
    """The client reaches the server through the router, until something is done about it."""

    def __init__(self) -> None:
        """Make it; raises UnavailableError where that cannot be done."""
        if os.geteuid() != 0:
            raise UnavailableError("only root can make namespaces")
        require("ip", "tc", "nft", "nsenter")
        self._hosts: list[Host] = []
        try:
            self.client, self._router, self.server = (self._new_host() for _ in range(3))
            self._router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self._join(self.client, _CLIENT, "client", _CLIENT_SIDE)
            self._join(self.server, _SERVER, "server", _SERVER_SIDE)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where the server is."""
        return _SERVER

    def set_speed(self, bytes_per_second: int | None) -> None:
        """Let no more go to the server; None is unlimited."""
        shape = ["dev", "server", "root"]
        if bytes_per_second is None:
            self._router.run("tc", "qdisc", "del", *shape)
            return
        rate, burst, queue = f"{bytes_per_second * 8}bit", str(_BURST_BYTES), f"{_QUEUE_MS}ms"
        self._router.run("tc", "qdisc", "replace", *shape, "tbf", "rate", rate, "burst", burst, "latency", queue)

    def cut(self) -> None:
        """Drop every packet in the router, both ways, without a word."""
        self._filter()

    def reset(self) -> None:
        """Answer every packet with an RST in the router, as a firewall does that forgot its connections."""
        self._filter("ip protocol tcp reject with tcp reset;")

    def mend(self) -> None:
        """Let packets through again, after `cut` and `reset`."""
        self._router.run("nft", "delete table ip fault")

    def unplug(self) -> None:
        """Take the cable out at the client: the carrier is lost."""
        self._router.run("ip", "link", "set", "client", "down")

    def plug(self) -> None:
        """Put it in again."""
        self._router.run("ip", "link", "set", "client", "up")

    def take_link_down(self) -> None:
        """Switch the client's interface off: its routes are gone, too."""
        self.client.run("ip", "link", "set", "lan", "down")

    def bring_link_up(self) -> None:
        """Switch it on again."""
        self.client.run("ip", "link", "set", "lan", "up")
        self._route(self.client, _CLIENT_SIDE)

    def take_address(self) -> None:
        """Take the server its address: after a while the router says that nobody has it."""
        self.server.run("ip", "address", "del", f"{_SERVER}/30", "dev", "lan")

    def give_address(self) -> None:
        """Give it back."""
        self.server.run("ip", "address", "add", f"{_SERVER}/30", "dev", "lan")
        self._route(self.server, _SERVER_SIDE)

    def close(self) -> None:
        """Let go of all of it."""
        for host in self._hosts:
            host.close()

    def _new_host(self) -> Host:
        self._hosts.append(Host())
        return self._hosts[-1]

    def _join(self, host: Host, address: str, name: str, router: str) -> None:
        host.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", name, "netns", self._router.path)
        for end, device, its in ((host, "lan", address), (self._router, name, router)):
            end.run("ip", "address", "add", f"{its}/30", "dev", device)
            end.run("ip", "link", "set", device, "up")
        self._route(host, router)

    def _route(self, host: Host, router: str) -> None:
        host.run("ip", "route", "replace", "default", "via", router)

    def _filter(self, rule: str = "") -> None:
        chain = f"type filter hook forward priority 0; policy drop; {rule}"
        self._router.run("nft", f"table ip fault {{ chain forwarded {{ {chain} }}; }}")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
