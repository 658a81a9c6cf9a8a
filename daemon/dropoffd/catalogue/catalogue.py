"""The catalogue as the worker sees it: keys for content, and publishing."""

from collections.abc import Awaitable, Callable, Mapping

from dropoff.content import Capture
from dropoff.messages import Receipt
from dropoffd.catalogue import keys
from dropoffd.catalogue.publish import entry_name, publish, publish_run
from dropoffd.clock import Clock
from dropoffd.custody import Held, Job
from dropoffd.stores.base import Store


class Catalogue:
    """Publishes jobs; a run's own record goes before its first."""

    def __init__(
        self,
        clock: Clock,
        run_published: Callable[[int], Awaitable[bool]],
        record_run_published: Callable[[int], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._run_published = run_published
        self._record_run_published = record_run_published

    def key(self, job: Job, held: Held) -> str:
        """Return the key of a digested content."""
        if held.content.capture is Capture.PACK:
            return keys.pack_key(job.save, held.sha256)
        return keys.file_key(job.save, entry_name(job.save, held.content.path), held.sha256)

    async def publish(self, store: Store, job: Job, places: Mapping[int, tuple[str, int | None]]) -> Receipt:
        """Make the job visible; `places` are key and offset by ordinal."""
        if not await self._run_published(job.run):
            await publish_run(store, job.save.run)
            await self._record_run_published(job.run)
        return await publish(store, job, places, self._clock.now())
