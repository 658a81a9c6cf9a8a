"""How a save leaves the process: to the daemon, or, when none answers, into the inbox."""

from collections.abc import Callable

from dropoff.client import Client
from dropoff.errors import UnavailableError
from dropoff.messages import Accepted
from dropoff.saves import Save
from dropoff.settings import OnUnavailable, Settings


class HandOver:
    """Gives saves away; it takes a job in custody, or in the inbox, to come back from it."""

    def __init__(self, settings: Settings, *, offline: bool = False) -> None:
        self._settings = settings
        self._offline = offline
        self._client = Client(settings)
        # A fifth of the SDK's import, so not at its top; and not in a save, which may be one in a signal handler that
        # interrupted this very import.
        from dropoff.inbox import deposit  # noqa: PLC0415

        self._deposit = deposit

    def __reduce__(self) -> tuple[Callable[..., "HandOver"], tuple[Settings, bool]]:
        # Spawned workers have a connection of their own.
        return _again, (self._settings, self._offline)

    def give(self, save: Save, source: int | None) -> tuple[str, ...]:
        """Hand over a save and the open file or directory of its content; return what was passed over.

        Raises what the daemon's refusal stands for.
        """
        if not self._offline:
            try:
                reply = self._client.call(save, fd=source)
            except UnavailableError:
                if self._settings.on_unavailable is OnUnavailable.ERROR:
                    raise
            else:
                return reply.skipped if isinstance(reply, Accepted) else ()
        return self._deposit(self._settings, save, source).skipped


def _again(settings: Settings, offline: bool) -> HandOver:  # called by pickle
    return HandOver(settings, offline=offline)
