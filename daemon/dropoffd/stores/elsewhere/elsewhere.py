"""Where whoever wants to look at what lies elsewhere gets the eyes for it."""

import os

import anyio.to_thread

from dropoffd.clock import Clock
from dropoffd.stores.elsewhere.seen import Looker


class Elsewhere:
    """Looks at addresses that are not public only with `allow_private`."""

    def __init__(self, clock: Clock, *, allow_private: bool) -> None:
        self._clock = clock
        self._allow_private = allow_private

    async def open(self, store: str) -> Looker:
        """Return who looks for a version that is in `store`; to be closed."""
        return await anyio.to_thread.run_sync(self._eyes, store)

    def _eyes(self, store: str) -> Looker:
        from dropoffd.stores.elsewhere.eyes import Eyes  # noqa: PLC0415  # see `_s3` of the stores' registry

        return Eyes(store, self._clock, os.environ, allow_private=self._allow_private)
