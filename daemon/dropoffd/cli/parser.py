"""What can be typed."""

import argparse
from typing import Protocol

from dropoff.messages import JobState
from dropoff.saves import Category
from dropoff.version import VERSION
from dropoffd.cli import commands, copying, curating, finding, reading
from dropoffd.errors import Exit

_EXIT_CODES = "\n".join(f"  {code.value:3}  {text}" for code, text in {
    Exit.OK: "done",
    Exit.FAILED: "the daemon refused, or something went wrong; the message says what",
    Exit.USAGE: "the command line is wrong",
    Exit.TROUBLED: "wait: some jobs are held or were given up; status, doctor, verify: something needs a person; "
    "export, import: something was not copied",
    Exit.TIMEOUT: "wait: the time was up first; the jobs go on",
    Exit.UNAVAILABLE: "no daemon answers",
    Exit.SOFTWARE: "demo: what was stored is not what was saved",
    Exit.IO: "serve: the spool's disk failed",
    Exit.RUNNING: "serve: a daemon runs already",
    Exit.CONFIG: "a setting, a directory or an installation is wrong",
}.items())  # fmt: skip


class _Verb(Protocol):
    def __call__(self, name: str, command: object, text: str, *, json: bool = True) -> argparse.ArgumentParser: ...


def parse(argv: list[str]) -> argparse.Namespace:
    """Return what was typed; exits with 2 and a usage message where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog="dropoff",
        description="Drop an artifact off and keep training: look after the daemon that delivers what you save.",
        epilog=f"exit codes:\n{_EXIT_CODES}\n\nThe README lists the settings: config.toml and DROPOFF_* variables.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dropoff {VERSION}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, command: object, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=command)
        if json:
            made.add_argument("--json", action="store_true", help="print JSON")
        return made

    _jobs(verb)
    _stores(verb)
    _curating(verb)
    _copying(verb)
    _daemon(verb)
    return parser.parse_args(argv)


def _jobs(verb: _Verb) -> None:
    """Add what looks after jobs."""
    status = verb("status", commands.status, "show what is in custody, how fast it goes, what needs a person")
    status.add_argument("--watch", action="store_true", help="keep showing, with progress, until all is delivered")

    jobs = verb("jobs", commands.jobs, "list jobs, newest first")
    jobs.add_argument("--state", action="append", default=[], choices=[s.value for s in JobState], help="only these")
    jobs.add_argument("--limit", type=int, default=50, metavar="N", help="how many at most (50)")

    show = verb("show", commands.show, "tell everything about one job")
    show.add_argument("job", metavar="JOB", help="its id, or the beginning of it")

    wait = verb("wait", commands.wait, "wait until jobs are delivered, with a progress bar")
    wait.add_argument("jobs", nargs="*", metavar="JOB", help="these jobs; none means all in custody now")
    wait.add_argument("--timeout", type=float, metavar="SECONDS", help="give up waiting after so long")

    retry = verb("retry", commands.retry, "put held jobs back in the queue")
    retry.add_argument("jobs", nargs="*", metavar="JOB", help="these jobs, also waiting ones; none means all held")

    cancel = verb("cancel", commands.cancel, "give jobs up; their content leaves custody undelivered")
    cancel.add_argument("jobs", nargs="+", metavar="JOB")

    verb("pause", commands.pause, "stop starting deliveries; saves are still taken")
    verb("resume", commands.resume, "start deliveries again")

    limit = verb("limit", commands.limit, "show or change how fast bytes go out")
    limit.add_argument(
        "bandwidth", nargs="?", metavar="TIMETABLE",
        help='such as 10MB/s, or "08:00-19:00 10MB/s, sat-sun unlimited"; "off" goes by the settings again',
    )  # fmt: skip
    limit.add_argument("--store", default="", metavar="URL", help="only what goes to this store")


def _stores(verb: _Verb) -> None:
    """Add what looks into stores."""
    get = verb("get", reading.get, "download a version of an artifact; also where no daemon runs")
    get.add_argument("version", metavar="[PROJECT/]NAME[:VERSION]", help="v3 or an alias; without one the latest")
    get.add_argument("directory", nargs="?", metavar="DIR", help="where to (a directory of the artifact's name)")
    get.add_argument("--path", action="append", default=[], help="only this file, or those below this directory")
    get.add_argument("--references", action="store_true", help="what references lead to as well, from where it lies")
    get.add_argument("--links", action="store_true", help="read-only links into the cache instead of copies")
    _place(get)

    ls = verb("ls", finding.ls, "list what a store, a project, an artifact or a version has; also without a daemon")
    ls.add_argument(
        "what", nargs="?", default="", metavar="PROJECT[/NAME[:VERSION]]",
        help="none: projects; a project: its runs and artifacts; an artifact: its versions; a version: its files",
    )  # fmt: skip
    ls.add_argument("--run", default="", help="what this run of the project saved")
    _store(ls)

    find = verb("find", finding.find, "look for runs, files or versions that are all of this, the newest first")
    find.add_argument("name", nargs="?", default="", help="a name, or a pattern such as 'best*'")
    find.add_argument("--kind", choices=["file", "version", "run"], default="file", help="what to look for (file)")
    find.add_argument("--project", default="", help="of this project")
    find.add_argument("--run", default="", help="saved or made by this run")
    find.add_argument("--type", default="", help="versions of artifacts of this type")
    find.add_argument("--newest", action="store_true", help="of each artifact only the newest version")
    find.add_argument("--prefix", default="", metavar="FOLDER", help="files whose names begin with these folders")
    find.add_argument("--category", choices=list(Category), default="", help="files of this category")
    find.add_argument("--tag", action="append", default=[], help="with this tag; more than once: with all of them")
    find.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help="on metadata, such as 'epoch>10'; all hold"
    )
    find.add_argument("--since", default="", metavar="TIME", help="a date, 2026-11-26T08:00, or 3d for 3 days ago")
    find.add_argument("--until", default="", metavar="TIME", help="before then")
    find.add_argument("--limit", type=int, default=100, metavar="N", help="how many at most (100)")
    _store(find)

    doctor = verb(
        "doctor", commands.doctor, "try everything that deliveries need on a store, and leave nothing there"
    )
    doctor.add_argument("store", nargs="?", metavar="STORE", help="a URL or a directory (the setting `store`)")


def _curating(verb: _Verb) -> None:
    """Add what changes, or examines, what stores have."""
    alias = verb("alias", curating.alias, "let an alias stand for a version of an artifact")
    alias.add_argument("version", metavar="[PROJECT/]NAME[:VERSION]", help="v3 or another alias; else the latest")
    alias.add_argument("alias", metavar="ALIAS", help="such as best; latest cannot be set")
    alias.add_argument("--delete", action="store_true", help="take the alias away; the version stays")
    _place(alias)

    rm = verb("rm", curating.rm, "remove versions or a run from the catalogue; shows what that means, and asks")
    rm.add_argument("what", metavar="PROJECT/NAME[:VERSION]", help="all versions, or one; with --run: PROJECT")
    rm.add_argument("--run", default="", help="this run and what it saved, but not the versions that it made")
    rm.add_argument("--yes", action="store_true", help="do not ask")
    _store(rm)

    prune = verb(
        "prune", curating.prune, "remove the versions that no rule keeps; shows them unless --apply is given"
    )
    prune.add_argument("what", metavar="PROJECT[/NAME]", help="a name may be a pattern")
    prune.add_argument(
        "--keep", default="", metavar="RULES",
        help='such as "cv/ckpt-*: newest 5, highest 3 by acc" (the setting `retention`)',
    )  # fmt: skip
    prune.add_argument("--apply", action="store_true", help="remove them")
    _store(prune)

    gc = verb("gc", curating.gc, "remove content that nothing names; shows how much unless --apply is given")
    gc.add_argument("project", metavar="PROJECT")
    gc.add_argument("--grace", default="7d", metavar="SPAN", help="leave alone what was named so recently (7d)")
    gc.add_argument("--apply", action="store_true", help="remove it")
    _store(gc)

    verify = verb(
        "verify", curating.verify, "find out whether the store has all that it should have, as it should be"
    )
    verify.add_argument(
        "what", nargs="?", default="", metavar="PROJECT[/NAME[:VERSION]]", help="none means the whole store"
    )
    verify.add_argument("--run", default="", help="what this run of the project saved")
    verify.add_argument("--read-data", action="store_true", help="read and hash every byte, too")
    _store(verify)


def _copying(verb: _Verb) -> None:
    """Add what copies from store to store."""
    export = verb("export", copying.copy, "copy a project, a run or an artifact to another store")
    export.add_argument("target", metavar="STORE", help="a URL or a directory")
    export.add_argument("--from", dest="source", metavar="URL", help="the store that has it (the setting `store`)")
    _scope(export)

    take = verb("import", copying.copy, "copy a project, a run or an artifact from another store")
    take.add_argument("source", metavar="STORE", help="a URL or a directory")
    take.add_argument("--to", dest="target", metavar="URL", help="the store that gets it (the setting `store`)")
    _scope(take)


def _daemon(verb: _Verb) -> None:
    """Add what runs the daemon."""
    serve = verb("serve", commands.serve, "run the daemon in the foreground", json=False)
    serve.add_argument("--verbose", action="store_true", help="log more")

    demo = verb(
        "demo",
        commands.demo,
        "train a small model, kill the daemon, and see that nothing is lost",
        json=False,
    )
    demo.add_argument("--directory", metavar="DIR", help="where to work and leave the store (a new temporary one)")


def _scope(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--project", default="default", help="of which project (default)")
    part = verb.add_mutually_exclusive_group()
    part.add_argument("--run", default="", metavar="NAME", help="only this run, and the versions that it made")
    part.add_argument(
        "--artifact", default="", metavar="NAME[:VERSION]", help="only this artifact, or one version of it"
    )


def _place(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--project", default="default", help="where no project is named (default)")
    _store(verb)


def _store(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--store", default="", metavar="URL", help="a URL or a directory (the setting `store`)")
