"""Change what a store's catalogue says, when a person asks for it."""

from collections.abc import Awaitable, Callable
from typing import Any

from dropoff.artifact import alias_name
from dropoff.errors import DamagedError, NotStoredError, UsageError
from dropoff.ids import new_job_id
from dropoff.messages import Changed, Curating, SetAlias
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import LATEST, alias_record, let_stand, take_away
from dropoffd.catalogue.lookup import find_version
from dropoffd.clock import Clock
from dropoffd.reader import Opens
from dropoffd.stores.base import CorruptError


class Curator:
    """Curates stores for everybody."""

    def __init__(self, stores: Opens, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._table: dict[type, Callable[[Any], Awaitable[Changed]]] = {
            SetAlias: self._set_alias,
        }

    async def answer(self, request: Curating) -> Changed:
        """Do what is asked; raises NotStoredError, DamagedError, UsageError and StoreError."""
        try:
            return await self._table[type(request)](request)
        except CorruptError as error:
            raise DamagedError(error.message, hint=error.hint) from error

    async def _set_alias(self, asked: SetAlias) -> Changed:
        alias = alias_name(asked.alias)
        if alias == LATEST:
            raise UsageError(f"unable to move {LATEST!r}: it stands for the newest version", hint="use another alias")
        store = await self._stores.open(asked.store)
        key = keys.alias_key(asked.project, asked.artifact, alias)
        if not asked.which:
            if not await take_away(store, key):
                raise NotStoredError(f"unable to remove the alias {alias!r} of {asked.artifact!r}: there is none")
            return Changed()
        await store.prepare()
        manifest, _ = await find_version(store, asked.project, asked.artifact, asked.which)
        await let_stand(store, key, alias_record(manifest.version, self._clock.now(), new_job_id()))
        return Changed(number=manifest.version)
