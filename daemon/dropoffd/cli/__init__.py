"""The command line: `dropoff`, and `dropoffd` for `dropoff serve`."""

import sys

from dropoff.errors import DropoffError, SettingsError, UnavailableError
from dropoffd.errors import Exit, StartError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    from dropoffd.cli.parser import parse  # noqa: PLC0415  # keeps `import dropoffd.cli` light for the entry point

    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `dropoff jobs | head`
        sys.stderr.close()
        return Exit.OK
    except ModuleNotFoundError as error:
        print(f"dropoff: unable to run this command: {error}", file=sys.stderr)
        print("  hint: install the daemon with it: pip install 'dropoff[daemon]'", file=sys.stderr)
        return Exit.CONFIG
    except DropoffError as error:
        print(f"dropoff: {error}", file=sys.stderr)
        return _exit_code(error)


def serve_main() -> int:
    """Run `dropoff serve` with the arguments of `dropoffd`."""
    return main(["serve", *sys.argv[1:]])


def _exit_code(error: DropoffError) -> Exit:
    if isinstance(error, StartError):
        return error.exit_code
    if isinstance(error, SettingsError):
        return Exit.CONFIG
    if isinstance(error, UnavailableError):
        return Exit.UNAVAILABLE
    return Exit.FAILED
