"""Versions that many writers make together, on many hosts, with nothing but the store between them.

Each writer's contribution is an object of its own. Whoever finishes first closes the group, then lists the
contributions, and writes down of which the version is made: by one conditional create, so that all who finish it
agree. A contribution looks, once it is there, whether the group is closed. If not, it will be listed. If so, what was
written down tells whether it counts; one that came too late is refused, and never dropped silently.
"""

import contextlib
from collections.abc import Sequence

import msgspec

from dropoff.errors import UsageError
from dropoff.ids import JobId
from dropoff.names import display
from dropoff.records import (
    Contribution,
    Entry,
    GroupClosed,
    GroupDone,
    GroupFinished,
    Manifest,
    Reference,
    content_digest,
    decode_done,
    decode_finished,
    encode,
    entry_path,
)
from dropoff.saves import Group
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import swap
from dropoffd.catalogue.compose import check_folders
from dropoffd.catalogue.newest import Newest, newest_version, version_at
from dropoffd.catalogue.publish import create
from dropoffd.catalogue.reading import read_contribution, read_small
from dropoffd.stores.base import AlreadyExistsError, NotFoundError, RefusedError, Store, UnavailableError

_TRIES = 100


async def contribute(store: Store, group: Group, ours: Manifest) -> str:
    """Bring what a writer has for a group, in place of what it brought before; return the key.

    Raises RefusedError where the group was finished without it.
    """
    key = keys.contribution_key(ours.project, ours.artifact, group.name, group.writer)
    finished = await _finished(store, ours, group)
    if finished is None:
        await _put(store, key, _contribution(group, ours))
        if not await _is_closed(store, ours, group):
            return key
        finished = await _finished(store, ours, group)
        if finished is None:
            raise UnavailableError(f"unable to contribute to {group.name!r} yet: somebody is just finishing it")
    if ours.job not in finished.contributions:
        if (await _contributed(store, key)) == ours.job:
            await store.delete(key)
        raise RefusedError(
            f"unable to contribute to {group.name!r} of {ours.artifact!r}: it was finished without this",
            hint="finish_artifact(..., writers=N) waits for all writers; contribute this to another group, or log it "
            "as a version of its own; `dropoff cancel` drops it",
        )
    return key


async def finish(store: Store, group: Group, ours: Manifest) -> tuple[Manifest, int | None]:
    """Return the manifest of a group's version, and its number if it is there already.

    `ours` says what the call that finishes it said. Raises RefusedError for contributions that contradict each other,
    and UnavailableError while there are fewer than there have to be.
    """
    finished = await _finished(store, ours, group)
    if finished is None:
        finished = await _decide(store, group, ours)
    made = await _made(store, group, ours, finished)
    if made.manifest is not None:
        return made.manifest, made.number
    parts = [one for one in await _contributions(store, ours, group) if one.job in finished.contributions]
    if len(parts) < len(finished.contributions):
        # Nobody removes them before the version is there: it came to be, and they went, since we looked for it.
        raise UnavailableError(f"unable to finish {group.name!r} yet: somebody else is just doing it")
    return _merged(ours, finished, parts), None


async def clear(store: Store, group: Group, made: Manifest, number: int) -> None:
    """Write down which version a group became, and remove the contributions that it was made of."""
    with contextlib.suppress(AlreadyExistsError):
        await create(store, keys.done_key(made.project, made.artifact, group.name), encode(GroupDone(version=number)))
    finished = await _finished(store, made, group)
    for one in await _contributions(store, made, group):
        if finished is not None and one.job in finished.contributions:
            await store.delete(keys.contribution_key(made.project, made.artifact, group.name, one.writer))


async def _decide(store: Store, group: Group, ours: Manifest) -> GroupFinished:
    parts = await _contributions(store, ours, group)
    if len(parts) < max(1, group.writers):
        raise UnavailableError(
            f"unable to finish {group.name!r} yet: {len(parts)} of {max(1, group.writers)} writers' files are stored"
        )
    _check(ours, parts)
    closed = keys.closed_key(ours.project, ours.artifact, group.name)
    with contextlib.suppress(AlreadyExistsError):
        await create(store, closed, encode(GroupClosed(job=ours.job, created=ours.created)))
    parts = await _contributions(store, ours, group)
    try:
        _check(ours, parts)
    except RefusedError:
        await store.delete(closed)
        raise
    newest = await newest_version(store, ours.project, ours.artifact)
    decision = GroupFinished(
        job=ours.job, run=ours.run, created=ours.created, newest=newest.number,
        contributions=tuple(one.job for one in parts), description=ours.description, tags=ours.tags,
        metadata=ours.metadata, ttl_seconds=ours.ttl_seconds,
    )  # fmt: skip
    try:
        await create(store, keys.finished_key(ours.project, ours.artifact, group.name), encode(decision))
    except AlreadyExistsError:
        return await _finished(store, ours, group) or decision
    return decision


