"""A store that is filled by hand, with objects as old as a test wants them."""

import hashlib
import os
import time
from pathlib import Path

from daemon.making import job_id
from dropoff.answers import Collected
from dropoff.records import Claim, Entry, Manifest, Record, encode
from dropoff.saves import Category, Kind
from dropoffd.catalogue import keys
from dropoffd.clock import SystemClock
from dropoffd.collecting import Collector
from dropoffd.stores.base import Bytes, Overwrite, ignore_progress
from dropoffd.stores.directory.store import DirectoryStore

HOUR = 3600.0
GRACE = 24 * HOUR


class Shelf:
    """A store that is filled by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: DirectoryStore = DirectoryStore(str(root))

    async def put(self, key: str, data: bytes = b"content", hours: float = 0) -> str:
        """Store an object so many hours ago."""
        await self.store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)
        self.age(key, hours)
        return key

    def age(self, key: str, hours: float) -> None:
        """Let an object have been stored so many hours ago."""
        moment = time.time() - hours * HOUR
        os.utime(self.root / key, (moment, moment))

    async def content(self, name: str, hours: float = 48) -> str:
        """Store a content so many hours ago."""
        return await self.put(f"cv/files/{name}", hours=hours)

    async def record(self, number: int, *named: str) -> None:
        """Store a record that names objects."""
        record = Record(
            job=job_id(number), project="cv", run="run", kind=Kind.FILE, name="a", category=Category.OUTPUT,
            created="", entries=entries(named),
        )  # fmt: skip
        await self.put(f"{keys.records_prefix('cv', 'run')}{record.job}.json", encode(record))

    async def claim(self, number: int, *named: str, hours: float = 0) -> str:
        """Claim objects for a job."""
        claim = Claim(job=job_id(number), keys=named, created=f"{time.time()}")
        return await self.put(keys.claim_key("cv", job_id(number)), encode(claim), hours=hours)

    async def collect(self, *, apply: bool = True, grace: float = GRACE) -> Collected:
        """Collect garbage."""
        return await Collector(self.store, "cv", grace, SystemClock()).run(apply=apply)

    @property
    def contents(self) -> set[str]:
        """The keys of content that is there."""
        return {str(path.relative_to(self.root)) for path in self.root.glob("cv/files/**/*") if path.is_file()}


def entries(named: tuple[str, ...]) -> tuple[Entry, ...]:
    """Return entries that name objects."""
    return tuple(Entry(path=key, key=key, size=7, sha256="3" * 64, mode="0644", mtime="") for key in named)


def manifest(number: int, *named: str) -> bytes:
    """Return a manifest that names objects."""
    made = Manifest(
        project="cv", artifact="cats", type="dataset", version=number, digest="", size=7, created="",
        job=job_id(number), run="run", entries=entries(named),
    )  # fmt: skip
    return encode(made)
