"""Writes that depend on what is there: by a header where the store honours it, else by a look before."""

from collections.abc import Awaitable, Callable

from dropoffd.stores.base import (
    AlreadyExistsError,
    Create,
    Mode,
    NotFoundError,
    Overwrite,
    PreconditionFailedError,
    Replace,
    Stat,
)
from dropoffd.stores.s3.probe import Capabilities

Look = Callable[[str], Awaitable[Stat]]


def condition(mode: Mode, can: Capabilities) -> dict[str, str]:
    """Return the headers that make a request depend on what is there, as far as the store honours them."""
    if isinstance(mode, Create) and can.creates:
        return {"if-none-match": "*"}
    if isinstance(mode, Replace):
        return {"if-match": f'"{mode.etag}"' if can.quotes_etags else mode.etag}
    return {}


async def look_first(look: Look, key: str, mode: Mode) -> None:
    """Look whether the condition holds now: enough for one writer, as `doctor` warns.

    Raises AlreadyExistsError and PreconditionFailedError.
    """
    if isinstance(mode, Overwrite):
        return
    try:
        etag = (await look(key)).etag
    except NotFoundError:
        etag = ""
    if isinstance(mode, Create) and etag:
        raise AlreadyExistsError(f"unable to create {key}: it exists")
    if isinstance(mode, Replace) and etag != mode.etag:
        raise PreconditionFailedError(f"unable to replace {key}: it changed")