async def _made(store: Store, group: Group, ours: Manifest, finished: GroupFinished) -> Newest:
    """Return the group's version, if it is there.

    Written down or not, it has one of the numbers that came after the decision, or the content of an earlier one.
    """
    try:
        done = await read_small(store, keys.done_key(ours.project, ours.artifact, group.name), decode_done)
    except NotFoundError:
        pass
    else:
        return await version_at(store, ours.project, ours.artifact, done.version)
    number = finished.newest + 1
    while True:
        found = await version_at(store, ours.project, ours.artifact, number)
        if found.manifest is None or found.manifest.job == finished.job:
            return found
        number += 1


def _merged(ours: Manifest, finished: GroupFinished, parts: Sequence[Contribution]) -> Manifest:
    """Return the manifest that all who finish a group make, whoever comes first."""
    content = _content(ours, parts)
    entries = tuple(one for one in content.values() if isinstance(one, Entry))
    references = tuple(one for one in content.values() if isinstance(one, Reference))
    metadata = {key: value for one in parts for key, value in one.metadata.items()}
    tags = dict.fromkeys([*finished.tags, *(tag for one in parts for tag in one.tags)])
    return msgspec.structs.replace(
        ours, digest=content_digest(entries, references), size=sum(entry.size for entry in entries),
        created=finished.created, job=finished.job, run=finished.run, entries=entries, references=references,
        description=finished.description, tags=tuple(tags), metadata=metadata | finished.metadata,
        ttl_seconds=finished.ttl_seconds, skipped=tuple(line for one in parts for line in one.skipped),
    )  # fmt: skip


def _check(ours: Manifest, parts: Sequence[Contribution]) -> None:
    """Raise RefusedError for contributions of which no version can be made."""
    for one in parts:
        if one.type != ours.type:
            raise RefusedError(
                f"unable to finish {one.group!r} as a {ours.type!r}: {one.writer} contributed to a {one.type!r}",
                hint="`dropoff cancel` drops this; finish it with the type of the contributions",
            )
    _content(ours, parts)


def _content(ours: Manifest, parts: Sequence[Contribution]) -> dict[bytes, Entry | Reference]:
    found: dict[bytes, tuple[Entry | Reference, str]] = {}
    for part in parts:
        held: list[Entry | Reference] = [*part.entries, *part.references]
        for one in held:
            path = entry_path(one)
            other, writer = found.setdefault(path, (one, part.writer))
            if _essence(other) != _essence(one):
                raise RefusedError(
                    f"unable to make a version of {ours.artifact!r}: {writer} and {part.writer} both wrote "
                    f"{display(path)!r}, with different content",
                    hint="`dropoff cancel` drops this; use another group, and names of its own for each writer",
                )
    content = {path: one for path, (one, _) in sorted(found.items())}
    try:
        check_folders(content)
    except UsageError as error:
        raise RefusedError(error.message, hint=f"`dropoff cancel` drops this; {error.hint}") from error
    return content


def _essence(one: Entry | Reference) -> tuple[str, ...]:
    return (one.sha256,) if isinstance(one, Entry) else (one.uri, one.etag, one.uri_version)


def _contribution(group: Group, ours: Manifest) -> Contribution:
    return Contribution(
        project=ours.project, artifact=ours.artifact, type=ours.type, group=group.name, writer=group.writer,
        job=ours.job, run=ours.run, created=ours.created, entries=ours.entries, references=ours.references,
        description=ours.description, tags=ours.tags, metadata=ours.metadata, skipped=ours.skipped,
    )  # fmt: skip


async def _put(store: Store, key: str, ours: Contribution) -> None:
    """Store a contribution, unless the writer brought a later one."""
    data = encode(ours)
    for _ in range(_TRIES):
        try:
            etag = (await store.stat(key)).etag
            found = await read_contribution(store, key)
        except NotFoundError:
            etag, found = "", None
        if found is not None and (found.created, found.job) >= (ours.created, ours.job):
            return
        if await swap(store, key, etag, data):
            return
    raise UnavailableError(f"unable to contribute {key}: it kept changing")


async def _contributions(store: Store, ours: Manifest, group: Group) -> list[Contribution]:
    """Return what writers brought, in the order in which they did."""
    found = []
    async for stat in store.list(keys.contributions_prefix(ours.project, ours.artifact, group.name)):
        try:
            found.append(await read_contribution(store, stat.key))
        except NotFoundError:  # removed since the listing
            continue
    return sorted(found, key=lambda one: (one.created, one.job))


async def _contributed(store: Store, key: str) -> JobId | None:
    try:
        return (await read_contribution(store, key)).job
    except NotFoundError:
        return None


async def _is_closed(store: Store, ours: Manifest, group: Group) -> bool:
    try:
        await store.stat(keys.closed_key(ours.project, ours.artifact, group.name))
    except NotFoundError:
        return False
    return True


async def _finished(store: Store, ours: Manifest, group: Group) -> GroupFinished | None:
    try:
        return await read_small(store, keys.finished_key(ours.project, ours.artifact, group.name), decode_finished)
    except NotFoundError:
        return None
