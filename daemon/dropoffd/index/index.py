"""Indexes of stores, one file each, in the cache."""

import hashlib
import os
from functools import partial

import anyio
import msgspec

from dropoff.answers import Found
from dropoff.questions import Find
from dropoffd.catalogue import keys
from dropoffd.index.database import Database
from dropoffd.index.follow import follow, unreadable
from dropoffd.index.query import find
from dropoffd.stores.base import Progress, Store, ignore_progress

_FOLDER = "index"
_UNREADABLE_SHOWN = 20


class Indexes:
    """Answers who looks for something, from an index that was brought up to date right before."""

    def __init__(self, cache_dir: str) -> None:
        self._directory = os.path.join(cache_dir, _FOLDER)
        self._open: dict[str, tuple[Database, anyio.Lock]] = {}

    async def find(self, store: Store, asked: Find, progress: Progress = ignore_progress) -> Found:
        """Return one page of what was asked for; a first page knows of all that was stored before it was asked for.

        `progress` is told of records as they are read. Raises StoreError, and UsageError where it cannot be kept.
        """
        database, turn = self._database(store.url)
        # The pages of one answer belong together: only the first looks whether there is anything new.
        if not asked.after:
            async with turn:
                await follow(store, database, asked.project, progress)
        found = await database.run(partial(find, asked=asked))
        prefix = keys.project_prefix(asked.project) if asked.project else ""
        troubles = await database.run(partial(unreadable, prefix=prefix, most=_UNREADABLE_SHOWN))
        return msgspec.structs.replace(found, unreadable=troubles)

    def close(self) -> None:
        """Let go of the files."""
        for database, _ in self._open.values():
            database.close()

    def _database(self, url: str) -> tuple[Database, anyio.Lock]:
        if url not in self._open:
            name = f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.db"
            self._open[url] = Database(os.path.join(self._directory, name)), anyio.Lock()
        return self._open[url]
