"""Ask the daemon about what a store has: a connection for each question."""

from typing import TypeVar

from dropoff.answers import decode_any_reply
from dropoff.client import Connection, checked
from dropoff.delivery import SILENCE_SECONDS
from dropoff.errors import ProtocolError, UnavailableError
from dropoff.questions import Curating, Reading
from dropoff.settings import Settings

_Answer = TypeVar("_Answer")


def ask(settings: Settings, asked: Reading | Curating, kind: type[_Answer], fd: int | None = None) -> _Answer:
    """Return the daemon's answer, which is to be of that kind; raises what a refusal stands for."""
    connection = connected(settings)
    try:
        answer = checked(connection.ask(asked, fd))
    except OSError as error:
        raise away(settings) from error
    finally:
        connection.close()
    if not isinstance(answer, kind):
        raise ProtocolError(f"unable to understand the daemon: it answered {type(answer).__name__}")
    return answer


def connected(settings: Settings) -> Connection:
    """Return a connection for one question; raises UnavailableError."""
    try:
        return Connection(settings, SILENCE_SECONDS, decode_any_reply)
    except OSError as error:
        raise away(settings) from error


def away(settings: Settings) -> UnavailableError:
    """Return what to raise where no daemon answers, or not any more."""
    return UnavailableError(
        f"unable to read: no daemon answers at {settings.runtime_dir}",
        hint="start it with `dropoff serve`; `dropoff get` works without one",
    )
