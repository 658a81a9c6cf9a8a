"""Calls that save: what is refused, with which words, and what the options do."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import dropoff
from dropoff import (
    Category,
    DropoffError,
    Keep,
    MissingSourceError,
    UnavailableError,
    UsageError,
)
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [({"category": "outputs"}, UsageError), ({"keep": "latest"}, UsageError), ({"priority": 1001}, UsageError),
     ({"priority": -1001}, UsageError), ({"name": ""}, UsageError), ({"name": "/absolute"}, UsageError),
     ({"name": "../up"}, UsageError), ({"name": b"a\0b"}, UsageError), ({"name": "x" * 256}, UsageError),
     ({"prefix": "../up"}, UsageError), ({"prefix": "/absolute"}, UsageError), ({"prefix": "\udcff"}, UsageError),
     ({"tags": "one string"}, UsageError), ({"tags": [""]}, UsageError), ({"tags": [1]}, UsageError),
     ({"metadata": {"a": object}}, UsageError), ({"metadata": {"a": {1, 2}, "b": object}}, UsageError),
     ({"metadata": [1]}, UsageError), ({"metadata": {"a": "\ud800"}}, UsageError),
     ({"metadata": {"a": "x" * (2 << 20)}}, DropoffError), ({"metadata": {"a": 2**64}}, UsageError),
     ({"priority": 0.5}, UsageError), ({"description": 5}, UsageError), ({"description": "\ud800"}, UsageError),
     ({"content_type": 5}, UsageError), ({"tags": ["\ud800"]}, UsageError)],
    ids=lambda value: str(value)[:60].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_wrong_arguments_are_told_at_the_call(
    shared: DaemonProcess, source: Path, arguments: dict[str, Any], kind: type[DropoffError]
) -> None:
    """Each misuse raises the right error, worded "unable to ..." with a hint, and saves nothing."""
    with pytest.raises(kind, match=r"^unable to ") as caught:
        shared.run().save_file(source, **arguments)
    assert caught.value.hint


def test_metadata_that_refers_to_itself_is_told(shared: DaemonProcess, source: Path) -> None:
    """Metadata without an end raises UsageError."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(UsageError, match="unable to use the metadata"):
        shared.run().save_file(source, metadata=endless)


def test_wrong_sources_are_told_at_the_call(shared: DaemonProcess, source: Path, tmp_path: Path) -> None:
    """What is not there, of the wrong kind, or no path at all raises the right error with a hint."""
    run = shared.run()
    os.mkfifo(tmp_path / "fifo")
    wrong: list[tuple[type[DropoffError], str, Any, Any]] = [
        (MissingSourceError, "no such file", run.save_file, tmp_path / "missing"),
        (MissingSourceError, "no such file", run.save_directory, tmp_path / "missing"),
        (MissingSourceError, "no such file", run.save_file, ""),
        (UsageError, "it is a directory", run.save_file, tmp_path),
        (UsageError, "it is a file", run.save_directory, source),
        (UsageError, "neither a file nor a directory", run.save_file, tmp_path / "fifo"),
        (UsageError, "neither a file nor a directory", run.save_file, "/dev/null"),
        (UsageError, "Not a directory", run.save_file, source / "below"),
        (UsageError, "unable to save", run.save_file, "nul\0byte"),
    ]
    for kind, words, call, path in wrong:
        with pytest.raises(kind, match=r"^unable to save") as caught:
            call(path)
        assert words in caught.value.message
        assert caught.value.hint


def test_a_missing_source_is_also_what_python_calls_it(shared: DaemonProcess, tmp_path: Path) -> None:
    """Code that catches FileNotFoundError or ValueError catches ours."""
    with pytest.raises(FileNotFoundError):
        shared.run().save_file(tmp_path / "missing")
    with pytest.raises(ValueError, match="unable"):
        shared.run().save_file(tmp_path)


@pytest.mark.parametrize(
    "label", ["", "a/b", "..", ".", "/a", "x" * 256, "new\nline", "\x1b[31m", "\u202e", "\udcff"]
)
def test_labels_are_checked_when_the_run_is_opened(shared: DaemonProcess, label: str) -> None:
    """A project or run name that is no plain component raises UsageError with a hint."""
    for arguments in ({"project": label}, {"project": "p", "name": label}):
        with pytest.raises(UsageError, match="unable to use") as caught:
            dropoff.init(**arguments, settings=shared.settings)  # type: ignore[arg-type]
        assert caught.value.hint


