"""Removing as users meet it: versions and runs go when told, content when nothing has named it for long."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

import dropoff
from dropoff import NotStoredError
from support.daemon import DaemonProcess, MakeDaemon, until

OLD_SECONDS = 30 * 86400


def told(daemon: DaemonProcess, *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(daemon.command(*arguments, "--json").stdout)


def log(daemon: DaemonProcess, path: Path, text: str, accuracy: float, **other: Any) -> None:
    """Log a version that holds a text."""
    path.write_text(text)
    artifact = dropoff.Artifact("ckpt", "model", metadata={"acc": accuracy}, settings=daemon.settings)
    artifact.add_file(path)
    daemon.run().log_artifact(artifact, **other).wait(60)


def age(daemon: DaemonProcess) -> None:
    """Let all that the store has be old."""
    moment = time.time() - OLD_SECONDS
    for path in daemon.store.rglob("*"):
        os.utime(path, (moment, moment))


def contents(daemon: DaemonProcess) -> list[str]:
    """Return what is stored, without its names."""
    return sorted(path.read_text() for path in daemon.store.glob("project/files/**/*") if path.is_file())


def test_what_no_rule_keeps_goes_and_then_its_content(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Pruned versions cannot be read any more, and their content is collected once the grace is over."""
    for number, accuracy in enumerate((0.9, 0.5, 0.7, 0.6)):
        log(daemon, tmp_path / "w", f"weights {number}", accuracy, aliases=["prod"] if number == 1 else [])
    keep = ("project/ckpt", "--keep", "project/*: highest 1 by acc")
    planned = told(daemon, "prune", *keep)
    assert ([one["id"]["number"] for one in planned["doomed"]], planned["orphaned"]) == ([2], 1)
    assert "project/ckpt:v2" in daemon.command("prune", *keep, "--apply").stdout
    assert [version.version for version in dropoff.find_versions(settings=daemon.settings)] == [3, 1, 0]
    with pytest.raises(NotStoredError):
        dropoff.open_version("project/ckpt:v2", settings=daemon.settings)
    assert told(daemon, "gc", "project", "--apply")["removed"] == 0
    age(daemon)
    planned = told(daemon, "gc", "project")
    assert (planned["kept"], planned["garbage"], planned["removed"]) == (3, 1, 0)
    assert told(daemon, "gc", "project", "--apply")["removed"] == 1
    assert contents(daemon) == ["weights 0", "weights 1", "weights 3"]
    assert daemon.command("verify", "project", "--read-data").returncode == 0


def test_a_number_is_never_given_out_again(daemon: DaemonProcess, tmp_path: Path) -> None:
    """After the newest version was removed, `latest` is the one before it, and the next one has its own number."""
    for number in range(2):
        log(daemon, tmp_path / "w", f"weights {number}", 0.5)
    daemon.command("rm", "project/ckpt:latest", "--yes")
    assert dropoff.open_version("project/ckpt", settings=daemon.settings).version == 0
    log(daemon, tmp_path / "w", "weights 2", 0.5)
    assert dropoff.open_version("project/ckpt", settings=daemon.settings).version == 2


def test_a_name_is_no_pattern_to_who_removes(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Of artifacts with brackets in their names, or others like them, just that goes which is named."""
    (tmp_path / "w").write_text("weights")
    for name in ("ckpt-[1]", "ckpt-1"):
        daemon.run().log_artifact(tmp_path / "w", name, "model").wait(60)
    assert daemon.command("rm", "project/ckpt-*", "--yes", check=False).returncode == 1
    assert "project/ckpt-[1]:v0" in daemon.command("rm", "project/ckpt-[1]:v0", "--yes").stdout
    assert [one.name for one in dropoff.find_versions(settings=daemon.settings)] == ["ckpt-1"]


def test_rm_shows_what_it_orphans_and_removes_only_when_told(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Aliases and users of a version are shown first; a run goes with its records, what it made stays."""
    log(daemon, tmp_path / "w", "weights", 0.5, aliases=["prod"])
    daemon.run(name="user").use_artifact("ckpt:v0")
    daemon.run().save_file(tmp_path / "w", name="copy").wait(60)
    shown = daemon.command("rm", "project/ckpt").stdout
    assert "project/ckpt:v0 (latest, prod)" in shown
    assert "used by project/user" in shown
    assert "nothing was removed" in shown
    removed = told(daemon, "rm", "project", "--run", "run", "--yes")
    assert (removed["records"], removed["versions"], removed["orphaned"], removed["applied"]) == (1, 0, 1, True)
    assert dropoff.find_files(settings=daemon.settings) == []
    assert [one.aliases for one in dropoff.find_versions(settings=daemon.settings)] == [("latest", "prod")]
    refused = daemon.command("rm", "project/nothing", "--yes", check=False)
    assert (refused.returncode, "it has no version" in refused.stderr) == (1, True)
    refused = daemon.command("gc", "project", "--grace", "1h", check=False)
    assert (refused.returncode, "under way" in refused.stderr) == (1, True)


def test_the_daemon_tidies_up_when_it_is_set_to(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """With rules and a time, versions and content go by themselves."""
    daemon = make_daemon().start()
    for number in range(3):
        log(daemon, tmp_path / "w", f"weights {number}", 0.5)
    daemon.stop()
    age(daemon)
    # A project that nobody can tidy up keeps nobody from the others.
    trouble = daemon.store / "cv/runs/run/files" / f"{'0' * 32}.json"
    trouble.parent.mkdir(parents=True)
    run = (daemon.store / "project/runs/run/run.json").read_text()
    (trouble.parent.parent / "run.json").write_text(run.replace('"project":"project"', '"project":"cv"'))
    trouble.write_text("{")
    # What is removed now is named for the grace; so the content of a version that was removed long ago goes.
    daemon.environment |= {"DROPOFF_RETENTION": "*/*: newest 2", "DROPOFF_TIDY_EVERY_SECONDS": "0.05"}
    daemon.start()
    removed = daemon.store / "project/artifacts/ckpt/removed/000000.json"
    until(removed.exists)
    os.utime(removed, (time.time() - OLD_SECONDS,) * 2)
    until(lambda: contents(daemon) == ["weights 1", "weights 2"])
