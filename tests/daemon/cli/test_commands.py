"""The command line against a real daemon: what is printed, and the exit codes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dropoff import Delivery
from dropoffd.cli import main
from support.daemon import DaemonProcess, MakeDaemon

ESCAPE = "\x1b[31mred\n\u202e"
SHOWN = r"\x1b[31mred\n\u202e"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return one daemon for the tests of this file, paused before each."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("daemon")).start()
    yield daemon
    daemon.end()


@pytest.fixture
def paused(shared: DaemonProcess) -> DaemonProcess:
    """Return a daemon that takes saves and delivers nothing."""
    shared.command("pause")
    return shared


def saved(daemon: DaemonProcess, directory: Path, data: bytes = b"content", **arguments: Any) -> Delivery:
    """Save a new file."""
    source = directory / "model.bin"
    source.write_bytes(data)
    return daemon.run().save_file(source, **arguments)


def held(daemon: DaemonProcess, directory: Path) -> Delivery:
    """Save a file to a store that can never be, and see it held."""
    obstacle = directory / "a-file"
    obstacle.write_bytes(b"")
    source = directory / "model.bin"
    source.write_bytes(b"content")
    delivery = daemon.run(store=str(obstacle / "store")).save_file(source)
    daemon.command("resume")
    daemon.command("wait", delivery.id, "--timeout", "30", check=False)
    return delivery


def answer(daemon: DaemonProcess, *arguments: str, code: int = 0) -> Any:
    """Return what a command prints as JSON."""
    done = daemon.command(*arguments, "--json", check=False)
    assert (done.returncode, done.stderr) == (code, "")
    told = json.loads(done.stdout)
    if isinstance(told, dict):
        told.pop("type", None)
    return told


def test_status_counts_what_is_in_custody(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """`status` tells jobs and bytes by state and whether it is paused, to people and programs alike."""
    daemon = make_daemon().start()
    daemon.command("pause")
    for _ in range(3):
        saved(daemon, tmp_path, b"x" * 100)
    told = answer(daemon, "status")
    assert (told["paused"], told["totals"]["queued"]) == (True, {"jobs": 3, "size_bytes": 300})
    text = daemon.command("status").stdout
    assert "PAUSED: `dropoff resume` goes on" in text
    assert re.search(r"^  queued +3 jobs +300 B$", text, re.MULTILINE)
    daemon.command("resume")
    daemon.command("wait", "--timeout", "30")
    assert answer(daemon, "status")["totals"]["delivered"] == {"jobs": 3, "size_bytes": 300}


def test_status_tells_what_needs_a_person(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A held job makes `status` exit with 10 and show reason and hint."""
    daemon = make_daemon().start()
    delivery = held(daemon, tmp_path)
    told = answer(daemon, "status", code=10)
    assert [job["job"] for job in told["held"]] == [delivery.id]
    done = daemon.command("status", check=False)
    assert done.returncode == 10
    assert "needs a person:" in done.stdout
    assert "hint: " in done.stdout


def test_jobs_are_listed_newest_first(paused: DaemonProcess, tmp_path: Path) -> None:
    """`jobs` shows the newest first, as many as wanted."""
    ids = [saved(paused, tmp_path).id for _ in range(3)]
    assert [job["job"] for job in answer(paused, "jobs", "--limit", "3")] == ids[::-1]
    lines = paused.command("jobs", "--limit", "2").stdout.splitlines()
    assert lines[0].split() == ["JOB", "STATE", "SIZE", "CAPTURE", "RUN", "NAME"]
    assert [line.split() for line in lines[1:]] == [
        [job[:16], "queued", "7", "B", "inline", "project/run", "model.bin"] for job in ids[:0:-1]
    ]


def test_jobs_can_be_narrowed_to_states(paused: DaemonProcess, tmp_path: Path) -> None:
    """`--state` shows only jobs in these states."""
    cancelled, queued = saved(paused, tmp_path), saved(paused, tmp_path)
    cancelled.cancel()
    assert answer(paused, "jobs", "--state", "cancelled", "--limit", "1")[0]["job"] == cancelled.id
    both = answer(paused, "jobs", "--state", "cancelled", "--state", "queued", "--limit", "2")
    assert [job["job"] for job in both] == [queued.id, cancelled.id]
    assert paused.command("jobs", "--state", "superseded").stdout == "no jobs\n"


