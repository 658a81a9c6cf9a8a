"""Tell systemd how we do (sd_notify(3)); nothing happens where nobody asked to be told."""

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send `state`, such as "READY=1", to the service manager."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # A manager that cannot be told will notice by its own timeouts.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)


def watchdog_seconds() -> float | None:
    """Return how often systemd wants a sign of life, or None if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC")
    if not microseconds or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2e6
