"""Artifacts from the caller's side: what is added is captured at once, what is wrong is said at once."""

import json
import multiprocessing
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import dropoff
from dropoff import Artifact, MissingSourceError, UsageError
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with small files and a large one."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for n in range(20):
        (root / f"{n:02}.png").write_bytes(b"image %d" % n)
    (root / "deep" / "large.bin").write_bytes(os.urandom(3 << 20))
    return root


def artifact(daemon: DaemonProcess, name: str, **said: Any) -> Artifact:
    """Return an artifact in the making, whose files this daemon takes."""
    return Artifact(name, "dataset", settings=daemon.settings, **said)


def manifest(daemon: DaemonProcess, receipt: dropoff.Receipt) -> dict[str, Any]:
    """Return what the store says of a version."""
    found: dict[str, Any] = json.loads((daemon.store / receipt.record).read_bytes())
    return found


def files(daemon: DaemonProcess, receipt: dropoff.Receipt) -> dict[str, bytes]:
    """Return a version's files, read as a stranger would."""
    return {entry["path"]: oracle.content(daemon.store, entry) for entry in manifest(daemon, receipt)["entries"]}


def test_an_artifact_holds_what_was_added_when_it_was_added(
    shared: DaemonProcess, source: Path, directory: Path
) -> None:
    """Files and directories may change or vanish once they are added; the version has what they held."""
    made = artifact(shared, "captured", metadata={"a": 1}, description="d", ttl=timedelta(days=1))
    made.add_file(source)
    made.add_dir(directory, "images")
    with made.new_file("notes/hello.txt", encoding="utf-8") as file:
        file.write("h\N{LATIN SMALL LETTER E WITH ACUTE}llo")
    made.add_reference("http://127.0.0.1/raw.tar", "raw/data.tar")
    wanted = {f"images/{path.relative_to(directory)}": path.read_bytes() for path in directory.rglob("*.*")}
    source.write_bytes(b"changed")
    shutil.rmtree(directory)
    made.metadata["b"] = 2
    receipt = shared.run("p", "r").log_artifact(made, aliases=["best"], tags=["t"]).wait(30)
    assert files(shared, receipt) == wanted | {
        "model.bin": b"content",
        "notes/hello.txt": "h\N{LATIN SMALL LETTER E WITH ACUTE}llo".encode(),
    }
    found = manifest(shared, receipt)
    assert found["references"] == [{"path": "raw/data.tar", "uri": "http://127.0.0.1/raw.tar"}]
    said = ("type", "metadata", "description", "ttl_seconds", "tags", "run", "project")
    assert [found[key] for key in said] == ["dataset", {"a": 1, "b": 2}, "d", 86400.0, ["t"], "r", "p"]
    assert (receipt.version, receipt.files, receipt.size_bytes) == (0, 24, found["size"])
    aliases = shared.store / "p/artifacts/captured/aliases"
    assert {path.stem: json.loads(path.read_bytes())["version"] for path in aliases.iterdir()} == {
        "best": 0,
        "latest": 0,
    }


def test_a_path_is_logged_as_an_artifact(shared: DaemonProcess, source: Path, directory: Path) -> None:
    """A file or a directory can be logged in one call, under its own name or another."""
    run = shared.run("paths", "r")
    receipts = [run.log_artifact(source).wait(30), run.log_artifact(directory, "pictures", "dataset").wait(30)]
    assert [receipt.record for receipt in receipts] == [
        "paths/artifacts/model.bin/versions/000000.json",
        "paths/artifacts/pictures/versions/000000.json",
    ]
    assert manifest(shared, receipts[0])["type"] == "unspecified"
    assert "deep/large.bin" in files(shared, receipts[1])


def test_the_calls_of_a_loop_are_versions_in_order(shared: DaemonProcess, tmp_path: Path) -> None:
    """Version n of an artifact that is logged in a loop is that of the n-th call, whatever is large or slow."""
    run = shared.run("race", "r")
    deliveries = []
    for n in range(10):
        made = artifact(shared, "race", metadata={"index": n})
        (tmp_path / "data").write_bytes(b"%d" % n * (1 if n % 3 else 1 << 20))
        made.add_file(tmp_path / "data")
        deliveries.append(run.log_artifact(made))
    receipts = dropoff.wait(*deliveries, timeout=60)
    assert [receipt.version for receipt in receipts] == list(range(10))
    assert [manifest(shared, receipt)["metadata"]["index"] for receipt in receipts] == list(range(10))


