"""The inbox: deposits are whole, durable, carry everything with them, and damage is never misread."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dropoff
from dropoff import ProtocolError, SpoolFullError
from dropoff.content import Capture
from dropoff.errors import DropoffError
from dropoff.ids import new_job_id
from dropoff.inbox import abandoned, deposits, discard, read_deposit
from dropoff.saves import PRIORITY_MOST
from dropoff.settings import Settings, load
from support import oracle
from support.daemon import DaemonProcess, MakeDaemon


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a state directory of one's own."""
    return load(
        {"HOME": str(tmp_path), "DROPOFF_STATE_DIR": str(tmp_path / "state"), "DROPOFF_SPOOL_FLOOR_BYTES": "0"}
    )


def offline(settings: Settings, **arguments: Any) -> dropoff.Run:
    """Open a run that asks no daemon."""
    return dropoff.init("project", "run", settings=settings, offline=True, **arguments)


def place(settings: Settings, job: str) -> str:
    """Return where a deposit lies."""
    return os.path.join(settings.inbox_dir, job)


def test_a_deposit_holds_the_job_and_its_content(settings: Settings, source: Path) -> None:
    """A file saved without a daemon is in the inbox, with everything that was said about it."""
    run = offline(settings, tags=["t"], metadata={"lr": 0.1})
    delivery = run.save_file(
        source, "code", "text/plain", description="d", tags=["x"], metadata={"a": [1]}, priority=3
    )
    source.write_bytes(b"changed since")
    assert deposits(settings.inbox_dir) == [delivery.id]
    found = read_deposit(place(settings, delivery.id))
    save = found.save
    assert (save.job, save.name, save.category, save.content_type) == (
        delivery.id,
        b"model.bin",
        "code",
        "text/plain",
    )
    assert (save.description, save.tags, save.metadata, save.priority) == ("d", ("x",), {"a": [1]}, 3)
    assert (save.run, save.source) == (run.info, os.fsencode(source))
    (content,) = found.contents
    kept = Path(place(settings, delivery.id)) / os.path.basename(os.fsdecode(content.place))
    assert (kept.read_bytes(), content.size_bytes) == (b"content", 7)


def test_a_directory_is_one_deposit(settings: Settings, tmp_path: Path) -> None:
    """A directory's small files are in one pack, large ones beside it, and what was passed over is told."""
    root = tmp_path / "results"
    root.mkdir()
    for n in range(20):
        (root / f"{n:02}").write_bytes(b"%d" % n)
    (root / "large").write_bytes(bytes(2 << 20))
    os.mkfifo(root / "pipe")
    delivery = offline(settings).save_directory(root)
    assert delivery.skipped == ("pipe: a fifo",)
    found = read_deposit(place(settings, delivery.id))
    assert found.skipped == delivery.skipped
    captures = [content.capture for content in found.contents]
    assert (captures[0], captures.count(Capture.PACKED), len(captures)) == (Capture.PACK, 20, 22)
    assert sorted(os.listdir(place(settings, delivery.id))) == [f"{delivery.id}-0", f"{delivery.id}-21", "record"]


def test_deposits_are_private(settings: Settings, source: Path) -> None:
    """Nobody else can enter the inbox or read what is in it."""
    delivery = offline(settings).save_file(source)
    for path in (settings.state_dir, settings.inbox_dir, place(settings, delivery.id)):
        assert os.stat(path).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(place(settings, delivery.id), "record")).st_mode & 0o777 == 0o600


def test_any_damage_to_a_record_is_noticed(settings: Settings, source: Path) -> None:
    """With any one byte changed, cut off anywhere, or grown, a record raises ProtocolError."""
    delivery = offline(settings).save_file(source)
    record = Path(place(settings, delivery.id)) / "record"
    whole = record.read_bytes()
    for at in range(len(whole)):
        record.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with pytest.raises(ProtocolError, match="unable to read the deposit"):
            read_deposit(str(record.parent))
    for length in range(len(whole)):
        record.write_bytes(whole[:length])
        with pytest.raises(ProtocolError, match="unable to read the deposit"):
            read_deposit(str(record.parent))
    record.write_bytes(whole + b"\0")
    with pytest.raises(ProtocolError, match="unable to read the deposit"):
        read_deposit(str(record.parent))
    record.write_bytes(whole)
    assert read_deposit(str(record.parent)).save.job == delivery.id


def test_a_record_that_is_no_file_is_refused(settings: Settings, source: Path, tmp_path: Path) -> None:
    """A link, a fifo or a directory in the place of a record is not opened or waited for."""
    delivery = offline(settings).save_file(source)
    record = Path(place(settings, delivery.id)) / "record"
    record.rename(tmp_path / "record")
    record.symlink_to(tmp_path / "record")
    with pytest.raises(OSError, match="symbolic"):
        read_deposit(str(record.parent))
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(ProtocolError, match="not a file"):
        read_deposit(str(record.parent))


def test_what_is_unfinished_is_no_deposit(settings: Settings, source: Path) -> None:
    """A deposit whose maker died is not listed, and is told apart from one that is still being made."""
    delivery = offline(settings).save_file(source)
    dead = Path(settings.inbox_dir) / f"unfinished-{new_job_id()}"
    dead.mkdir()
    assert deposits(settings.inbox_dir) == [delivery.id]
    assert abandoned(settings.inbox_dir) == []
    os.utime(dead, (1, 1))
    assert abandoned(settings.inbox_dir) == [str(dead)]
    discard(str(dead))
    assert abandoned(settings.inbox_dir) == []
    assert deposits(settings.state_dir + "-nowhere") == []


