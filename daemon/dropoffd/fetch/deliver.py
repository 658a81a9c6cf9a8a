"""Bring files to where they are wanted: into a directory, into the cache, or down a pipe."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from dropoff.errors import UsageError
from dropoff.records import Entry
from dropoffd.fetch.below import Below, duplicate
from dropoffd.fetch.cache import Cache
from dropoffd.fetch.fetcher import Fetcher
from dropoffd.fetch.incoming import Incoming
from dropoffd.fetch.names import INCOMING, check
from dropoffd.fetch.plan import Wanted
from dropoffd.filesystem import free_bytes
from dropoffd.stores.base import Progress, Store

T = TypeVar("T")

_TRIES = 3
_MODE = re.compile(r"[0-7]{3,6}")


class File(msgspec.Struct, frozen=True):
    """A file that is wanted: its name, its content, its permission bits, and whether others share its object."""

    path: bytes
    content: Wanted
    mode: int = 0o644
    packed: bool = False


def file_of(path: bytes, entry: Entry) -> File:
    """Return a file as a record or manifest tells of it."""
    content = Wanted(sha256=entry.sha256, size_bytes=entry.size, key=entry.key, start=entry.offset or 0)
    mode = int(entry.mode, 8) if _MODE.fullmatch(entry.mode) else 0o644
    return File(path, content, mode, packed=entry.offset is not None)


class Delivered(msgspec.Struct, frozen=True):
    """How much came from the store; the rest was here. `place` is in the cache."""

    fetched_bytes: int
    place: str = ""


class Deliverer:
    """Brings files, with one fetcher and one cache."""

    def __init__(self, fetcher: Fetcher, cache: Cache) -> None:
        self._fetcher = fetcher
        self._cache = cache

    async def into_cache(self, store: Store, files: Iterable[File], progress: Progress) -> Delivered:
        """Return a directory in the cache that holds exactly these files, read-only."""
        files = sorted(files, key=lambda file: file.path)
        check((file.path for file in files), folds=await anyio.to_thread.run_sync(self._cache.folds))
        for left in reversed(range(_TRIES)):
            fetched = await self._cached(store, (file.content for file in files), progress)
            tree = _tree_name(files)
            try:
                place = await anyio.to_thread.run_sync(
                    self._cache.tree, tree, [(file.path, file.content.sha256) for file in files]
                )
            except FileNotFoundError:  # somebody deletes the cache just now
                if not left:
                    raise
            else:
                await anyio.to_thread.run_sync(self._cache.trim)
                return Delivered(fetched, place)
        raise AssertionError("unreachable")

    async def _cached(self, store: Store, wanted: Iterable[Wanted], progress: Progress) -> int:
        """Bring contents into the cache; return how many bytes were fetched."""
        contents = {(one.sha256, one.size_bytes): one for one in wanted}
        whole = sum(one.size_bytes for one in contents.values())
        if whole > self._cache.most_bytes:
            raise UsageError(
                f"unable to keep {whole} bytes in a cache of {self._cache.most_bytes}",
                hint="download them into a directory, or raise cache_max_bytes",
            )
        missing = await anyio.to_thread.run_sync(
            lambda: [one for one in contents.values() if self._cache.find(one.sha256, one.size_bytes) is None]
        )
        if not missing:
            return 0
        with self._cache.incoming() as incoming:
            _check_room(incoming, missing)

            def land(content: Wanted, name: str) -> None:
                self._cache.admit(content.sha256, incoming, name)

            await self._fetcher.fetch(store, missing, incoming, land, progress)
        return sum(one.size_bytes for one in missing)

    async def into_directory(
        self, store: Store, files: Iterable[File], root: int, *, umask: int, links: bool, progress: Progress
    ) -> Delivered:
        """Bring files below the open directory `root`; a file that is there already stays as it is."""
        files = list(files)
        below = Below(root, umask)
        folds = await anyio.to_thread.run_sync(below.folds)
        check((file.path for file in files), folds=folds)
        fetched = await self._cached(store, (file.content for file in files), progress) if links else 0
        incoming = await anyio.to_thread.run_sync(Incoming, root, INCOMING)
        try:
            goals = _Goals(below, incoming, self._cache, files)
            missing = await anyio.to_thread.run_sync(partial(goals.take_what_is_here, links=links))
            _check_room(incoming, missing)
            await self._fetcher.fetch(store, missing, incoming, goals.land, progress)
        finally:
            incoming.close()
        if links:
            await anyio.to_thread.run_sync(self._cache.trim)
        return Delivered(fetched + sum(one.size_bytes for one in missing))


class _Goals:
    """Which names below a directory each content is to have."""

    def __init__(self, below: Below, incoming: Incoming, cache: Cache, files: Iterable[File]) -> None:
        self._below = below
        self._incoming = incoming
        self._cache = cache
        self._files: dict[tuple[str, int], list[File]] = {}
        for file in files:
            self._files.setdefault((file.content.sha256, file.content.size_bytes), []).append(file)

    def take_what_is_here(self, *, links: bool) -> list[Wanted]:
        """Give names to what the directory or the cache has; return the contents that are to be fetched."""
        missing = []
        for (sha256, size), files in self._files.items():
            anyio.from_thread.check_cancelled()
            cached = self._cache.find(sha256, size)
            left = [file for file in files if not (links and cached and self._below.link(cached, file.path))]
            left = [file for file in left if not self._below.holds(file.path, size, sha256)]
            if cached and left:
                left = [] if self._copied(cached, left) else left
            if left:
                self._files[sha256, size] = left
                missing.append(left[0].content)
        return missing

    def _copied(self, cached: str, files: Iterable[File]) -> bool:
        try:
            source = os.open(cached, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            self._copy(source, files)
        finally:
            os.close(source)
        return True

    def land(self, content: Wanted, name: str) -> None:
        """Give a verified file of the incoming directory its names; further ones are copies."""
        first, *others = self._files[content.sha256, content.size_bytes]
        if others:
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._incoming.fd)
            try:
                self._copy(source, others)
            finally:
                os.close(source)
        self._below.move(self._incoming.fd, name, first.path, first.mode)

    def _copy(self, source: int, files: Iterable[File]) -> None:
        for file in files:
            target, name = self._incoming.new()
            try:
                duplicate(source, target)
            except BaseException:
                self._incoming.discard(name)
                raise
            finally:
                os.close(target)
            self._below.move(self._incoming.fd, name, file.path, file.mode)


def select(files: Mapping[bytes, T], paths: Iterable[bytes]) -> list[T]:
    """Return what is of these names, and those below where one is a directory's; all, if none is given."""
    paths = tuple(paths)
    if not paths:
        return list(files.values())
    chosen: dict[bytes, T] = {}
    for path in paths:
        wanted = path.rstrip(b"/")
        found = {wanted: files[wanted]} if wanted in files else {}
        found |= {name: file for name, file in files.items() if not found and name.startswith(wanted + b"/")}
        chosen |= found
    return list(chosen.values())


def _tree_name(files: Iterable[File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.path + b"\0" + file.content.sha256.encode() + b"\0")
    return digest.hexdigest()[:32]


def _check_room(incoming: Incoming, contents: Iterable[Wanted]) -> None:
    needed = sum(one.size_bytes for one in contents)
    free = free_bytes(incoming.fd) + incoming.held_bytes()
    if needed > free:
        raise UsageError(
            f"unable to download {needed} bytes: the disk has {free} left",
            hint="free space, or choose another directory",
        )
