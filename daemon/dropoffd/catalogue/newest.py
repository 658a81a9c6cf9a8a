"""The newest version of an artifact: what the store says, and nobody remembers."""

import hashlib
from typing import NamedTuple

from dropoff.records import Manifest
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import LATEST, alias_of
from dropoffd.catalogue.reading import read_manifest
from dropoffd.stores.base import NotFoundError, Store


class Newest(NamedTuple):
    """A version as it was found: number -1 if there is none, no manifest if that was removed."""

    number: int
    manifest: Manifest | None = None
    sha256: str = ""


async def newest_version(store: Store, project: str, artifact: str) -> Newest:
    """Return the newest version: where `latest` stands, and on from there for as long as there are more."""
    latest = await alias_of(store, keys.alias_key(project, artifact, LATEST))
    if latest is not None:
        number = latest.version
    else:
        number = await _highest(store, project, artifact)
    newest = await version_at(store, project, artifact, number) if number >= 0 else Newest(-1)
    while True:
        following = await version_at(store, project, artifact, newest.number + 1)
        if following.manifest is None:
            return newest
        newest = following


async def newest_standing(store: Store, project: str, artifact: str) -> Newest:
    """Return the newest version that was not removed."""
    number = await _highest(store, project, artifact)
    return await version_at(store, project, artifact, number) if number >= 0 else Newest(-1)


async def _highest(store: Store, project: str, artifact: str) -> int:
    found = [keys.version_number(stat.key) async for stat in store.list(keys.versions_prefix(project, artifact))]
    return max((one for one in found if one is not None), default=-1)


async def version_at(store: Store, project: str, artifact: str, number: int) -> Newest:
    """Return the version of that number, without a manifest if there is none."""
    try:
        manifest, data = await read_manifest(store, keys.version_key(project, artifact, number))
    except NotFoundError:
        return Newest(number)
    return Newest(number, manifest, hashlib.sha256(data).hexdigest())