def test_more_jobs_than_one_answer_holds_are_listed(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """`--limit` beyond what the daemon answers at once is fetched in pages, without doubles."""
    daemon = make_daemon().start()
    daemon.command("pause")
    source = tmp_path / "file"
    source.write_bytes(b"x")
    run = daemon.run()
    ids = [run.save_file(source).id for _ in range(510)]
    assert [job["job"] for job in answer(daemon, "jobs", "--limit", "505")] == ids[:4:-1]


def test_a_running_upload_is_found_behind_many_queued_jobs(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """`jobs --state uploading` shows the upload that runs although many newer jobs wait behind it."""
    daemon = make_daemon(transfers_max=1).start()
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(8 << 30)  # a hole, and many seconds to hash
    run = daemon.run()
    large = run.save_file(source)
    while answer(daemon, "show", large.id)["state"] != "uploading":
        pass
    small = tmp_path / "small"
    small.write_bytes(b"x")
    for _ in range(60):
        run.save_file(small)
    assert [job["job"] for job in answer(daemon, "jobs", "--state", "uploading")] == [large.id]
    large.cancel()


def test_show_tells_everything(shared: DaemonProcess, tmp_path: Path) -> None:
    """`show` takes the beginning of an id and tells name, state, and after delivery the receipt."""
    shared.command("resume")
    delivery = saved(shared, tmp_path)
    receipt = delivery.wait(30)
    told = answer(shared, "show", delivery.id)
    assert (told["job"], told["state"], told["name"]) == (delivery.id, "delivered", "model.bin")
    assert told["receipt"]["sha256"] == receipt.sha256
    facts = dict(line.split(None, 1) for line in shared.command("show", delivery.id[:30]).stdout.splitlines())
    assert (facts["job"], facts["sha256"], facts["key"]) == (delivery.id, receipt.sha256, receipt.key)


@pytest.mark.parametrize("command", ["show", "wait", "retry", "cancel"])
@pytest.mark.parametrize("job", ["f" * 32, "nonsense"])
def test_an_unknown_job_is_an_error_with_a_hint(shared: DaemonProcess, command: str, job: str) -> None:
    """A job that nobody knows gives exit code 1, a message and a hint, and nothing on standard output."""
    done = shared.command(command, job, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"dropoff: unable to find job {job}")
    assert "hint: `dropoff jobs` lists them" in done.stderr


def test_a_beginning_that_is_not_unique_is_refused(paused: DaemonProcess, tmp_path: Path) -> None:
    """The beginning of two ids names neither job."""
    first, second = saved(paused, tmp_path), saved(paused, tmp_path)
    beginning = first.id[: next(n for n in range(32) if first.id[n] != second.id[n])]
    done = paused.command("cancel", beginning, check=False)
    assert done.returncode == 1
    assert "more than one job's id begins so" in done.stderr
    assert (first.state, second.state) == ("queued", "queued")


def test_wait_ends_when_all_is_delivered(shared: DaemonProcess, tmp_path: Path) -> None:
    """`wait` returns 0 when the named jobs are delivered, and tells how many."""
    shared.command("resume")
    ids = [saved(shared, tmp_path).id for _ in range(3)]
    assert answer(shared, "wait", *ids) == {"pending": 0, "delivered": 3, "troubled": []}
    assert shared.command("wait", *ids).stdout == "3 delivered\n"


def test_wait_gives_up_after_its_time(paused: DaemonProcess, tmp_path: Path) -> None:
    """`wait --timeout` returns 11 when the time was up first, and tells what is left."""
    delivery = saved(paused, tmp_path)
    told = answer(paused, "wait", delivery.id, "--timeout", "0.1", code=11)
    assert told == {"pending": 1, "delivered": 0, "troubled": []}
    done = paused.command("wait", delivery.id, "--timeout", "0", check=False)
    assert (done.returncode, done.stdout) == (11, "0 delivered, 1 not yet\n")


def test_wait_tells_of_trouble(paused: DaemonProcess, tmp_path: Path) -> None:
    """`wait` returns 10 when a job was given up, and says why."""
    delivery = saved(paused, tmp_path)
    delivery.cancel()
    told = answer(paused, "wait", delivery.id, code=10)
    assert [job["state"] for job in told["troubled"]] == ["cancelled"]
    done = paused.command("wait", delivery.id, check=False)
    assert (done.returncode, "cancelled by the user" in done.stdout) == (10, True)


def test_retry_releases_held_jobs(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A job that was held is delivered after its cause is gone and `retry` was said."""
    daemon = make_daemon().start()
    delivery = held(daemon, tmp_path)
    assert delivery.state == "held"
    (tmp_path / "a-file").unlink()
    assert daemon.command("retry").stdout == "1 jobs are queued again\n"
    assert delivery.wait(30).job == delivery.id
    assert answer(daemon, "retry") == {"jobs": 0}


def test_cancel_gives_a_queued_job_up(paused: DaemonProcess, tmp_path: Path) -> None:
    """A cancelled job is never delivered, and its content leaves custody."""
    first, second = saved(paused, tmp_path), saved(paused, tmp_path, b"x" * (2 << 20))
    assert paused.command("cancel", first.id).stdout == "1 jobs were cancelled\n"
    assert answer(paused, "cancel", second.id) == {"jobs": 1}
    assert (first.state, second.state) == ("cancelled", "cancelled")
    assert list((paused.root / "state" / "payloads").glob(f"{second.id}*")) == []


def test_cancel_stops_a_delivery_that_runs(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A job can be given up in the middle of its delivery, and leaves nothing in the store."""
    daemon = make_daemon().start()
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(8 << 30)
    delivery = daemon.run().save_file(source)
    while delivery.state != "uploading":
        pass
    daemon.command("cancel", delivery.id)
    assert delivery.state == "cancelled"
    assert [path for path in daemon.store.rglob("*") if path.is_file()] == []


def test_cancelling_what_has_ended_is_refused(shared: DaemonProcess, tmp_path: Path) -> None:
    """A delivered job cannot be cancelled: exit code 1, and it stays delivered."""
    shared.command("resume")
    delivery = saved(shared, tmp_path)
    delivery.wait(30)
    done = shared.command("cancel", delivery.id, check=False)
    assert done.returncode == 1
    assert f"unable to cancel {delivery.id}: it has ended" in done.stderr
    assert delivery.state == "delivered"


def test_cancel_that_says_nothing_was_changed_changed_nothing(shared: DaemonProcess, tmp_path: Path) -> None:
    """If one of several jobs has ended, either the others are untouched or the answer does not deny it."""
    shared.command("resume")
    delivered = saved(shared, tmp_path)
    delivered.wait(30)
    shared.command("pause")
    queued = saved(shared, tmp_path)
    done = shared.command("cancel", queued.id, delivered.id, check=False)
    assert done.returncode == 1
    assert "nothing was changed" not in done.stderr or queued.state == "queued"


def test_pause_and_resume(paused: DaemonProcess, tmp_path: Path) -> None:
    """While paused saves are taken and nothing is delivered; `resume` goes on."""
    delivery = saved(paused, tmp_path)
    assert paused.command("pause").stdout == "deliveries are paused; `dropoff resume` goes on\n"
    assert answer(paused, "pause") == {"jobs": 0}
    assert delivery.state == "queued"
    assert paused.command("resume").stdout == "deliveries go on\n"
    assert delivery.wait(30).job == delivery.id
    assert answer(paused, "resume") == {"jobs": 0}


def test_a_pause_survives_a_restart(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """A daemon that was killed while paused is paused when it is back, and so after `resume` it is not."""
    daemon = make_daemon().start()
    daemon.command("pause")
    delivery = saved(daemon, tmp_path)
    daemon.kill()
    daemon.start()
    assert answer(daemon, "status")["paused"] is True
    assert delivery.state == "queued"
    daemon.command("resume")
    daemon.kill()
    daemon.start()
    assert answer(daemon, "status")["paused"] is False
    assert delivery.wait(30).job == delivery.id


def test_names_are_printed_escaped(paused: DaemonProcess, tmp_path: Path) -> None:
    """A name with terminal escapes, line ends and direction marks reaches no terminal as it is."""
    delivery = saved(paused, tmp_path, name=f"{ESCAPE}".encode() + b"\xff")
    for command in (["jobs", "--limit", "1"], ["show", delivery.id], ["jobs", "--limit", "1", "--json"]):
        text = paused.command(*command).stdout
        assert (SHOWN + r"\xff" in text.replace("\\\\", "\\"), "\x1b" in text, "\u202e" in text) == (
            True,
            False,
            False,
        )
    assert answer(paused, "show", delivery.id)["name"] == SHOWN + r"\xff"


@pytest.mark.parametrize("command", ["status", "jobs", "show", "wait", "retry", "cancel", "pause", "resume"])
def test_without_a_daemon_the_exit_code_is_69(make_daemon: MakeDaemon, command: str) -> None:
    """Every command says that no daemon runs, how many saves wait, and what to do."""
    daemon = make_daemon()
    arguments = ["0" * 32] if command in {"show", "cancel", "wait"} else []
    done = daemon.command(command, *arguments, check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert "0 saves wait in the inbox" in done.stderr
    assert "dropoff serve" in done.stderr


def test_saves_in_the_inbox_are_counted(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Without a daemon the message tells how many saves wait for one."""
    daemon = make_daemon()
    for _ in range(2):
        saved(daemon, tmp_path)
    done = daemon.command("status", check=False)
    assert (done.returncode, "2 saves wait in the inbox" in done.stderr) == (69, True)


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["show"], ["cancel"], ["show", "a", "b"], ["jobs", "--state", "odd"], ["jobs", "--limit", "x"],
     ["wait", "--timeout", "soon"], ["status", "extra"], ["pause", "now"], ["serve", "--json"]],
)  # fmt: skip
def test_bad_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A command line that makes no sense gives exit code 2 and a usage message."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.startswith("usage: dropoff")


def test_a_wrong_setting_is_78(make_daemon: MakeDaemon) -> None:
    """A setting that nobody knows stops every command with exit code 78 and the nearest right one."""
    done = make_daemon(spool_qouta_bytes=5).command("status", check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert "did you mean 'DROPOFF_SPOOL_QUOTA_BYTES'?" in done.stderr


def test_help_lists_commands_and_exit_codes(make_daemon: MakeDaemon) -> None:
    """`--help` and `--version` need no daemon."""
    text = make_daemon().command("--help").stdout
    for word in ("status", "jobs", "show", "wait", "retry", "cancel", "pause", "resume", "serve", "demo", " 69 "):
        assert word in text
    assert re.fullmatch(r"dropoff \d+\.\d+\.\d+\n", make_daemon().command("--version").stdout)
