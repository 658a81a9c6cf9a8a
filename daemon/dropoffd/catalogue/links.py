"""The lineage: which runs made and used which versions.

A link is an object at the run; that of a use is one at the version, too, so that both ends tell of it by themselves.
Links are made once and never change; who makes one again finds it there.
"""

import logging
from collections.abc import AsyncIterator

import msgspec

from dropoff.answers import Link
from dropoff.questions import Role
from dropoff.records import LinkRecord, Manifest, decode_link, encode
from dropoff.saves import RunInfo
from dropoffd.catalogue import keys
from dropoffd.catalogue.publish import create, moment
from dropoffd.catalogue.reading import read_small
from dropoffd.stores.base import AlreadyExistsError, CorruptError, NotFoundError, RefusedError, Store

_log = logging.getLogger(__name__)


async def made_output(store: Store, run: RunInfo, manifest: Manifest, number: int) -> None:
    """Note that a run made a version, or one with the same content."""
    await _make(store, _link(Role.OUTPUT, run, manifest, number, manifest.created))


async def used_input(store: Store, run: RunInfo, manifest: Manifest, now: float) -> None:
    """Note that a run uses a version."""
    await _make(store, _link(Role.INPUT, run, manifest, manifest.version, moment(now)))


async def of_run(store: Store, project: str, run: str) -> list[Link]:
    """Return which versions a run made and used."""
    return [
        link
        for role in (Role.OUTPUT, Role.INPUT)
        async for link in _read(store, keys.run_links_prefix(project, run, role))
    ]


async def of_version(store: Store, manifest: Manifest) -> list[Link]:
    """Return which run made a version and which used it."""
    made = Link(
        role=Role.OUTPUT, run_project=manifest.project, run=manifest.run, project=manifest.project,
        artifact=manifest.artifact, version=manifest.version, created=manifest.created,
    )  # fmt: skip
    return [made, *await users(store, manifest.project, manifest.artifact, manifest.version)]


async def users(store: Store, project: str, artifact: str, number: int) -> list[Link]:
    """Return which runs use a version."""
    return [link async for link in _read(store, keys.version_links_prefix(project, artifact, number))]


async def remove_uses(store: Store, project: str, run: str) -> None:
    """Remove, at both ends, that a run uses versions; of a link that cannot be read only what is at the run goes."""
    for at_run in [stat.key async for stat in store.list(keys.run_links_prefix(project, run, Role.INPUT))]:
        try:
            ends = keys.link_keys(await read_small(store, at_run, decode_link))
        except NotFoundError:
            continue
        except (CorruptError, RefusedError) as error:
            _log.warning("a version may go on telling of a run that is removed run=%s cause=%s", run, error.message)
            ends = (at_run,)
        for key in ends:
            await store.delete(key)


def _link(role: Role, run: RunInfo, manifest: Manifest, number: int, created: str) -> LinkRecord:
    return LinkRecord(
        role=role, run_project=run.project, run=run.name, project=manifest.project, artifact=manifest.artifact,
        version=number, created=created,
    )  # fmt: skip


async def _make(store: Store, link: LinkRecord) -> None:
    data = encode(link)
    for key in keys.link_keys(link):
        try:
            await create(store, key, data)
        except AlreadyExistsError:
            continue


async def _read(store: Store, prefix: str) -> AsyncIterator[Link]:
    async for stat in store.list(prefix):
        try:
            record = await read_small(store, stat.key, decode_link)
        except NotFoundError:  # removed since the listing
            continue
        yield msgspec.convert(record, Link, from_attributes=True)
