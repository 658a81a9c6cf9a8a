"""What goes wrong inside the daemon, and the exit codes that tell it to the outside (sysexits.h)."""

import enum
from collections.abc import Collection

from dropoff.errors import DropoffError


class Exit(enum.IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 69
    SOFTWARE = 70
    IO = 74
    RUNNING = 75
    CONFIG = 78
    TROUBLED = 10
    TIMEOUT = 11


class StartError(DropoffError):
    """The daemon cannot start here; `exit_code` says which way."""

    def __init__(self, message: str, *, hint: str = "", exit_code: Exit = Exit.CONFIG) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class SourceChangedError(DropoffError):
    """Content in custody is not what was captured any more; it must not be uploaded."""


class VanishedError(DropoffError):
    """Objects that the store had are not there any more; what a job needs of them has to be sent again."""

    def __init__(self, keys: Collection[str]) -> None:
        super().__init__(f"unable to find {len(keys)} objects that the store had, such as {min(keys)}")
        self.keys = frozenset(keys)


class SpoolBrokenError(DropoffError):
    """The spool's disk failed; nothing can be promised until the daemon is started anew."""