def test_nothing_new_is_nothing_sent(shared: DaemonProcess, directory: Path) -> None:
    """The same directory again is the same version; with one file changed, that file's bytes are all that is sent."""
    run = shared.run("spared", "r")
    whole = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    first, second = (run.log_artifact(directory).wait(30) for _ in range(2))
    (directory / "00.png").write_bytes(b"new")
    third = run.log_artifact(directory).wait(30)
    assert [one.version for one in (first, second, third)] == [0, 0, 1]
    assert [one.spared_bytes for one in (first, second)] == [0, whole]
    assert third.spared_bytes == third.size_bytes - 3


def test_what_was_removed_or_overwritten_is_not_in_the_version(shared: DaemonProcess, tmp_path: Path) -> None:
    """Steps count in the order of the calls: removals of files and folders, and overwriting additions."""
    root = tmp_path / "d"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_bytes(name.encode())
    made = artifact(shared, "steps")
    made.add_dir(root, "x")
    made.add_dir(root, "y")
    made.remove("x/a")
    made.remove("y")
    made.add_file(root / "c", "x/b", overwrite=True)
    made.add_file(root / "c", "x/a")
    receipt = shared.run("steps", "r").log_artifact(made).wait(30)
    assert files(shared, receipt) == {"x/a": b"c", "x/b": b"c", "x/c": b"c"}


def test_what_contradicts_itself_is_refused_in_the_call(shared: DaemonProcess, source: Path, directory: Path) -> None:
    """A name twice is refused at the addition, or when the artifact is logged, and can be mended."""
    run = shared.run("wrong", "r")
    made = artifact(shared, "wrong")
    made.add_file(source, "00.png")
    with pytest.raises(UsageError, match="it has that already"):
        made.add_file(source, "00.png")
    with pytest.raises(UsageError, match="it was not added"):
        made.remove("other")
    made.add_dir(directory)
    with pytest.raises(UsageError, match=r"'00\.png' was added twice"):
        run.log_artifact(made)
    made.remove("00.png")
    made.add_file(source, "00.png")
    assert files(shared, run.log_artifact(made).wait(30))["00.png"] == b"content"
    with pytest.raises(UsageError, match="it was logged"):
        made.add_file(source)
    with pytest.raises(UsageError, match="it was logged"):
        run.log_artifact(made)


def test_another_type_is_refused_in_the_call(shared: DaemonProcess, source: Path) -> None:
    """Who logs a name under another type hears so at once, if this host knows the name."""
    run = shared.run("types", "r")
    run.log_artifact(source, "cats", "dataset").wait(30)
    with pytest.raises(UsageError, match="unable to make a version of 'cats' as a 'model': it is a 'dataset'"):
        run.log_artifact(source, "cats", "model")
    assert shared.run("types 2", "r").log_artifact(source, "cats", "model").wait(30).version == 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda a: a.add_file("/no/such/file"), MissingSourceError, "no such file"),
        (lambda a: a.add_file("/tmp"), UsageError, "it is a directory"),
        (lambda a: a.add_file(__file__, "../x"), UsageError, "climbs out"),
        (lambda a: a.add_dir(__file__), UsageError, "it is a file"),
        (lambda a: a.add_dir("/no/such/file", "/x"), UsageError, "is absolute"),
        (lambda a: a.add_reference("ftp://host/x"), UsageError, "unable to refer"),
        (lambda a: a.add_reference("s3://bucket/a\nb"), UsageError, "unable to refer"),
        (lambda a: a.add_reference("https://me:secret@host/x"), UsageError, "a password"),
        (lambda a: a.add_reference("https://host/"), UsageError, "is empty"),
        (lambda a: a.remove("x"), UsageError, "was not added"),
        (lambda a: a.new_file("x", "r").__enter__(), UsageError, "mode 'r'"),
    ],
)
def test_wrong_additions_fail_in_the_call(
    shared: DaemonProcess, call: Any, kind: type[Exception], message: str
) -> None:
    """What cannot be added is refused with the reason, and the artifact is as it was."""
    made = artifact(shared, "wrong calls")
    with pytest.raises(kind, match=message):
        call(made)
    receipt = shared.run("wrong calls", "r").log_artifact(made).wait(30)
    assert files(shared, receipt) == {}


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "..", "\x1b[31m"])
def test_names_of_artifacts(shared: DaemonProcess, name: str) -> None:
    """A name that could not be typed, or be told from an alias, is refused."""
    with pytest.raises(UsageError):
        artifact(shared, name)