def test_a_full_disk_is_told_and_leaves_nothing(settings: Settings, source: Path) -> None:
    """A save that would leave less than the floor free raises SpoolFullError, and no remains."""
    full = msgspec.structs.replace(settings, spool_floor_bytes=1 << 60)
    with pytest.raises(SpoolFullError, match="unable to keep 7 more bytes") as caught:
        offline(full).save_file(source)
    assert "spool_floor_bytes" in caught.value.hint
    assert os.listdir(settings.inbox_dir) == []


def test_a_state_directory_that_cannot_be_is_told(settings: Settings, source: Path) -> None:
    """Where no inbox can be made a save raises an error of ours with a hint, not a bare OSError."""
    impossible = msgspec.structs.replace(settings, state_dir=str(source / "state"))
    with pytest.raises(DropoffError, match="unable to") as caught:
        offline(impossible).save_file(source)
    assert "DROPOFF_STATE_DIR" in caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 1.5},
        {"description": None},
        {"content_type": 7},
        {"metadata": {"a": 2**70}},
        {"description": "\ud800"},
    ],
    ids=str,
)
def test_what_a_daemon_could_not_read_is_refused_at_the_call(
    settings: Settings, source: Path, wrong: dict[str, Any]
) -> None:
    """A wrong argument raises UsageError although no daemon looks, and never becomes a deposit nobody can read."""
    with pytest.raises(dropoff.UsageError, match="unable to"):
        offline(settings).save_file(source, **wrong)
    assert deposits(settings.inbox_dir) == []


def test_a_deposit_is_delivered_when_a_daemon_comes(make_daemon: MakeDaemon, source: Path, tmp_path: Path) -> None:
    """What was saved without a daemon is in the store after one started, and the inbox empty."""
    daemon = make_daemon()
    (tmp_path / "results").mkdir()
    for n in range(20):
        (tmp_path / "results" / str(n)).write_bytes(b"%d" % n)
    deliveries = daemon.run().save_all([source, tmp_path / "results"])
    assert [delivery.state for delivery in deliveries] == ["queued", "queued"]
    daemon.start()
    dropoff.wait(*deliveries, timeout=30)
    contents = oracle.contents(daemon.store)
    assert contents[deliveries[0].id] == {b"model.bin": b"content"}
    assert contents[deliveries[1].id] == {b"results/%d" % n: b"%d" % n for n in range(20)}
    assert os.listdir(daemon.settings.inbox_dir) == []


def test_a_spool_may_be_carried_to_another_machine(make_daemon: MakeDaemon, source: Path, tmp_path: Path) -> None:
    """A state directory that was moved is delivered by the daemon of its new place."""
    first = make_daemon(tmp_path / "here")
    delivery = first.run(store=str(tmp_path / "there" / "store")).save_file(source)
    (tmp_path / "there").mkdir()
    os.rename(tmp_path / "here" / "state", tmp_path / "there" / "state")
    second = make_daemon(tmp_path / "there").start()
    assert second.run("project", "run").flush(30).pending == 0
    assert oracle.contents(second.store)[delivery.id] == {b"model.bin": b"content"}


def test_damaged_deposits_are_set_aside(make_daemon: MakeDaemon, source: Path) -> None:
    """A daemon keeps what it cannot read, with the reason, and delivers the rest."""
    daemon = make_daemon()
    run = daemon.run()
    bad, good = run.save_file(source), run.save_file(source)
    record = Path(place(daemon.settings, bad.id)) / "record"
    record.write_bytes(record.read_bytes()[:-1])
    daemon.start()
    good.wait(30)
    quarantine = daemon.root / "state" / "quarantine"
    assert (quarantine / bad.id / f"{bad.id}-1").read_bytes() == b"content"
    assert "its record is damaged" in (quarantine / f"{bad.id}.reason").read_text()


def reworded(daemon: DaemonProcess, job: str, change: dict[str, Any]) -> None:
    """Rewrite a deposit's record, with a right checksum, as only another program would."""
    record = Path(place(daemon.settings, job)) / "record"
    whole = record.read_bytes()
    magic = whole[: whole.index(b"\n") + 1]
    plain = msgspec.msgpack.decode(whole[len(magic) + 4 :])
    body = msgspec.msgpack.encode(plain | change | {"save": plain["save"] | change.get("save", {})})
    record.write_bytes(magic + struct.pack("!I", zlib.crc32(body)) + body)


@pytest.mark.parametrize(
    "nonsense",
    ["doubled ordinals", "huge priority", "huge size", "a name that climbs", "no content"],
)
def test_nonsense_in_a_deposit_does_not_end_the_daemon(make_daemon: MakeDaemon, source: Path, nonsense: str) -> None:
    """A deposit with a right checksum and impossible values harms nobody: the daemon lives, others are delivered."""
    daemon = make_daemon()
    run = daemon.run()
    bad, good = run.save_file(source), run.save_file(source)
    content = msgspec.to_builtins(read_deposit(place(daemon.settings, bad.id)).contents[0], builtin_types=(bytes,))
    changes: dict[str, dict[str, Any]] = {
        "doubled ordinals": {"contents": [content, content]},
        "huge priority": {"save": {"priority": PRIORITY_MOST**6}},
        "huge size": {"contents": [content | {"size_bytes": 2**63 - 1}]},
        "a name that climbs": {"save": {"name": b"../../../outside"}},
        "no content": {"contents": []},
    }
    reworded(daemon, bad.id, changes[nonsense])
    daemon.start()
    good.wait(30)
    assert daemon.command("status", check=False).returncode in {0, 10}
    assert oracle.contents(daemon.store)[good.id] == {b"model.bin": b"content"}
    assert [path for path in daemon.root.rglob("*") if path.name == "outside" and "files" not in path.parts] == []
