"""The commands that look after what a store has: aliases, whether all of it is there, and what is to go."""

import argparse
import sys

import msgspec

from dropoff.answers import Changed, Collected, Removed, Verified, VersionReport
from dropoff.errors import UsageError
from dropoff.names import display, printable
from dropoff.questions import Audit, Collect, Prune, Remove, SetAlias, Verify
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


def rm(arguments: argparse.Namespace) -> int:
    """Remove versions or a run, once it is known what that means."""
    settings = load()
    project, _, rest = arguments.what.partition("/")
    name, _, which = rest.partition(":")
    asked = Remove(
        store=store_named(settings, arguments.store), project=project, artifact=name, which=which, run=arguments.run
    )
    planned = answer(settings, asked, Removed)
    sure = arguments.yes
    if not arguments.json:
        _tell_removed(planned)
        if not sure and sys.stdin.isatty():
            sure = input("remove it? [y/N] ").strip().lower() in {"y", "yes"}
    if not sure:
        print(text.json(planned) if arguments.json else "nothing was removed; --yes removes it without asking")
        return Exit.OK
    removed = answer(settings, msgspec.structs.replace(asked, apply=True), Removed)
    print(text.json(removed) if arguments.json else "removed; `dropoff gc` frees the space once the grace is over")
    return Exit.OK


def prune(arguments: argparse.Namespace) -> int:
    """Remove what no rule keeps."""
    settings = load()
    project, _, name = arguments.what.partition("/")
    asked = Prune(
        store=store_named(settings, arguments.store), project=project, artifact=name, rules=arguments.keep,
        apply=arguments.apply,
    )  # fmt: skip
    removed = answer(settings, asked, Removed)
    if arguments.json:
        print(text.json(removed))
    else:
        _tell_removed(removed)
        print("removed" if removed.applied else "nothing was removed; --apply removes it")
    return Exit.OK


def gc(arguments: argparse.Namespace) -> int:
    """Collect garbage."""
    settings = load()
    asked = Collect(
        store=store_named(settings, arguments.store), project=arguments.project,
        grace_seconds=text.seconds(arguments.grace), apply=arguments.apply,
    )  # fmt: skip
    found = answer(settings, asked, Collected)
    if arguments.json:
        print(text.json(found))
        return Exit.OK
    for trouble in found.unreadable:
        print(printable(f"unreadable, so nothing would be removed: {trouble}"))
    print(f"named, or too young: {found.kept} objects, {text.size(found.kept_bytes)}")
    print(f"garbage: {found.garbage} objects, {text.size(found.garbage_bytes)}")
    if asked.apply:
        uploads = f"; {found.uploads} unfinished uploads ended" if found.uploads else ""
        print(f"removed: {found.removed} objects, {text.size(found.removed_bytes)}{uploads}")
    else:
        print("nothing was removed; --apply removes it")
    return Exit.OK


def _tell_removed(removed: Removed) -> None:
    for one in removed.doomed:
        name = f"{one.id.project}/{one.id.artifact}:v{one.id.number}"
        aliases = f" ({', '.join(one.aliases)})" if one.aliases else ""
        used = f"; used by {', '.join(one.used_by)}" if one.used_by else ""
        print(printable(f"  {name}{aliases}  {text.size(one.size_bytes)}  {one.reason}{used}"))
    if removed.versions > len(removed.doomed):
        print(f"  ... and {removed.versions - len(removed.doomed)} more")
    orphans = f"{removed.orphaned} objects, {text.size(removed.orphaned_bytes)}, would be named by nothing"
    print(f"{removed.versions} versions and {removed.records} records of runs; {orphans}")
