"""Answer those who read, for as long as they wait."""

import os

import anyio

from dropoff.answers import Reply
from dropoff.errors import DamagedError, NotStoredError, UsageError
from dropoff.messages import Code, Refused
from dropoff.questions import Curating, Fetch, Reading, Stream
from dropoffd.curator import Curator
from dropoffd.intake.connection import Connection
from dropoffd.reader import Reader
from dropoffd.stores.base import Progress, StoreError

_LOOK_SECONDS = 0.2
_CODES = (
    (NotStoredError, Code.NOT_STORED),
    (DamagedError, Code.DAMAGED),
    (UsageError, Code.UNREADABLE),
    (StoreError, Code.STORE),
)


class Readers:
    """Serves requests about what stores have."""

    def __init__(self, reader: Reader, curator: Curator) -> None:
        self._reader = reader
        self._curator = curator

    async def answer(self, request: Reading | Curating, connection: Connection) -> Reply | None:
        """Return the answer; None if the caller went away meanwhile, and with it the work."""
        fd = connection.take_descriptor() if isinstance(request, Fetch | Stream) else None
        reply: Reply | None = None
        connection.done = 0

        def count(more: int) -> None:
            connection.done += more

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_end_with_caller, connection, group.cancel_scope)
                reply = await self._answer(request, fd, count)
                group.cancel_scope.cancel()
        finally:
            if fd is not None:
                os.close(fd)
        return reply

    async def _answer(self, request: Reading | Curating, fd: int | None, progress: Progress) -> Reply:
        try:
            if isinstance(request, Curating):
                return await self._curator.answer(request, progress)
            return await self._reader.answer(request, fd, progress)
        except (NotStoredError, DamagedError, UsageError, StoreError) as error:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            return Refused(code, error.message, error.hint)
        except OSError as error:
            return Refused(
                Code.UNREADABLE, f"unable to read or write on this machine: {error}",
                "check permissions and the room on the disk",
            )  # fmt: skip


async def _end_with_caller(connection: Connection, scope: anyio.CancelScope) -> None:
    while connection.caller_waits():  # noqa: ASYNC110  # what comes from it is read elsewhere
        await anyio.sleep(_LOOK_SECONDS)
    scope.cancel()
