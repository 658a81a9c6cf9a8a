"""A daemon that delivers to a fault server, what was saved to it, and the oracle that compares the two."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import dropoff
from support import oracle, stores
from support.daemon import DaemonProcess
from support.fault_server.calls import Operation
from support.fault_server.server import BUCKET, FaultServer

MIB = 1 << 20
# One that goes in one request and is held in memory, one that is not held, and one in three parts.
SMALL, MIDDLE, LARGE = 10_000, 400_000, 17 * MIB
PREFIX = "team"
WAIT_SECONDS = 60.0


class Site:
    """A bucket, a daemon whose store it is, and a directory of files to save."""

    def __init__(self, root: Path, server: FaultServer, **settings: object) -> None:
        self.root = root
        self.server = server
        self.saved: dict[str, dict[bytes, bytes]] = {}
        self._number = 0
        (root / "work").mkdir(parents=True)
        usual: dict[str, object] = {"store": stores.url(server.address, PREFIX), "retry_first_seconds": 0.05}
        self.daemon = DaemonProcess(root, **usual | settings)
        self.daemon.environment |= stores.environment(server.address)

    def start(self) -> "Site":
        """Start the daemon, and let it find out about the store with a first delivery."""
        self.daemon.start()
        self.delivered(SMALL)
        self.server.journal.clear()
        return self

    def end(self) -> None:
        """End the daemon at once."""
        self.daemon.end()

    def save(self, size: int, **arguments: object) -> dropoff.Delivery:
        """Save a new file of so many random bytes; `arguments` are the run's."""
        self._number += 1
        path = self.root / "work" / f"file-{self._number}"
        path.write_bytes(os.urandom(size))
        delivery = self.daemon.run(**arguments).save_file(path)  # type: ignore[arg-type]
        self.saved[delivery.id] = {path.name.encode(): path.read_bytes()}
        return delivery

    def delivered(self, size: int) -> None:
        """Save a new file and see it delivered."""
        self.save(size).wait(WAIT_SECONDS)

    def status(self) -> dict[str, Any]:
        """Return what `dropoff status` tells."""
        found: dict[str, Any] = json.loads(self.daemon.command("status", "--json", check=False).stdout)
        return found

    def check(self) -> None:
        """Hold the bucket against what was saved: each save is there once and true; nothing else is, nor is begun."""
        seen = self._downloaded()
        assert oracle.contents(seen) == self.saved
        records = oracle.records(seen)
        named = {entry["key"] for record in records.values() for entry in record["entries"]}
        stored = {str(path.relative_to(seen)) for path in seen.rglob("*") if path.is_file()}
        # Beside contents and their records nothing but the runs' own.
        beside = {key.rpartition("/")[2] for key in stored - named} - {"run.json"}
        assert beside == {f"{job}.json" for job in records}
        assert self.server.uploads == []

    def _downloaded(self) -> Path:
        seen = self.root / "seen"
        for key in self.server.objects:
            path = seen / key.removeprefix(f"{PREFIX}/")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.server.content(key))
        return seen

    def forget(self) -> None:
        """Begin with an empty bucket again."""
        for stored in self.server.objects.values():
            for piece in stored.pieces:
                os.unlink(piece.path)
        self.server._service.buckets[BUCKET].objects.clear()
        shutil.rmtree(self.root / "seen")
        self.saved.clear()

    def asked(self, operation: Operation) -> int:
        """Return how often something was asked of the server."""
        return len(self.server.journal.requests(operation))
