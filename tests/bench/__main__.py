"""Run the benches named on the command line, or all; print a table, and exit with 1 if a bar was missed."""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

# Beside this package lies what the tests share. Run as a directory, Python put the package itself on the path.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

# Needs the path, as what follows it does.
from bench import (  # noqa: E402
    again,
    away,
    backlog,
    busy,
    caller,
    download,
    finding,
    idle,
    importing,
    many,
    send,
    status,
    training,
)
from bench.rig import Result, Rig, Usage, speed_seconds  # noqa: E402  # same

Bench = Callable[[Rig], Iterator[Result]]

BENCHES: dict[str, Bench] = {
    "caller": caller.run,
    "busy": busy.run,
    "away": away.run,
    "many": many.run,
    "again": again.run,
    "send": send.run,
    "download": download.run,
    "finding": finding.run,
    "import": importing.run,
    "backlog": backlog.run,
    "idle": idle.run,
    "status": status.run,
    "training": training.run,
}

_SCALES = ((1.0, "{:.3g} s", 1.0), (1e-3, "{:.3g} ms", 1e3), (0.0, "{:.3g} us", 1e6))
# Up to here the rest of the machine, with the kernel's own threads that write to the disk, counts as quiet.
QUIET = 0.1
_HEADINGS = ("what", "measured", "yardstick", "ratio", "bar", "samples", "verdict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    arguments = _parse(argv)
    directory = Path(tempfile.mkdtemp(prefix="dropoff-bench-", dir=arguments.dir))
    results: dict[str, list[Result]] = {}
    elsewhere: dict[str, float] = {}
    try:
        for name in arguments.benches or BENCHES:
            print(f"{name}: {_first_line(BENCHES[name])}", flush=True)
            speed = speed_seconds()
            began, usage = time.monotonic(), Usage.now()
            place = directory / name
            place.mkdir()
            results[name] = list(BENCHES[name](Rig(place)))
            shutil.rmtree(place)
            elsewhere[name] = usage.elsewhere()
            _print_table(results[name])
            took = f"{time.monotonic() - began:.0f} s"
            loops = (
                f"a million steps of Python take {_shown(speed, 's')} before, {_shown(speed_seconds(), 's')} after"
            )
            print(f"  ({took}; {loops}; {_disturbed(elsewhere[name])})\n", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(_report(results, elsewhere), indent=2) + "\n")
    missed = [result.what for some in results.values() for result in some if result.met is False]
    print(f"{len(missed)} bars missed" + "".join(f"\n  {what}" for what in missed))
    return 1 if missed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("benches", nargs="*", choices=[*BENCHES, []], metavar="BENCH", help=", ".join(BENCHES))
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a directory on the disk to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    return parser.parse_args(argv)


def _first_line(bench: Bench) -> str:
    return (sys.modules[bench.__module__].__doc__ or "").partition("\n")[0]


def _print_table(results: Sequence[Result]) -> None:
    rows = [_HEADINGS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row, note in zip(rows, ["", *(result.note for result in results)], strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {line.rstrip()}" + (f"  ({note})" if note else ""))


def _row(result: Result) -> tuple[str, ...]:
    beside, ratio, bar = "", "", ""
    if result.yardstick is not None:
        beside = f"{_shown(result.yardstick.measured, result.unit)} {result.yardstick.what}"
        ratio = _times(result.ratio or 0.0)
    if result.most is not None:
        bar = "<= " + (_times(result.most) if result.yardstick else _shown(result.most, result.unit))
    return (
        result.what,
        _shown(result.measured, result.unit),
        beside,
        ratio,
        bar,
        str(result.samples),
        result.verdict,
    )


def _times(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"


def _shown(value: float, unit: str) -> str:
    if unit == "s":
        return next(text.format(value * factor) for least, text, factor in _SCALES if value >= least)
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    return f"{value:.3g} {unit}"


def _disturbed(elsewhere: float) -> str:
    text = f"{100 * elsewhere:.0f} % of the machine's processor time went elsewhere"
    return text + ": not a quiet machine, so not fair to us" * (elsewhere > QUIET)


def _report(results: dict[str, list[Result]], elsewhere: dict[str, float]) -> dict[str, object]:
    return {
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()},
        "elsewhere": elsewhere,
        "results": {
            name: [asdict(one) | {"ratio": one.ratio, "met": one.met} for one in some]
            for name, some in results.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
