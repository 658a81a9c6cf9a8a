"""`dropoff export` and `dropoff import`: copy from store to store, in this process, without a daemon."""

import argparse
import sys

from dropoff.errors import UsageError
from dropoff.reading import version_named
from dropoff.settings import Settings, load, store_url
from dropoffd.cli import text
from dropoffd.copying.tally import Copied, Tally
from dropoffd.errors import Exit


def copy(arguments: argparse.Namespace) -> int:
    """Copy from a store, by default the usual one, to another, by default the usual one."""
    import asyncio  # noqa: PLC0415  # a fifth of what it takes to start any other command

    settings = load()
    source, target = (store_url(named or settings.store) for named in (arguments.source, arguments.target))
    if sys.stderr.isatty() and not arguments.json:
        from dropoffd.cli.progress import CopyProgress  # noqa: PLC0415  # rich takes 80 ms to import

        with CopyProgress() as progress:
            report = asyncio.run(_copy(settings, source, target, arguments, Tally(progress.update)))
    else:
        report = asyncio.run(_copy(settings, source, target, arguments, Tally(_show_nothing)))
    print(text.json(report) if arguments.json else text.copied(report))
    return Exit.TROUBLED if report.conflicts or report.damaged else Exit.OK


async def _copy(settings: Settings, source: str, target: str, arguments: argparse.Namespace, tally: Tally) -> Copied:
    # The other commands must not pay for all this.
    from dropoffd.cli.here import stores_here  # noqa: PLC0415
    from dropoffd.clock import SystemClock  # noqa: PLC0415
    from dropoffd.copying import copier  # noqa: PLC0415

    scope = copier.Scope(project=arguments.project, run=arguments.run)
    if arguments.artifact:
        named = version_named(arguments.artifact, arguments.project, source)
        which = named.which if ":" in arguments.artifact else ""
        scope = copier.Scope(project=named.project, artifact=named.artifact, which=which)
    try:
        async with stores_here(settings) as stores:
            return await copier.copy(
                await stores.open(source), await stores.open(target), scope, settings.cache_dir, tally, SystemClock()
            )
    except OSError as error:
        raise UsageError(
            f"unable to read or write on this machine: {error}", hint="check permissions and the room on the disk"
        ) from error


def _show_nothing(_: Tally) -> None:
    """Serve where nobody looks."""
