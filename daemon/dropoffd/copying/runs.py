"""Bring runs: a run's own record, then what it saved, each record after all content that it names; links at last."""

import hashlib
from collections.abc import AsyncIterator
from functools import partial

import anyio

from dropoff.questions import Role
from dropoff.records import RunRecord, decode_record, decode_run
from dropoffd.catalogue import keys
from dropoffd.catalogue.belongings import Kind, holders
from dropoffd.catalogue.reading import RECORD_MAX_BYTES, SMALL_MAX_BYTES, check_entries, read, read_bytes
from dropoffd.copying.contents import Contents
from dropoffd.copying.links import Links
from dropoffd.copying.objects import DAMAGE, ConflictError, has_same, listed, make, misplaced
from dropoffd.copying.several import several
from dropoffd.copying.tally import Tally
from dropoffd.stores.base import Bytes, NotFoundError, PreconditionFailedError, Replace, Stat, Store, ignore_progress

_AT_ONCE = 16


class Runs:
    """Brings a project's runs from `source` to `target`."""

    def __init__(
        self, project: str, source: Store, target: Store, contents: Contents, links: Links, tally: Tally
    ) -> None:
        self._project = project
        self._source = source
        self._target = target
        self._contents = contents
        self._links = links
        self._tally = tally
        self._large = anyio.Lock()

    async def bring(self, prefix: str) -> bool:
        """Bring a run but for its links; False if it was left out, which is noted then."""
        try:
            await self._bring_own(f"{prefix}run.json")
        except ConflictError as error:
            self._tally.conflict(prefix, error.message)
        except NotFoundError:
            async for _ in listed(self._source, prefix):
                self._tally.damage(prefix, "it has no run.json")
                break
        except DAMAGE as error:
            self._tally.damage(prefix, error.message)
        else:
            await several(self._records(prefix), self._bring_record, _AT_ONCE)
            return True
        return False

    async def _bring_own(self, key: str) -> None:
        data = await read_bytes(self._source, key, SMALL_MAX_BYTES)
        ours = read(data, decode_run, key)
        if f"{keys.run_prefix(ours.project, ours.run)}run.json" != key:
            raise misplaced(key)
        try:
            etag = (await self._target.stat(key)).etag
            theirs = read(await read_bytes(self._target, key, SMALL_MAX_BYTES), decode_run, key)
        except NotFoundError:
            await make(self._target, key, data)
            self._tally.runs += 1
            return
        if _identity(theirs) != _identity(ours):
            raise ConflictError(f"{self._target.url} has another run of that name, made {theirs.created}")
        if ours.finished is None or theirs.finished is not None:
            self._tally.present += 1
            return
        body = Bytes(data, hashlib.sha256(data).hexdigest())
        try:
            await self._target.put(key, body, Replace(etag), ignore_progress)
        except PreconditionFailedError:  # whoever changed it just now knows it better
            self._tally.present += 1
        else:
            self._tally.runs += 1

    async def _records(self, prefix: str) -> AsyncIterator[Stat]:
        async for kind, stat in listed(self._source, prefix):
            self._tally.unknown += kind is None
            if kind is Kind.RECORD:
                yield stat

    async def _bring_record(self, stat: Stat) -> None:
        key = stat.key
        try:
            if await has_same(self._source, self._target, key):
                self._tally.present += 1
            elif stat.size_bytes <= SMALL_MAX_BYTES:
                await self._bring_missing(key, SMALL_MAX_BYTES)
            else:  # one at a time: what it says of a million files is in memory
                async with self._large:
                    await self._bring_missing(key, RECORD_MAX_BYTES)
        except NotFoundError:  # removed since the listing
            return
        except ConflictError as error:
            self._tally.conflict(key, error.message)
        except DAMAGE as error:
            self._tally.damage(key, error.message)

    async def _bring_missing(self, key: str, most_bytes: int) -> None:
        data = await read_bytes(self._source, key, most_bytes)
        record = read(data, decode_record, key)
        if f"{keys.records_prefix(record.project, record.run)}{record.job}.json" != key:
            raise misplaced(key)
        check_entries(record.entries, key)
        named = holders(self._project, record.entries, key)
        await self._contents.name(self._project, named, partial(make, self._target, key, data))
        self._tally.records += 1

    async def outputs(self, prefix: str) -> dict[str, set[int]]:
        """Return which versions of which artifacts a run made, as its links tell it."""
        made: dict[str, set[int]] = {}
        async for key in self._links_of(prefix):
            try:
                link, _ = await self._links.read(key)
            except (NotFoundError, *DAMAGE):  # noted when the links are brought
                continue
            if link.role is Role.OUTPUT and link.project == self._project:
                made.setdefault(link.artifact, set()).add(link.version)
        return made

    async def bring_links(self, prefix: str) -> None:
        """Bring what a run tells of the versions that it made and used."""
        await several(self._links_of(prefix), self._links.bring, _AT_ONCE)

    async def _links_of(self, prefix: str) -> AsyncIterator[str]:
        async for kind, stat in listed(self._source, prefix):
            if kind is Kind.LINK:
                yield stat.key


def _identity(run: RunRecord) -> tuple[str, ...]:
    return run.project, run.run, run.created, run.host, run.user
