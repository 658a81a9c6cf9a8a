"""Make a version visible: one manifest under the next number, by one conditional create; then the aliases.

Numbers are given out by the store alone: who finds a number taken looks at what took it and tries the next. The
number is noted before the attempt, so that a try after a crash recognizes the manifest that it made.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from dropoff.errors import UsageError
from dropoff.ids import new_job_id
from dropoff.messages import Receipt
from dropoff.records import Entry, Manifest, Reference, content_digest, encode, entry_path
from dropoff.saves import Version
from dropoffd.catalogue import groups, keys
from dropoffd.catalogue.aliases import LATEST, advance, alias_record, move
from dropoffd.catalogue.claims import claimed, is_proven
from dropoffd.catalogue.compose import compose
from dropoffd.catalogue.links import made_output
from dropoffd.catalogue.newest import Newest, newest_standing, newest_version, version_at
from dropoffd.catalogue.publish import create, moment
from dropoffd.catalogue.references import LookedUp, Looks, bare
from dropoffd.clock import Clock
from dropoffd.custody import Addition, Job, Note
from dropoffd.errors import SourceChangedError, VanishedError
from dropoffd.stores.base import AlreadyExistsError, RefusedError, Store

SKIPPED_SHOWN = 100
NOTHING_KNOWN = LookedUp({}, ())


class Facts(Protocol):
    """What is known of a version in custody."""

    async def stored_additions(self, version: int) -> list[Addition]:
        """Return the parts of a version with their entries, by position."""

    async def note(self, seq: int) -> Note:
        """Return what an earlier try of a version's delivery was about to do."""

    async def set_note(self, seq: int, note: Note) -> None:
        """Record what a version's delivery is about to do."""


