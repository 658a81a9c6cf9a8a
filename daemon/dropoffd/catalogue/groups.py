"""Versions that many writers make together, on many hosts, with nothing but the store between them.

Each writer's contribution is an object of its own. Whoever finishes first closes the group, then lists the
contributions, and writes down of which the version is made: by one conditional create, so that all who finish it
agree. A contribution looks, once it is there, whether the group is closed. If not, it will be listed. If so, what was
written down tells whether it counts; one that came too late is refused, and never dropped silently.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

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
from dropoffd.catalogue.claims import is_proven
from dropoffd.catalogue.compose import check_folders
from dropoffd.catalogue.newest import Newest, newest_version, version_at
from dropoffd.catalogue.publish import create
from dropoffd.catalogue.reading import read_contribution, read_small
from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    NotFoundError,
    RefusedError,
    Store,
    UnavailableError,
)

_Stored = tuple[Contribution, float]


async def contribute(store: Store, group: Group, ours: Manifest) -> str:
    """Bring what a writer has for a group; return the key. What it brought before counts no more.

    Raises RefusedError where the group was finished without it.
    """
    one = contribution(group, ours)
    key = _key(one)
    finished = await _finished(store, ours, group)
    if finished is None:
        with contextlib.suppress(AlreadyExistsError):  # an earlier try came so far
            await create(store, key, encode(one))
        if not await _is_closed(store, ours, group):
            return key
        finished = await _finished(store, ours, group)
        if finished is None:
            raise UnavailableError(f"unable to contribute to {group.name!r} yet: somebody is just finishing it")
    if ours.job not in finished.contributions:
        await store.delete(key)
        raise RefusedError(
            f"unable to contribute to {group.name!r} of {ours.artifact!r}: it was finished without this",
            hint="finish_artifact(..., writers=N) waits for all writers; contribute this to another group, or log it "
            "as a version of its own; `dropoff cancel` drops it",
        )
    return key


class Finished(NamedTuple):
    """The manifest of a group's version, and its number if it is there already.

    Else `unproven` are the keys of those objects that were contributed so long ago that they have to be made sure of.
    """

    manifest: Manifest
    number: int | None = None
    unproven: frozenset[str] = frozenset()


async def finish(store: Store, group: Group, ours: Manifest, now: float) -> Finished:
    """Return what a group becomes; `ours` says what the call that finishes it said.

    Raises RefusedError for contributions that contradict each other, or a version that was removed, and
    UnavailableError while there are fewer than there have to be.
    """
    finished = await _finished(store, ours, group)
    if finished is None:
        finished = await _decide(store, group, ours)
    made = await _made(store, group, ours, finished)
    if made.manifest is not None:
        return Finished(made.manifest, made.number)
    wanted = frozenset(finished.contributions)
    stored = [(one, at) for one, at in await _stored(store, ours, group) if one.job in wanted]
    if len(stored) < len(wanted):
        # Nobody removes them before the version is there: it came to be, and they went, since we looked for it.
        raise UnavailableError(f"unable to finish {group.name!r} yet: somebody else is just doing it")
    # Contributions are not waited for without end (`collecting.py`).
    old = {entry.key for one, at in stored if not is_proven(at, now) for entry in one.entries}
    return Finished(_merged(ours, finished, [one for one, _ in stored]), unproven=frozenset(old))


async def clear(store: Store, group: Group, made: Manifest, number: int) -> None:
    """Write down which version a group became, and remove the contributions that it was made of."""
    with contextlib.suppress(AlreadyExistsError):
        await create(store, keys.done_key(made.project, made.artifact, group.name), encode(GroupDone(version=number)))
    finished = await _finished(store, made, group)
    jobs = frozenset(finished.contributions) if finished is not None else frozenset()
    writers: set[str] = set()
    for one, _ in reversed(await _stored(store, made, group)):
        writers |= {one.writer} if one.job in jobs else set()
        if one.writer in writers:  # also what a writer brought before
            await store.delete(_key(one))


async def _decide(store: Store, group: Group, ours: Manifest) -> GroupFinished:
    parts = await _latest(store, ours, group)
    if len(parts) < max(1, group.writers):
        raise UnavailableError(
            f"unable to finish {group.name!r} yet: {len(parts)} of {max(1, group.writers)} writers' files are stored"
        )
    _check(ours, parts)
    closed = keys.closed_key(ours.project, ours.artifact, group.name, ours.job)
    with contextlib.suppress(AlreadyExistsError):
        await create(store, closed, encode(GroupClosed(job=ours.job, created=ours.created)))
    parts = await _latest(store, ours, group)
    try:
        _check(ours, parts)
    except RefusedError:
        # Ours alone: somebody else may have closed it, too, who is just finishing it with success.
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
        made = await version_at(store, ours.project, ours.artifact, done.version)
        if made.manifest is None:
            raise RefusedError(
                f"unable to finish {group.name!r} of {ours.artifact!r}: its version v{done.version} was removed",
                hint="`dropoff cancel` drops this; contribute to another group",
            )
        return made
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


def contribution(group: Group, ours: Manifest) -> Contribution:
    """Return what a writer brings to a group: all that it says of a version."""
    return Contribution(
        project=ours.project, artifact=ours.artifact, type=ours.type, group=group.name, writer=group.writer,
        job=ours.job, run=ours.run, created=ours.created, entries=ours.entries, references=ours.references,
        description=ours.description, tags=ours.tags, metadata=ours.metadata, skipped=ours.skipped,
    )  # fmt: skip


def _key(one: Contribution) -> str:
    return keys.contribution_key(one.project, one.artifact, one.group, one.writer, one.job)


async def _latest(store: Store, ours: Manifest, group: Group) -> list[Contribution]:
    """Return the last that each writer brought, in the order in which they did."""
    last = {one.writer: one for one, _ in await _stored(store, ours, group)}
    return sorted(last.values(), key=_order)


async def _stored(store: Store, ours: Manifest, group: Group) -> list[_Stored]:
    """Return what writers brought, and when that was stored."""
    found: list[_Stored] = []
    async for stat in store.list(keys.contributions_prefix(ours.project, ours.artifact, group.name)):
        try:
            one = await read_contribution(store, stat.key)
        except NotFoundError:  # removed since the listing
            continue
        if _key(one) != stat.key:
            raise CorruptError(
                f"unable to use {stat.key}: it says that it is {_key(one)}", hint="somebody moved it by hand"
            )
        found.append((one, stat.modified_at))
    return sorted(found, key=lambda pair: _order(pair[0]))


def _order(one: Contribution) -> tuple[str, JobId]:
    return one.created, one.job


async def _is_closed(store: Store, ours: Manifest, group: Group) -> bool:
    async for _ in store.list(keys.closed_prefix(ours.project, ours.artifact, group.name)):
        return True
    return False


async def _finished(store: Store, ours: Manifest, group: Group) -> GroupFinished | None:
    try:
        return await read_small(store, keys.finished_key(ours.project, ours.artifact, group.name), decode_finished)
    except NotFoundError:
        return None
