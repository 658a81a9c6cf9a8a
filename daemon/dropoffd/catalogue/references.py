"""What a manifest says of things that lie elsewhere: what is known of them when the version is made.

Nothing here holds a version up: what cannot be looked at in time is recorded bare, and a line tells why. Only a
prefix with more below it than its maker foresaw is refused.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import anyio

from dropoff.errors import UsageError
from dropoff.names import check_name, display
from dropoff.records import Reference, path_fields
from dropoff.saves import Pointer
from dropoffd.stores.base import RefusedError, StoreError
from dropoffd.stores.elsewhere.elsewhere import Elsewhere
from dropoffd.stores.elsewhere.seen import Below, Looker, Seen, TooManyError

_AT_ONCE = 16
# For all references of a version together: so long at least, and so much more for each.
_ALL_SECONDS, _EACH_SECONDS = 60.0, 0.25

_LATE = "not looked at: others took too long"


class LookedUp(NamedTuple):
    """What stands under which names for each pointer, by position; and what is not known, and why."""

    found: dict[int, dict[bytes, Reference]]
    skipped: tuple[str, ...]


class Looks(Protocol):
    """Whoever looks references up."""

    async def look_up(self, pointers: Iterable[Pointer], store: str) -> LookedUp:
        """Return what is known of what pointers of a version in `store` lead to.

        Raises RefusedError for a prefix with too much below it.
        """


def bare(pointer: Pointer) -> dict[bytes, Reference]:
    """Return a reference of which nothing but the URI is known."""
    return {pointer.path: _reference(pointer.path, Seen(uri=pointer.uri))}


class References:
    """Looks references up."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere

    async def look_up(self, pointers: Iterable[Pointer], store: str) -> LookedUp:
        """Return what is known of what pointers of a version in `store` lead to."""
        pointers = tuple(pointers)
        found = {pointer.position: bare(pointer) for pointer in pointers}
        lines: dict[int, list[str]] = {one.position: [f"{display(one.path)}: {_LATE}"] for one in pointers}
        failures: list[TooManyError] = []
        todo, looker = iter(pointers), await self._elsewhere.open(store)

        async def work() -> None:
            for pointer in todo:
                try:
                    names, skipped = await _looked_up(looker, pointer)
                except TooManyError as error:
                    failures.append(error)
                    group.cancel_scope.cancel()
                    return
                found[pointer.position], lines[pointer.position] = names, skipped

        try:
            with anyio.move_on_after(_ALL_SECONDS + _EACH_SECONDS * len(pointers)):
                async with anyio.create_task_group() as group:
                    for _ in range(min(_AT_ONCE, len(pointers))):
                        group.start_soon(work)
        finally:
            with anyio.CancelScope(shield=True):
                await looker.aclose()
        if failures:
            raise RefusedError(failures[0].message, hint=failures[0].hint)
        return LookedUp(found, tuple(line for _, some in sorted(lines.items()) for line in some))


async def _looked_up(looker: Looker, pointer: Pointer) -> tuple[dict[bytes, Reference], list[str]]:
    try:
        if pointer.objects_max:
            return _named(pointer, await looker.below(pointer.uri, pointer.objects_max))
        return {pointer.path: _reference(pointer.path, await looker.look(pointer.uri))}, []
    except TimeoutError:
        cause = "it took too long"
    except StoreError as error:
        cause = error.message
    except (OSError, ValueError) as error:  # what yarl and urllib make of odd URLs
        cause = str(error)
    return bare(pointer), [f"{display(pointer.path)}: not looked at: {cause}"]


def _named(pointer: Pointer, below: Below) -> tuple[dict[bytes, Reference], list[str]]:
    lines = [f"{display(pointer.path)}/{line}" for line in below.skipped]
    found: dict[bytes, Reference] = {}
    for seen in below.found:
        try:
            path = check_name(pointer.path + b"/" + seen.name)
        except UsageError as error:
            lines.append(error.message)
        else:
            found[path] = _reference(path, seen)
    if not found:
        return bare(pointer), [*lines, f"{display(pointer.path)}: nothing was found below it"]
    return found, lines


def _reference(path: bytes, seen: Seen) -> Reference:
    text, raw = path_fields(path)
    return Reference(
        path=text, path_base64=raw, uri=seen.uri, size=seen.size_bytes, etag=seen.etag, uri_version=seen.version
    )
