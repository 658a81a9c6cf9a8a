"""Finding, aliases and verification as users meet them: from Python and the command line, also without a daemon."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dropoff
from dropoff import NotStoredError, UsageError
from support.daemon import DaemonProcess


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return a daemon, and a store with two runs, three saves and three versions."""
    root = tmp_path_factory.mktemp("shelf")
    daemon = DaemonProcess(root / "daemon").start()
    source = root / "best.pt"
    for name, epoch in (("first", 9), ("second", 11)):
        source.write_text(f"weights {epoch}")
        run = daemon.run(name=name, tags=[name])
        run.save_file(source, prefix="models", tags=["best"], metadata={"epoch": epoch})
        run.log_artifact(source, "resnet", "model", aliases=[f"from-{name}"])
        assert not run.flush(60).pending
    source.write_text("nlp")
    other = daemon.run(name="other", project="nlp")
    other.save_file(source)
    other.log_artifact(source, "bert", "model")
    assert not other.flush(60).pending
    yield daemon
    daemon.end()


def told(daemon: DaemonProcess, *arguments: str) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(daemon.command(*arguments, "--json").stdout)


def test_python_finds_what_was_saved(shelf: DaemonProcess) -> None:
    """Projects, runs, files and versions are found, and what is found can be read."""
    settings = shelf.settings
    assert [one.project for one in dropoff.projects(settings=settings)] == ["nlp", "project"]
    assert [run.name for run in dropoff.find_runs("project", "f*", settings=settings)] == ["first"]
    (file,) = dropoff.find_files("project", where="epoch>10", tags=["best"], settings=settings)
    assert (file.run, Path(file.get_local_copy()).read_text()) == ("second", "weights 11")
    versions = dropoff.find_versions("project", "resnet", settings=settings)
    assert [(one.version, one.aliases) for one in versions] == [
        (1, ("from-second", "latest")), (0, ("from-first",)),
    ]  # fmt: skip
    assert Path(versions[1].path("best.pt")).read_text() == "weights 9"
    assert len(dropoff.find_files(settings=settings, limit=2)) == 2


def test_an_alias_moves_and_goes(shelf: DaemonProcess) -> None:
    """An alias stands for the version it was given last, until it is removed; `latest` and numbers are refused."""
    old, new = (dropoff.open_version(f"project/resnet:v{n}", settings=shelf.settings) for n in (0, 1))
    new.set_alias("prod")
    old.set_alias("prod")
    assert dropoff.open_version("project/resnet:prod", settings=shelf.settings).version == 0
    shelf.command("alias", "project/resnet:v1", "prod")
    assert dropoff.open_version("project/resnet:prod", settings=shelf.settings).version == 1
    old.remove_alias("prod")
    with pytest.raises(NotStoredError):
        dropoff.open_version("project/resnet:prod", settings=shelf.settings)
    with pytest.raises(NotStoredError, match="there is none"):
        old.remove_alias("prod")
    for refused in ("latest", "v3"):
        with pytest.raises(UsageError):
            old.set_alias(refused)


@pytest.mark.parametrize("running", [True, False])
def test_the_command_line_looks_around(shelf: DaemonProcess, *, running: bool) -> None:
    """`ls` goes down from projects to files, `find` takes every criterion, whether or not a daemon runs."""
    if not running:
        shelf.stop()
    try:
        assert [one["project"] for one in told(shelf, "ls")] == ["nlp", "project"]
        assert "resnet:v1 (from-second, latest)" in shelf.command("ls", "project").stdout
        assert [one["id"]["number"] for one in told(shelf, "ls", "project/resnet")] == [1, 0]
        assert [one["path"] for one in told(shelf, "ls", "project/resnet:from-first")] == ["best.pt"]
        assert [one["name"] for one in told(shelf, "ls", "project", "--run", "first")] == ["best.pt"]
        found = told(shelf, "find", "b*.pt", "--where", "epoch>=9", "--where", "epoch<10", "--since", "1d")
        assert [one["id"]["run"] for one in found] == ["first"]
        assert [one["id"]["artifact"] for one in told(shelf, "find", "--kind", "version", "--newest")] == [
            "bert", "resnet",
        ]  # fmt: skip
        assert shelf.command("find", "--until", "2020-01-01").stdout == "nothing found\n"
        for since in ("yesterday", "9" * 5000 + "d"):
            refused = shelf.command("find", "--since", since, check=False)
            assert (refused.returncode, "as a time" in refused.stderr) == (1, True)
        for nothing in (("ls", "/resnet"), ("verify", "projetc"), ("verify", "project", "--run", "x"), ("gc", "x")):
            assert shelf.command(*nothing, check=False).returncode == 1
    finally:
        if not running:
            shelf.start()


def test_verify_looks_at_all_and_names_what_is_damaged(shelf: DaemonProcess, tmp_path: Path) -> None:
    """A lost object and an unreadable manifest are named with who needs them, and the exit code tells."""
    whole = told(shelf, "verify", "--read-data")
    assert (whole["damaged"], whole["looked_at"], whole["read_bytes"] > 0) == (0, 6, True)
    assert told(shelf, "verify", "project", "--run", "first")["looked_at"] == 1
    source = tmp_path / "large.bin"
    source.write_bytes(b"x" * 100_000)
    run = shelf.run(name="damaged", project="hurt")
    for _ in range(2):
        run.save_file(source)
    run.log_artifact(source, "data", "dataset")
    assert not run.flush(60).pending
    (content,) = shelf.store.glob("hurt/files/*/large.bin")
    content.unlink()
    (shelf.store / "hurt/artifacts/data/versions/000009.json").write_bytes(b"{")
    done = shelf.command("verify", "hurt", "--json", check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["damaged"], found["files"]) == (10, 4, 3)
    assert {damage["where"].split("/")[1] for damage in found["damage"]} == {"artifacts", "runs"}
    assert (
        "DAMAGED hurt/artifacts/data/versions/000000.json: large.bin"
        in shelf.command("verify", "hurt/data", check=False).stdout
    )