@pytest.mark.parametrize("alias", ["v1", "a/b", "a:b", "", "\u732b" * 27])
def test_names_of_aliases(shared: DaemonProcess, source: Path, alias: str) -> None:
    """An alias that could be taken for a version or a name is refused, and nothing is logged."""
    with pytest.raises(UsageError):
        shared.run("aliases", "r").log_artifact(source, "x", aliases=[alias])
    with pytest.raises(UsageError, match="it is one string"):
        shared.run("aliases", "r").log_artifact(source, "x", aliases="best")
    assert not (shared.store / "aliases" / "artifacts").exists()


def test_an_error_in_the_block_adds_nothing(shared: DaemonProcess) -> None:
    """A new file whose block fails is not in the artifact."""
    made = artifact(shared, "blocks")
    with pytest.raises(ZeroDivisionError), made.new_file("x") as file:
        file.write(str(1 / 0))
    with made.new_file("x", "wb") as file:
        file.write(b"\0\xff")
    assert files(shared, shared.run("blocks", "r").log_artifact(made).wait(30)) == {"x": b"\0\xff"}


def test_an_artifact_is_made_in_one_process(shared: DaemonProcess) -> None:
    """A child that was forked, or handed the artifact, is told how several processes work together."""
    made = artifact(shared, "forked")
    with pytest.raises(UsageError, match="being made in this one"):
        multiprocessing.reduction.ForkingPickler.dumps(made)
    made._owner += 1
    with pytest.raises(UsageError, match="it was made in another process"):
        made.add_reference("s3://a/b")


def test_an_artifact_belongs_to_a_daemon(shared: DaemonProcess, make_daemon: MakeDaemon) -> None:
    """Files that one daemon has cannot be logged through another."""
    with pytest.raises(UsageError, match="with another daemon"):
        make_daemon().run().log_artifact(artifact(shared, "x"))


def test_without_a_daemon_artifacts_wait_in_the_inbox(make_daemon: MakeDaemon, directory: Path) -> None:
    """Versions logged while no daemon runs are made, in the order of the calls, when one is back."""
    daemon = make_daemon()
    run = daemon.run("offline", "r")
    deliveries = []
    for n in range(4):
        made = artifact(daemon, "offline", metadata={"n": n}, offline=n % 2 == 0)
        (directory / "n").write_bytes(b"%d" % n)
        made.add_dir(directory)
        made.add_file(directory / "n", "again")
        deliveries.append(run.log_artifact(made))
    daemon.start()
    receipts = dropoff.wait(*deliveries, timeout=60)
    assert [(receipt.version, manifest(daemon, receipt)["metadata"]["n"]) for receipt in receipts] == [
        (n, n) for n in range(4)
    ]
    assert [files(daemon, receipt)["again"] for receipt in receipts] == [b"%d" % n for n in range(4)]


def test_a_deposited_version_that_makes_no_sense_is_held(
    make_daemon: MakeDaemon, directory: Path, source: Path
) -> None:
    """What nobody could refuse in the call needs a person, who hears why."""
    daemon = make_daemon()
    made = artifact(daemon, "x")
    made.add_file(source, "00.png")
    made.add_dir(directory)
    delivery = daemon.run().log_artifact(made)
    daemon.start()
    assert daemon.run().flush(20).pending == 0
    with pytest.raises(dropoff.DeliveryError, match=r"'00\.png' was added twice"):
        delivery.wait(20)
    delivery.cancel()
    assert daemon.run().flush(20).troubled == ()


def test_what_is_never_logged_is_given_up_in_time(make_daemon: MakeDaemon, source: Path) -> None:
    """Additions to an artifact that nobody logs leave custody; while they wait, nobody waits for them."""
    daemon = make_daemon(unlogged_keep_seconds=0.01).start()
    daemon.run().save_file(source).wait(20)
    artifact(daemon, "x").add_file(source)
    assert json.loads(daemon.command("wait", "--json").stdout)["pending"] == 0
    assert json.loads(daemon.command("status", "--json").stdout)["totals"]["staged"]["jobs"] == 1
    daemon.stop()
    daemon.start()
    daemon.command("wait", "--timeout", "20")
    jobs = json.loads(daemon.command("jobs", "--json").stdout)
    assert sorted(job["state"] for job in jobs) == ["cancelled", "delivered"]


def test_cancelling_a_version_gives_up_its_files(paused: DaemonProcess, source: Path) -> None:
    """A version and what was added to it leave custody together."""
    made = artifact(paused, "cancelled")
    made.add_file(source)
    delivery = paused.run("cancelled", "r").log_artifact(made)
    assert delivery.state == "waiting"
    delivery.cancel()
    jobs = json.loads(paused.command("jobs", "--json").stdout)
    assert [job["state"] for job in jobs if job["run"] == "r" and job["project"] == "cancelled"] == ["cancelled"] * 2
