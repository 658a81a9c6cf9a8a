"""The commands: each asks the daemon one thing and prints the answer."""

import argparse
import logging
import sys
import time
from typing import TypeVar

import msgspec

from dropoff.client import Connection, checked
from dropoff.errors import ProtocolError, UnavailableError
from dropoff.inbox import deposits
from dropoff.messages import (
    Cancel,
    Done,
    JobList,
    JobReport,
    JobRequest,
    Jobs,
    JobState,
    Limit,
    Pause,
    Rates,
    Resume,
    Retry,
    Settled,
    Show,
    Status,
    StatusReport,
    Wait,
)
from dropoff.names import printable
from dropoff.settings import Settings, load, store_url
from dropoffd.cli import text
from dropoffd.errors import Exit

_Reply = TypeVar("_Reply")

_SILENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.2


def ask(settings: Settings, request: JobRequest) -> msgspec.Struct:
    """Return the daemon's answer; raises UnavailableError when there is none."""
    try:
        connection = Connection(settings, _SILENCE_SECONDS)
        try:
            return checked(connection.ask(request))
        finally:
            connection.close()
    except TimeoutError:
        raise UnavailableError(
            "unable to ask the daemon: it does not answer", hint="look at its log; perhaps it is stopped"
        ) from None
    except OSError:
        waiting = len(deposits(settings.inbox_dir))
        raise UnavailableError(
            f"unable to reach the daemon at {settings.runtime_dir}: none runs; {waiting} saves wait in the inbox",
            hint="start it with `dropoff serve`; saves go to the inbox meanwhile and are delivered then",
        ) from None


def status(arguments: argparse.Namespace) -> int:
    """Show how things stand."""
    settings = load()
    if arguments.watch:
        return follow(settings, ())
    report = _status(settings)
    print(text.json(report) if arguments.json else text.status(report))
    troubled = report.held or any(store.needs_person for store in report.stores)
    return Exit.TROUBLED if troubled else Exit.OK


def jobs(arguments: argparse.Namespace) -> int:
    """List jobs."""
    settings, found, before = load(), list[JobReport](), None
    states = tuple(JobState(state) for state in arguments.state)
    while len(found) < arguments.limit:
        reply = ask(settings, Jobs(states, min(500, arguments.limit - len(found)), before))
        page = _expect(reply, JobList)
        found += page.jobs
        if not page.more or not page.jobs:
            break
        before = page.jobs[-1].seq
    print(text.json(found) if arguments.json else text.table(found))
    return Exit.OK


def show(arguments: argparse.Namespace) -> int:
    """Tell everything about one job."""
    (report,) = _expect(ask(load(), Show(arguments.job)), JobList).jobs
    print(text.json(report) if arguments.json else text.details(report))
    return Exit.OK


def wait(arguments: argparse.Namespace) -> int:
    """Wait for deliveries."""
    settings = load()
    if sys.stderr.isatty() and not arguments.json:
        return follow(settings, tuple(arguments.jobs), arguments.timeout)
    wanted = tuple(_expect(ask(settings, Show(job)), JobList).jobs[0].job for job in arguments.jobs)
    settled = _expect(ask(settings, Wait(wanted, timeout_seconds=arguments.timeout)), Settled)
    print(text.json(settled) if arguments.json else text.settled(settled))
    return _settled_exit(settled)


def retry(arguments: argparse.Namespace) -> int:
    """Put held jobs back in the queue."""
    return _done(arguments, Retry(tuple(arguments.jobs)), "{} jobs are queued again")


def cancel(arguments: argparse.Namespace) -> int:
    """Give jobs up."""
    return _done(arguments, Cancel(tuple(arguments.jobs)), "{} jobs were cancelled")


def pause(arguments: argparse.Namespace) -> int:
    """Stop starting deliveries."""
    return _done(arguments, Pause(), "deliveries are paused; `dropoff resume` goes on")


def resume(arguments: argparse.Namespace) -> int:
    """Start deliveries again."""
    return _done(arguments, Resume(), "deliveries go on")


def limit(arguments: argparse.Namespace) -> int:
    """Show or change how fast bytes go out."""
    settings = load()
    store = store_url(arguments.store) if arguments.store else ""
    bandwidth = "" if arguments.bandwidth == "off" else arguments.bandwidth
    found = _expect(ask(settings, Limit(bandwidth, store)), Rates)
    print(text.json(found) if arguments.json else text.rates(found))
    return Exit.OK


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a store."""
    from dropoffd.cli import doctor as examining  # noqa: PLC0415  # the other commands must not pay for it

    url = store_url(arguments.store) if arguments.store else load().store

    def tell(line: str) -> None:
        print(printable(line), file=sys.stderr if arguments.json else sys.stdout, flush=True)

    tell(f"examining {url}")
    found = examining.run(url, tell)
    if arguments.json:
        print(text.json(found))
    else:
        print("all is well" if found.healthy else "NOT all is well: deliveries to it cannot be relied on")
    return Exit.OK if found.healthy else Exit.TROUBLED


def serve(arguments: argparse.Namespace) -> int:
    """Run the daemon."""
    from dropoffd import daemon, log  # noqa: PLC0415  # the other commands must not pay for it

    log.setup(logging.DEBUG if arguments.verbose else logging.INFO)
    return daemon.run(load())


def demo(arguments: argparse.Namespace) -> int:
    """Show it all on a real training script."""
    from dropoffd.cli.demo import run  # noqa: PLC0415  # the other commands must not pay for it

    return run(arguments.directory)


def _done(arguments: argparse.Namespace, request: JobRequest, sentence: str) -> int:
    done = _expect(ask(load(), request), Done)
    print(text.json(done) if arguments.json else sentence.format(done.jobs))
    return Exit.OK


def _status(settings: Settings) -> StatusReport:
    return _expect(ask(settings, Status()), StatusReport)


def follow(settings: Settings, named: tuple[str, ...], timeout: float | None = None) -> int:
    """Show progress until nothing wants waiting any more."""
    from dropoffd.cli.progress import Progress  # noqa: PLC0415  # rich takes 80 ms to import

    deadline = None if timeout is None else time.monotonic() + timeout
    wanted = tuple(_expect(ask(settings, Show(job)), JobList).jobs[0].job for job in named)
    with Progress() as progress:
        while True:
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            settled = _expect(ask(settings, Wait(wanted, timeout_seconds=max(0.0, left))), Settled)
            progress.update(_status(settings), settled)
            if not settled.pending or (deadline is not None and time.monotonic() >= deadline):
                break
    print(text.settled(settled))
    return _settled_exit(settled)


def _settled_exit(settled: Settled) -> Exit:
    if settled.pending:
        return Exit.TIMEOUT
    return Exit.TROUBLED if settled.troubled else Exit.OK


def _expect(reply: msgspec.Struct, kind: type[_Reply]) -> _Reply:
    if not isinstance(reply, kind):
        raise ProtocolError(f"unable to understand the daemon: it answered {type(reply).__name__}")
    return reply
