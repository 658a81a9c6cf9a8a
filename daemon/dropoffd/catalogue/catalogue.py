"""The catalogue as deliveries see it: keys for content, and publishing."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dropoff.content import Capture
from dropoff.messages import Receipt
from dropoff.records import Entry
from dropoffd.catalogue import keys
from dropoffd.catalogue.claims import claimed, is_proven
from dropoffd.catalogue.publish import entry, entry_name, publish, publish_run
from dropoffd.catalogue.references import Looks
from dropoffd.catalogue.versions import Facts as VersionFacts
from dropoffd.catalogue.versions import Versions
from dropoffd.clock import Clock
from dropoffd.custody import Held, Job
from dropoffd.stores.base import Store

# Of objects of which it is known by other means that they are there.
_JUST_NOW: Mapping[str, float] = {}
_RUNS_REMEMBERED = 1000


class Facts(VersionFacts, Protocol):
    """Where facts become rows."""

    async def run_published(self, run: int) -> bool:
        """Tell whether the run's own record is known to be in the store."""

    async def publish_run(self, run: int) -> None:
        """Record that it is."""

    async def record_entries(self, seq: int, entries: Sequence[tuple[int, Entry, float]]) -> None:
        """Record what the manifest will say of stored files of a part, by ordinal, and since when that is sure."""


class Catalogue:
    """Publishes jobs; a run's own record goes before its first."""

    def __init__(self, clock: Clock, facts: Facts, references: Looks) -> None:
        self._clock = clock
        self._facts = facts
        self._runs: set[int] = set()
        self.versions = Versions(clock, facts, references)

    def key(self, job: Job, held: Held) -> str:
        """Return the key of a digested content."""
        if held.content.capture is Capture.PACK:
            return keys.pack_key(job.save, held.sha256)
        return keys.file_key(job.save, entry_name(job.save, held.content.path), held.sha256)

    async def publish(
        self,
        store: Store,
        job: Job,
        places: Mapping[int, tuple[str, int | None]],
        proven_at: Mapping[str, float] = _JUST_NOW,
    ) -> Receipt:
        """Make the job visible; `places` are key and offset by ordinal. A part is left to its version.

        Those objects that were not `proven_at` a time that is near are made sure of; raises VanishedError for what is
        gone.
        """
        if job.run not in self._runs:
            await self._publish_run(store, job)
        if job.save.version is not None:
            return await self.versions.publish(store, job)
        if job.save.part is not None:
            return await self.record(store, job, places, proven_at)
        now = self._clock.now()
        unproven = [key for key, moment in proven_at.items() if not is_proven(moment, now)]
        async with claimed(store, job.save.run.project, job.id, unproven, now):
            return await publish(store, job, places, now)

    async def _publish_run(self, store: Store, job: Job) -> None:
        if not await self._facts.run_published(job.run):
            await publish_run(store, job.save.run)
            await self._facts.publish_run(job.run)
        if len(self._runs) >= _RUNS_REMEMBERED:
            self._runs.clear()
        self._runs.add(job.run)

    async def record(
        self,
        store: Store,
        job: Job,
        places: Mapping[int, tuple[str, int | None]],
        proven_at: Mapping[str, float] = _JUST_NOW,
    ) -> Receipt:
        """Note what the manifest will say of those files of a part that are stored at `places`.

        The version makes sure of objects that were not `proven_at` a time that is near then.
        """
        files = [held for held in job.contents if held.content.ordinal in places]
        now = self._clock.now()
        entries = [
            (held.content.ordinal, entry(job.save, held, key, offset), proven_at.get(key, now))
            for held in files
            for key, offset in (places[held.content.ordinal],)
        ]
        await self._facts.record_entries(job.seq, entries)
        return Receipt(
            job=job.id, store=store.url, record="", key=entries[0][1].key if len(entries) == 1 else "",
            size_bytes=job.size_bytes, sha256=files[0].sha256 if len(files) == 1 else "", files=len(files),
            delivered_at=self._clock.now(),
        )  # fmt: skip