def test_a_store_that_nothing_serves_is_told_at_the_save(shared: DaemonProcess, source: Path) -> None:
    """A store nobody can reach by that URL raises UsageError that shows a right one."""
    for store in ("s3://", "s3:///prefix", "file://two-slashes/x", "gopher://x"):
        with pytest.raises(UsageError, match="unable to use") as caught:
            shared.run(store=store).save_file(source)
        assert "s3://bucket/prefix" in caught.value.hint


@pytest.mark.parametrize("name", ["plain", "a#b", "a?b", "100%25", "50%", "with space", "caf\u00e9"])
def test_a_store_may_be_any_directory(shared: DaemonProcess, source: Path, tmp_path: Path, name: str) -> None:
    """Whatever a directory is called, saves go there and nowhere else."""
    delivery = shared.run(store=str(tmp_path / name)).save_file(source)
    delivery.wait(30)
    assert oracle.contents(tmp_path / name)[delivery.id] == {b"model.bin": b"content"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, source.name])


def test_a_run_without_a_name_gets_one(shared: DaemonProcess) -> None:
    """Two runs opened at once have two names."""
    first, second = (dropoff.init("p", settings=shared.settings) for _ in range(2))
    assert first.name != second.name
    assert repr(first) == f"<Run p/{first.name} -> file://{shared.store}>"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({}, b"model.bin"), ({"name": "best.pt"}, b"best.pt"), ({"name": b"a/\xff"}, b"a/\xff")],
)
def test_names(paused: DaemonProcess, source: Path, arguments: dict[str, Any], name: bytes) -> None:
    """A save is called as its file, or as said."""
    report = paused.run().save_file(source, **arguments).report()
    assert report is not None
    assert report.name == name


def test_preserve_path_keeps_the_folders(
    paused: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `preserve_path` the whole path, as given, is the name."""
    (tmp_path / "logs" / "a").mkdir(parents=True)
    (tmp_path / "logs" / "a" / "x").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    run = paused.run()
    deliveries = [
        run.save_file("logs/a/x", preserve_path=True),
        run.save_file("./logs//a/../a/x", preserve_path=True),
        run.save_file(tmp_path / "logs/a/x", preserve_path=True),
        run.save_directory("logs"),
        run.save_directory("."),
    ]
    names = [report.name for report in (delivery.report() for delivery in deliveries) if report]
    assert names == [
        b"logs/a/x", b"logs/a/x", os.fsencode(tmp_path / "logs/a/x")[1:], b"logs", os.fsencode(tmp_path.name),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="climbs"):
        run.save_file("../" + tmp_path.name + "/logs/a/x", preserve_path=True)


def test_the_record_tells_what_was_said(shared: DaemonProcess, source: Path) -> None:
    """Category, description, tags, metadata, type and prefix are in the record and the key."""
    delivery = shared.run("cv", "r").save_file(
        source, Category.INPUT, "text/x", prefix="in/put/", description="d", tags=["a", "b"],
        metadata={"n": 1, "x": None, "l": [1.5, "s", True]},
    )  # fmt: skip
    receipt = delivery.wait(30)
    record = oracle.records(shared.store)[delivery.id]
    assert {key: record[key] for key in ("project", "run", "category", "description", "tags", "metadata")} == {
        "project": "cv", "run": "r", "category": "input", "description": "d", "tags": ["a", "b"],
        "metadata": {"n": 1, "x": None, "l": [1.5, "s", True]},
    }  # fmt: skip
    assert record["entries"][0]["content_type"] == "text/x"
    assert receipt.key == f"cv/files/in/put/{receipt.sha256[:32]}/model.bin"


def test_save_all_takes_files_and_directories(shared: DaemonProcess, source: Path, tmp_path: Path) -> None:
    """Each path is a job of its own kind, in order, with the common arguments."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a").write_bytes(b"a")
    deliveries = shared.run().save_all([source, tmp_path / "results", os.fsencode(source)], "code", tags=["t"])
    dropoff.wait(*deliveries, timeout=30)
    records = oracle.records(shared.store)
    assert [records[one.id]["kind"] for one in deliveries] == ["file", "directory", "file"]
    assert {(records[one.id]["category"], tuple(records[one.id]["tags"])) for one in deliveries} == {("code", ("t",))}
    assert shared.run().save_all([]) == []


