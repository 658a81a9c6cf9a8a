"""The spool: custody on disk. What it says is there is there, also after a power cut.

The asynchronous face of `jobs` and `reports`: each method is one operation of the database, and returns when it
is on disk. It also keeps the quota true and wakes who waits for jobs to end.
"""

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread

from dropoff.content import Capture, Content
from dropoff.errors import SpoolFullError
from dropoff.messages import FINAL_STATES, JobReport, JobState, Receipt, Total
from dropoff.records import Entry
from dropoff.saves import Save
from dropoffd.custody import Addition, Candidate, Digest, Job, Note, Orphan, UploadBegun
from dropoffd.spool import arrivals, jobs, reports, uploads, versions
from dropoffd.spool.arrivals import Arrivals
from dropoffd.spool.database import Database
from dropoffd.spool.quota import Quota
from dropoffd.stores.base import Part

_WINDOW_PER_RUN, _WINDOW_OLDEST, _WINDOW_RUNS = 32, 32, 64
_PRUNE_EVERY = 1000
_RUNS_REMEMBERED = 1000
_SWEEP_AT_ONCE = 500


class Spool:
    """The spool in a state directory; open it before use."""

    def __init__(self, state_dir: str, quota_bytes: int, floor_bytes: int, history_jobs: int) -> None:
        self._state_dir = state_dir
        path = os.path.join(state_dir, "spool.db")
        self._arrivals = Arrivals(arrivals.path_beside(path))
        self._database = Database(path, self._arrivals)
        self._numbers = itertools.count(1)
        self._history = history_jobs
        self._ended_since_prune = 0
        self._runs: dict[tuple[str, str, str], int] = {}
        self.quota = Quota(state_dir, quota_bytes, floor_bytes, 0)
        self.on_advance: Callable[[int], None] = lambda _: None
        """Told the job whenever a row says that the store confirmed some of it."""
        self.changed = anyio.Event()
        """Set, and replaced, whenever a job ended or began to need a person."""

    async def open(self) -> None:
        """Open the database; raises StartError, and SpoolFullError when there is no space to begin with."""
        await self._database.open()
        await self._database.run(arrivals.take_over)
        last, state = await self._database.run(lambda c: (jobs.last_seq(c), arrivals.state(c)))
        newest = await anyio.to_thread.run_sync(partial(self._arrivals.open, state))
        self._numbers = itertools.count(max(last, newest) + 1)
        in_custody = [total for state, total in (await self.totals()).items() if state not in FINAL_STATES]
        self.quota.used_bytes = sum(total.size_bytes for total in in_custody) + sum(
            one.content.size_bytes for one in self._arrivals.unfiled
        )

    async def aclose(self) -> None:
        """Close the database when all that was asked for is on disk."""
        await self._database.aclose()
        self._arrivals.close()

    @property
    def prompt(self) -> bool:
        """Tell whether a file would be taken at once, so that it may hold up the event loop."""
        return self._arrivals.prompt and self._database.works

    def accept_at_once(self, save: Save, content: Content) -> int | None:
        """Take a file into custody here and now, under a new id; None, and nothing done, where `accept` has to do it.

        That is so while it is not `prompt`, and for the first save of a run. Raises SpoolBrokenError.
        """
        run = self._runs.get(_key(save))
        if run is None or not self.prompt:
            return None
        seq = next(self._numbers)
        try:
            arrived = self._arrivals.add(seq, run, save, content)
        except OSError as error:
            raise self._database.broke(error) from error
        if arrived and self._arrivals.filing_is_due:
            self._database.run_prelude()
        return seq if arrived else None

    async def accept(
        self, save: Save, contents: Sequence[Content], skipped: Sequence[str], now: float = 0.0
    ) -> int | None:
        """Take a job into custody and return its `seq`, or None if its id is known; `now` counts for parts alone."""
        key = _key(save)
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= _RUNS_REMEMBERED:
                self._runs.clear()
            run = self._runs[key] = await self._database.run(lambda c: jobs.run_of(c, key))
        known_run = run

        def operation(connection: sqlite3.Connection) -> int | None:
            # Only now: before it are those that were filed in this transaction.
            seq = next(self._numbers)
            if self._is_unfiled(save.job) or not jobs.accept(connection, seq, known_run, save, contents, skipped):
                return None
            if save.part is not None:
                versions.stage(connection, seq, save.part, now)
            if save.version is not None:
                versions.claim(connection, seq, known_run, save, save.version)
            return seq

        return await self._database.run(operation)

    async def known(self, job: str) -> bool:
        """Tell whether a job of that id is or was in custody."""
        return await self._database.run(lambda c: jobs.known(c, job) or self._is_unfiled(job))

    async def older_of_name(self, seq: int) -> list[int]:
        """Return the undelivered jobs that the job `seq`, saved with keep="newest", supersedes."""
        return await self._database.run(lambda c: jobs.older_of_name(c, seq))

    async def load(self, seq: int) -> Job | None:
        """Return a job with its contents, or None if it ended."""
        return await self._database.run(lambda c: jobs.load(c, seq))

    async def busy_stores(self) -> dict[int, str]:
        """Return the stores, by number, that jobs are queued for, with their URLs."""
        return await self._database.run(jobs.busy_stores)

    async def window(self, store: int) -> list[Candidate]:
        """Return the jobs that could be next to go to a store."""
        return await self._database.run(
            lambda c: jobs.window(c, store, _WINDOW_PER_RUN, _WINDOW_OLDEST, _WINDOW_RUNS)
        )

    async def digested(self, seq: int, sums: Sequence[tuple[int, Digest]]) -> None:
        """Record the digests of contents by ordinal."""
        await self._database.run(lambda c: jobs.digested(c, seq, sums))

    async def stored(self, seq: int, ordinal: int, key: str) -> None:
        """Record that the store confirmed a content under `key`."""
        await self._database.run(lambda c: jobs.stored(c, seq, ordinal, key))
        self.on_advance(seq)

    async def upload_begun(self, seq: int, ordinal: int, upload: UploadBegun) -> None:
        """Record that an upload in parts is being begun, or was."""
        await self._database.run(lambda c: uploads.begun(c, seq, ordinal, upload))

    async def upload(self, seq: int, ordinal: int) -> UploadBegun | None:
        """Return the upload of a content, if one was begun."""
        return await self._database.run(lambda c: uploads.find(c, seq, ordinal))

    async def part_stored(self, seq: int, ordinal: int, part: Part) -> None:
        """Record that the store confirmed a part."""
        await self._database.run(lambda c: uploads.part_stored(c, seq, ordinal, part))
        self.on_advance(seq)

    async def parts(self, seq: int, ordinal: int) -> list[Part]:
        """Return the parts that the store confirmed, in order."""
        return await self._database.run(lambda c: uploads.parts(c, seq, ordinal))

    async def forget_upload(self, seq: int, ordinal: int) -> None:
        """Forget an upload that is gone."""
        await self._database.run(lambda c: uploads.forget(c, seq, ordinal))

    async def orphans(self, most: int) -> Sequence[Orphan]:
        """Return uploads that nobody will finish."""
        return await self._database.run(lambda c: uploads.orphans(c, most))

    async def replace_content(self, seq: int, new: Content) -> bool:
        """Record that a content lies elsewhere now; False if its job ended meanwhile."""

        def operation(connection: sqlite3.Connection) -> bool:
            if any(one.seq == seq for one in self._arrivals.unfiled):
                raise SpoolFullError("unable to write where a content is: its job has no row yet, for want of space")
            return jobs.replace_content(connection, seq, new)

        return await self._database.run(operation)

    async def finish(self, seq: int, state: JobState, receipt: Receipt | None = None, reason: str = "") -> bool:
        """End a job and drop its content; False if it had ended before."""

        def operation(connection: sqlite3.Connection) -> tuple[int, list[bytes]] | None:
            ended = jobs.finish(connection, seq, state, receipt, reason)
            if ended is not None:
                versions.after_end(connection, seq, state, receipt)
            return ended

        ended = await self._database.run(operation)
        if ended is None:
            return False
        size, places = ended
        if places:
            await anyio.to_thread.run_sync(partial(self._remove, places))
        self.quota.release(size)
        self._announce()
        self._ended_since_prune += 1
        if self._ended_since_prune >= _PRUNE_EVERY:
            self._ended_since_prune = 0
            await self._database.run(lambda c: jobs.prune(c, self._history))
        return True

    async def postpone(self, seq: int, due_at: float, reason: str) -> None:
        """Let a job wait until `due_at` (seconds since the epoch)."""
        await self._database.run(lambda c: jobs.postpone(c, seq, due_at, reason))

    async def hold(self, seq: int, reason: str, hint: str) -> None:
        """Keep a job until a person decides."""

        def operation(connection: sqlite3.Connection) -> None:
            jobs.hold(connection, seq, reason, hint)
            versions.after_hold(connection, seq, reason, hint)

        await self._database.run(operation)
        self._announce()

    async def requeue_due(self, now: float, most_seconds: float) -> float | None:
        """Put jobs whose time has come back in the queue; return when the next is due."""

        def operation(connection: sqlite3.Connection) -> float | None:
            jobs.requeue_due(connection, now, most_seconds)
            return jobs.next_due(connection)

        return await self._database.run(operation)

    async def requeue(self, seqs: Sequence[int] | None) -> int:
        """Put held and waiting jobs (all held ones for None) back in the queue."""

        def operation(connection: sqlite3.Connection) -> int:
            count = jobs.requeue(connection, seqs if seqs is None else versions.with_parts(connection, seqs))
            versions.after_requeue(connection)
            return count

        return await self._database.run(operation)

    async def unsettled(self) -> list[tuple[str, int, Content]]:
        """Return every content that rests on a hard link or is not synced."""

        def operation(connection: sqlite3.Connection) -> list[tuple[str, int, Content]]:
            unfiled = [(one.save.job, one.seq, one.content) for one in self._arrivals.unfiled]
            return jobs.unsettled(connection) + [one for one in unfiled if one[2].capture is not Capture.INLINE]

        return await self._database.run(operation)

    async def run_published(self, run: int) -> bool:
        """Tell whether the run's own record is known to be in the store."""
        return await self._database.run(lambda c: jobs.run_published(c, run))

    async def publish_run(self, run: int) -> None:
        """Record that the run's own record is in the store."""
        await self._database.run(lambda c: jobs.publish_run(c, run))

    async def additions(self, draft: str) -> list[Addition]:
        """Return what was added to a draft, with the names it brings."""
        return await self._database.run(lambda c: versions.additions(c, draft))

    async def known_type(self, save: Save) -> str:
        """Return the type under which this host knows the artifact of a version; empty if it does not."""
        return await self._database.run(lambda c: versions.known_type(c, save))

    async def record_entries(self, seq: int, entries: Sequence[tuple[int, Entry, float]]) -> None:
        """Record what the manifest will say of stored files of a part, by ordinal."""
        await self._database.run(lambda c: versions.record_entries(c, seq, entries))

    async def stored_additions(self, version: int) -> list[Addition]:
        """Return the parts of a version with their entries, by position."""
        return await self._database.run(lambda c: versions.stored_additions(c, version))

    async def note(self, seq: int) -> Note:
        """Return what an earlier try of a version's delivery was about to do."""
        return await self._database.run(lambda c: versions.note(c, seq))

    async def set_note(self, seq: int, note: Note) -> None:
        """Record what a version's delivery is about to do."""
        await self._database.run(lambda c: versions.set_note(c, seq, note))

    async def family(self, seq: int) -> list[int]:
        """Return a job, or the version that it is or belongs to, with all the parts that have not ended."""
        return await self._database.run(lambda c: versions.family(c, seq))

    async def unlogged(self, before: float) -> list[int]:
        """Return the staged jobs of drafts to which nothing was added since `before` (seconds since the epoch)."""
        return await self._database.run(lambda c: versions.unlogged(c, before))

    async def homes(self) -> list[str]:
        """Return the directories outside the state directory that may hold links of ours."""
        return [os.fsdecode(path) for path in await self._database.run(jobs.homes)]

    async def add_home(self, path: str) -> None:
        """Remember such a directory."""
        await self._database.run(lambda c: jobs.add_home(c, os.fsencode(path)))

    async def set_meta(self, key: str, value: str) -> None:
        """Remember a value."""
        await self._database.run(lambda c: jobs.set_meta(c, key, value))

    async def meta(self, key: str) -> str | None:
        """Return a remembered value."""
        return await self._database.run(lambda c: jobs.meta(c, key))

    async def sweep(self, places: Sequence[bytes]) -> None:
        """Remove those payload files, found at start, that no job needs."""
        for start in range(0, len(places), _SWEEP_AT_ONCE):
            some = places[start : start + _SWEEP_AT_ONCE]
            needed = await self._database.run(lambda c, some=some: jobs.referenced(c, some))  # type: ignore[misc]
            needed |= {one.content.place for one in self._arrivals.unfiled}
            await anyio.to_thread.run_sync(partial(self._remove, [p for p in some if p not in needed]))

    async def totals(self) -> dict[JobState, Total]:
        """Return how many jobs and bytes are in each state."""
        return await self._database.run(reports.totals)

    async def listed(self, states: Sequence[JobState], limit: int, before: int | None) -> list[JobReport]:
        """Return up to `limit` jobs below `before`, newest first."""
        return await self._database.run(lambda c: reports.listed(c, states, limit, before))

    async def found(self, job: str) -> list[JobReport]:
        """Return the jobs whose id begins with `job`: none, the one, or two."""
        return await self._database.run(lambda c: reports.found(c, job))

    async def numbered(self, seqs: Sequence[int]) -> list[JobReport]:
        """Return these jobs."""
        return await self._database.run(lambda c: reports.numbered(c, seqs))

    async def settled(self, named: Sequence[str], run: tuple[str, str] | None) -> tuple[int, int, list[JobReport]]:
        """Count the jobs that want waiting and the delivered; list the troubled."""

        def operation(connection: sqlite3.Connection) -> tuple[int, int, list[JobReport]]:
            pending, delivered, troubled = reports.settled(connection, named, run)
            # What could not be filed, on a full disk, is nobody's in particular and everybody's to wait for.
            return pending + len(self._arrivals.unfiled), delivered, troubled

        return await self._database.run(operation)

    @property
    def waits_for_space(self) -> bool:
        """Tell whether there are jobs that nobody is told of, since the disk had no space for their rows."""
        return bool(self._arrivals.unfiled)

    def _is_unfiled(self, job: str) -> bool:
        return any(one.save.job == job for one in self._arrivals.unfiled)

    def _announce(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def _remove(self, places: Sequence[bytes]) -> None:
        for place in places:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._state_dir, os.fsdecode(place)))


def _key(save: Save) -> tuple[str, str, str]:
    return save.run.project, save.run.name, save.run.store
