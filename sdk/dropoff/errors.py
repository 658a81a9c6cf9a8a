"""What can go wrong, in words a person can act on.

Every error reads "unable to <verb> <thing>: <cause>" and carries a hint: the next thing to do.
Errors of usage are raised at the call; troubles of delivery are on the `Delivery` and in `dropoff status`.
"""


class DropoffError(Exception):
    """Base of every error this package raises on purpose."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class UsageError(DropoffError, ValueError):
    """The call itself is wrong: fix the arguments."""


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""


class MissingSourceError(UsageError, FileNotFoundError):
    """The file or directory to save is not there."""


class SpoolFullError(DropoffError):
    """The spool's quota or its disk is full; nothing was taken into custody."""


class UnstableSourceError(DropoffError):
    """Somebody kept writing to the file while it was captured; no consistent content exists."""


class UnavailableError(DropoffError):
    """No daemon answers."""


class ProtocolError(DropoffError):
    """The other end speaks another protocol, or garbage."""


class RefusedError(DropoffError):
    """The daemon understood the request and refuses it."""


class NotStoredError(DropoffError, LookupError):
    """The store has no such artifact, version, run or file."""


class DamagedError(DropoffError):
    """What the store has is not what was stored there, or is made to do harm; nothing of it was used."""


class DeliveryError(DropoffError):
    """The job ended without its content in the store, or waits for a person."""


class DeliveryTimeoutError(DropoffError, TimeoutError):
    """The job is safe in custody but not yet delivered."""