def test_the_newest_supersedes_the_undelivered(paused: DaemonProcess, source: Path) -> None:
    """With keep="newest" the last of several saves of a name is delivered, those before it are superseded."""
    run = paused.run("newest", "run")
    other = run.save_file(source, name="other", keep="newest")
    kept = run.save_file(source)
    deliveries = []
    for n in range(4):
        source.write_bytes(b"%d" % n)
        deliveries.append(run.save_file(source, keep=Keep.NEWEST))
    assert [one.state for one in deliveries] == ["superseded"] * 3 + ["queued"]
    assert (other.state, kept.state) == ("queued", "queued")
    paused.command("resume")
    assert run.flush(30).pending == 0
    contents = oracle.contents(paused.store)
    assert contents[deliveries[3].id] == {b"model.bin": b"3"}
    assert [one.id for one in deliveries[:3] if one.id in contents] == []
    with pytest.raises(dropoff.DeliveryError, match="superseded"):
        deliveries[0].wait(5)


def test_flush_waits_for_its_own_run_alone(paused: DaemonProcess, source: Path) -> None:
    """`flush` counts what of this run is pending, never raises, and ignores other runs."""
    mine, other = paused.run("flush", "mine"), paused.run("flush", "other")
    for _ in range(3):
        mine.save_file(source)
    other.save_file(source)
    assert (mine.flush(0).pending, mine.flush(0.2).pending) == (3, 3)
    paused.command("resume")
    settled = mine.flush(30)
    assert (settled.pending, settled.delivered, settled.troubled) == (0, 3, ())


def test_flush_tells_of_trouble(shared: DaemonProcess, source: Path, tmp_path: Path) -> None:
    """Jobs that need a person are in `flush`'s answer, and not waited for."""
    (tmp_path / "obstacle").write_bytes(b"")
    run = shared.run("flush", "troubled", store=str(tmp_path / "obstacle" / "store"))
    delivery = run.save_file(source)
    settled = run.flush(30)
    assert (settled.pending, [report.job for report in settled.troubled]) == (0, [delivery.id])
    delivery.cancel()


def test_flush_without_a_daemon_is_bounded(make_daemon: MakeDaemon, source: Path) -> None:
    """With no daemon `flush` returns when its time is up and says that something is pending."""
    run = make_daemon().run()
    run.save_file(source)
    assert run.flush(0.3).pending >= 1


def test_without_a_daemon_a_save_may_raise_if_wanted(make_daemon: MakeDaemon, source: Path) -> None:
    """`on_unavailable = "error"` raises UnavailableError with a hint and keeps nothing."""
    daemon = make_daemon(on_unavailable="error")
    with pytest.raises(UnavailableError, match="unable to reach the daemon") as caught:
        daemon.run().save_file(source)
    assert "dropoff serve" in caught.value.hint
    assert not (daemon.root / "state").exists()


def test_one_run_serves_many_threads(shared: DaemonProcess, tmp_path: Path) -> None:
    """Saves from several threads at once each become one job with the right content."""
    run = shared.run("threads", "run")
    saved: dict[str, bytes] = {}

    def save(thread: int) -> None:
        for n in range(10):
            path = tmp_path / f"{thread}-{n}"
            path.write_bytes(b"%d-%d" % (thread, n))
            saved[run.save_file(path).id] = path.read_bytes()

    threads = [threading.Thread(target=save, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.flush(30).pending == 0
    contents = oracle.contents(shared.store)
    assert {job: next(iter(contents[job].values())) for job in saved} == saved
    assert len(saved) == 60


# The very thing that is tested: training code forks with threads running.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_saves_by_itself(shared: DaemonProcess, source: Path) -> None:
    """After a fork parent and child save over connections of their own."""
    run = shared.run("forked", "run")
    run.save_file(source)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.save_file(source)
            code = 0
        finally:
            os._exit(code)
    run.save_file(source)
    assert os.waitpid(child, 0)[1] == 0
    assert run.flush(30).delivered == 3


def test_a_restarted_daemon_is_found_again(make_daemon: MakeDaemon, source: Path) -> None:
    """The first save after a restart goes to the new daemon, not to the inbox."""
    daemon = make_daemon().start()
    run = daemon.run()
    run.save_file(source)
    daemon.kill()
    daemon.start()
    delivery = run.save_file(source)
    assert delivery.report() is not None
    delivery.wait(30)