class Versions:
    """Publishes versions, and knows what the newest of an artifact holds."""

    def __init__(self, clock: Clock, facts: Facts, references: Looks) -> None:
        self._clock = clock
        self._facts = facts
        self._references = references

    async def publish(self, store: Store, job: Job) -> Receipt:
        """Make the version of `job` visible, unless the newest has the same content, and move its aliases.

        Raises StoreError; RefusedError if the artifact is of another type.
        """
        version = job.save.version
        assert version is not None, "only versions come here"  # noqa: S101  # a programming error
        additions = await self._facts.stored_additions(job.seq)
        if version.group is not None and not version.group.finish:
            return await self._contribute(store, job, version, additions)
        ours, number, sha256 = await self._named(store, job, version, additions)
        await self._move_aliases(store, job, version, number)
        await made_output(store, job.save.run, ours, number)
        if version.group is not None:
            await groups.clear(store, version.group, ours, number)
        return Receipt(
            job=job.id,
            store=store.url,
            record=keys.version_key(ours.project, ours.artifact, number),
            key=keys.version_key(ours.project, ours.artifact, number),
            size_bytes=ours.size,
            sha256=sha256,
            files=len(ours.entries) + len(ours.references),
            delivered_at=self._clock.now(),
            version=number,
            spared_bytes=sum(one.spared_bytes for one in additions),
        )

    async def _contribute(self, store: Store, job: Job, version: Version, additions: Sequence[Addition]) -> Receipt:
        """Bring what one of several writers has; it is visible once the group is finished."""
        assert version.group is not None, "only contributions come here"  # noqa: S101  # a programming error
        known = await self._references.look_up(version.pointers, store.url) if version.pointers else NOTHING_KNOWN
        ours = self._manifest(job, version, additions, known)
        async with self._sure(store, job, ours, additions):
            key = await groups.contribute(store, version.group, ours)
        return Receipt(
            job=job.id, store=store.url, record=key, key=key, size_bytes=ours.size, sha256=ours.digest,
            files=len(ours.entries) + len(ours.references), delivered_at=self._clock.now(),
            spared_bytes=sum(one.spared_bytes for one in additions),
        )  # fmt: skip

    def _manifest(self, job: Job, version: Version, additions: Sequence[Addition], known: LookedUp) -> Manifest:
        save = job.save
        added: list[tuple[int, bool, dict[bytes, Entry | Reference]]] = [
            (one.position, one.overwrite, {entry_path(entry): entry for entry in one.entries}) for one in additions
        ]
        try:
            content = compose(
                version, added, lambda pointer: dict(known.found.get(pointer.position) or bare(pointer))
            )
        except UsageError as error:  # of what prefixes hold nobody knew at the call
            raise RefusedError(error.message, hint=f"`dropoff cancel` drops this version; {error.hint}") from error
        entries = tuple(one for one in content.values() if isinstance(one, Entry))
        references = tuple(one for one in content.values() if isinstance(one, Reference))
        skipped = (*(line for one in additions for line in one.skipped), *known.skipped)
        return Manifest(
            project=save.run.project, artifact=save.name.decode(), type=version.type, version=0,
            digest=content_digest(entries, references), size=sum(entry.size for entry in entries),
            created=moment(save.created_at), job=job.id, run=save.run.name, entries=entries, references=references,
            description=save.description, tags=save.tags, metadata=save.metadata, ttl_seconds=version.ttl_seconds,
            skipped=skipped[:SKIPPED_SHOWN],
        )  # fmt: skip

    async def _named(
        self, store: Store, job: Job, version: Version, additions: Sequence[Addition]
    ) -> tuple[Manifest, int, str]:
        """Do as `_made`, once it is sure that all is there which the manifest names."""
        ours = self._manifest(job, version, additions, NOTHING_KNOWN)
        async with self._sure(store, job, ours, additions):
            return await self._made(store, job, version, additions, ours)

    @asynccontextmanager
    async def _sure(
        self, store: Store, job: Job, ours: Manifest, additions: Sequence[Addition]
    ) -> AsyncIterator[None]:
        """Be sure that what a manifest names is there, for as long as the block lasts."""
        wanted = _unproven(additions, self._clock.now()) & {entry.key for entry in ours.entries}
        try:
            async with claimed(store, ours.project, job.id, wanted, self._clock.now()):
                yield
        except VanishedError as error:
            raise RefusedError(
                f"unable to publish {ours.artifact!r}: {error.message}",
                hint="they were removed after they were delivered: log it again; `dropoff cancel` drops this version",
            ) from error

    async def _made(
        self, store: Store, job: Job, version: Version, additions: Sequence[Addition], ours: Manifest
    ) -> tuple[Manifest, int, str]:
        """Return the version with our content, newly made if need be, its number, and its manifest's sha256.

        `ours` is the manifest before anything is known of references.
        """
        if version.group is None:
            return await self._next(store, job, version, additions, ours)
        now = self._clock.now()
        finished = await groups.finish(store, version.group, ours, now)
        if finished.number is not None:
            made = await version_at(store, ours.project, ours.artifact, finished.number)
            return _checked(made, finished.manifest)
        async with claimed(store, ours.project, new_job_id(), finished.unproven, now):
            return await self._next(store, job, version, additions, finished.manifest)

    async def _next(
        self, store: Store, job: Job, version: Version, additions: Sequence[Addition], ours: Manifest
    ) -> tuple[Manifest, int, str]:
        """Do as `_made` for what is no group's, or not there yet."""
        noted = await self._facts.note(job.seq)
        if noted.number is not None:
            made = await version_at(store, ours.project, ours.artifact, noted.number)
            if made.manifest is not None and made.manifest.job == ours.job:
                return _checked(made, ours)
        newest = await newest_version(store, ours.project, ours.artifact)
        if newest.manifest is None and newest.number >= 0:  # it was removed; those before tell the type
            standing = await newest_standing(store, ours.project, ours.artifact)
            if standing.manifest is not None:
                _check_type(standing.manifest, ours)
        if version.pointers:
            known = await self._references.look_up(version.pointers, store.url)
            ours = self._manifest(job, version, additions, known)
        return await self._new(store, job, ours, noted, newest)

    async def _new(
        self, store: Store, job: Job, ours: Manifest, noted: Note, newest: Newest
    ) -> tuple[Manifest, int, str]:
        """Give a version the next number that nobody has, unless the newest has the same content."""
        while True:
            if newest.manifest is not None:
                _check_type(newest.manifest, ours)
                if newest.manifest.digest == ours.digest:
                    return ours, newest.number, newest.sha256
            number = newest.number + 1
            await self._facts.set_note(job.seq, msgspec.structs.replace(noted, number=number))
            data = encode(msgspec.structs.replace(ours, version=number, previous_sha256=newest.sha256))
            try:
                await create(store, keys.version_key(ours.project, ours.artifact, number), data)
            except AlreadyExistsError:
                newest = await version_at(store, ours.project, ours.artifact, number)
                if newest.manifest is not None and newest.manifest.job == ours.job:
                    return _checked(newest, ours)
            else:
                return ours, number, hashlib.sha256(data).hexdigest()

    async def _move_aliases(self, store: Store, job: Job, version: Version, number: int) -> None:
        project, artifact = job.save.run.project, job.save.name.decode()
        new = alias_record(number, self._clock.now(), job.id)
        await advance(store, keys.alias_key(project, artifact, LATEST), new)
        for alias in version.aliases:
            if alias == LATEST:
                continue
            noted = await self._facts.note(job.seq)

            async def note(etag: str, alias: str = alias, noted: Note = noted) -> None:
                aliases = noted.aliases | {alias: etag}
                await self._facts.set_note(job.seq, msgspec.structs.replace(noted, aliases=aliases))

            await move(store, keys.alias_key(project, artifact, alias), new, noted.aliases.get(alias), note)


def _unproven(additions: Sequence[Addition], now: float) -> set[str]:
    """Return the keys of objects of which it is not sure that they are there."""
    return {
        entry.key
        for one in additions
        for entry, proven_at in zip(one.entries, one.proven_at, strict=True)
        if not is_proven(proven_at, now)
    }


def _check_type(newest: Manifest, ours: Manifest) -> None:
    if newest.type != ours.type:
        raise RefusedError(
            f"unable to make a version of {ours.artifact!r} as a {ours.type!r}: it is a {newest.type!r}",
            hint="`dropoff cancel` drops this version; log it again under another name, or with that type",
        )


def _checked(made: Newest, ours: Manifest) -> tuple[Manifest, int, str]:
    """Return the version that an earlier try made; its references were looked at then."""
    if made.manifest is None or content_digest(made.manifest.entries, ()) != content_digest(ours.entries, ()):
        raise SourceChangedError(
            f"unable to publish job {ours.job}: the store has its version with other content",
            hint="two spools delivered the same job with different content; look at both, then cancel this one",
        )
    return made.manifest, made.number, made.sha256
