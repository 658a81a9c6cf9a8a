"""The commands that look after what a store has: aliases, and whether all of it is there."""

import argparse

from dropoff.errors import UsageError
from dropoff.messages import Audit, Changed, SetAlias, Verified, Verify, VersionReport
from dropoff.names import display, printable
from dropoff.reading import version_named
from dropoff.settings import Settings, load
from dropoffd.cli import text
from dropoffd.cli.reading import answer, store_named
from dropoffd.errors import Exit


def alias(arguments: argparse.Namespace) -> int:
    """Set or remove an alias."""
    settings = load()
    asked = version_named(arguments.version, arguments.project, store_named(settings, arguments.store))
    which = "" if arguments.delete else asked.which
    request = SetAlias(
        store=asked.store, project=asked.project, artifact=asked.artifact, alias=arguments.alias, which=which
    )
    changed = answer(settings, request, Changed)
    name = f"{asked.project}/{asked.artifact}"
    if arguments.json:
        print(text.json(changed))
    elif arguments.delete:
        print(printable(f"{name}:{arguments.alias} is removed; the version is not"))
    else:
        print(printable(f"{name}:{arguments.alias} stands for v{changed.number}"))
    return Exit.OK


def verify(arguments: argparse.Namespace) -> int:
    """Find out whether everything is there that should be."""
    settings = load()
    found = _verified(settings, arguments)
    if arguments.json:
        print(text.json(found))
    else:
        for damage in found.damage:
            where = f"{damage.where}: " if damage.where else ""
            print(printable(f"DAMAGED {where}{display(damage.path)} ({damage.key}): {damage.cause}"))
        if found.damaged > len(found.damage):
            print(f"... and {found.damaged - len(found.damage)} more")
        read = f", {text.size(found.read_bytes)} read and hashed" if arguments.read_data else ""
        state = f"{found.damaged} DAMAGED" if found.damaged else "all is there"
        print(f"{found.looked_at} records and versions, {found.files} files, {found.objects} objects{read}: {state}")
    return Exit.TROUBLED if found.damaged else Exit.OK


def _verified(settings: Settings, arguments: argparse.Namespace) -> Verified:
    store = store_named(settings, arguments.store)
    project, _, rest = arguments.what.partition("/")
    name, _, which = rest.partition(":")
    if arguments.run and (rest or not project):
        raise UsageError(
            "unable to verify a run without its project", hint="write `dropoff verify PROJECT --run RUN`"
        )
    if which:
        version = answer(settings, version_named(arguments.what, "", store), VersionReport)
        return answer(settings, Verify(of=version.id, read_data=arguments.read_data), Verified)
    asked = Audit(store=store, project=project, run=arguments.run, artifact=name, read_data=arguments.read_data)
    return answer(settings, asked, Verified)
