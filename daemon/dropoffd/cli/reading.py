"""The commands that read stores: through the daemon, which has the credentials, or here, where none runs."""

import argparse
import os
from typing import TypeVar

from dropoff.answers import Fetched, VersionReport, decode_any_reply
from dropoff.client import Connection, checked
from dropoff.delivery import SILENCE_SECONDS
from dropoff.errors import ProtocolError, UnavailableError
from dropoff.holding import umask
from dropoff.names import check_name, printable
from dropoff.questions import Curating, Fetch, Reading
from dropoff.reading import version_named
from dropoff.settings import Settings, load, store_url
from dropoffd.cli import text
from dropoffd.cli.counter import Counter
from dropoffd.errors import Exit

_Answer = TypeVar("_Answer")


def get(arguments: argparse.Namespace) -> int:
    """Download a version."""
    settings = load()
    asked = version_named(arguments.version, arguments.project, store_named(settings, arguments.store))
    version = answer(settings, asked, VersionReport)
    directory = os.path.abspath(arguments.directory or version.id.artifact)
    os.makedirs(directory, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        paths = tuple(check_name(path.rstrip("/")) for path in arguments.path)
        fetch = Fetch(
            of=version.id, paths=paths, links=arguments.links, umask=umask(), references=arguments.references
        )
        fetched = answer(settings, fetch, Fetched, fd, 0 if paths else version.size_bytes)
    finally:
        os.close(fd)
    if arguments.json:
        print(text.json(fetched))
    else:
        name = f"{version.id.project}/{version.id.artifact}:v{version.id.number}"
        print(printable(f"{name}: {fetched.files} files, {text.size(fetched.size_bytes)}, in {directory}"))
    return Exit.OK


def store_named(settings: Settings, named: str) -> str:
    """Return the URL of the store that a command names, or of the setting."""
    return store_url(named or settings.store)


def answer(
    settings: Settings, asked: Reading | Curating, kind: type[_Answer], fd: int | None = None, whole: int = 0
) -> _Answer:
    """Ask the daemon, or answer it here; on a terminal show how far that is, of `whole` if that is known."""
    with Counter(in_bytes=isinstance(asked, Fetch), whole=whole) as counter:
        return _answer(settings, asked, kind, fd, counter)


def _answer(
    settings: Settings, asked: Reading | Curating, kind: type[_Answer], fd: int | None, counter: Counter
) -> _Answer:
    try:
        connection = Connection(settings, SILENCE_SECONDS, decode_any_reply)
    except OSError:
        from dropoffd.cli.here import answer_here  # noqa: PLC0415  # the other commands must not pay for all this

        reply: object = answer_here(settings, asked, fd, counter.add)
    else:
        try:
            reply = checked(connection.ask(asked, fd, lambda working: counter.set(working.done)))
        except OSError as error:
            raise UnavailableError(
                "unable to go on: the daemon went away", hint="run the command again; it goes on where it was"
            ) from error
        finally:
            connection.close()
    if not isinstance(reply, kind):
        raise ProtocolError(f"unable to understand the daemon: it answered {type(reply).__name__}")
    return reply
