"""Versions that many writers make together: whoever contributes in time is in, and nobody is dropped silently."""

from pathlib import Path

import pytest

import dropoff
from dropoff import Artifact, Delivery, JobState
from support.daemon import DaemonProcess, MakeDaemon, until


@pytest.fixture
def hosts(make_daemon: MakeDaemon, tmp_path: Path) -> list[DaemonProcess]:
    """Return two hosts with one store."""
    store = f"file://{tmp_path / 'store'}"
    return [make_daemon(tmp_path / name, store=store, retry_first_seconds=0.1).start() for name in ("one", "two")]


def artifact(host: DaemonProcess, **files: str) -> Artifact:
    """Return an artifact that has files."""
    made = Artifact("shards", "dataset", metadata={"by": "all"}, settings=host.settings)
    for name, text in files.items():
        with made.new_file(name) as file:
            file.write(text)
    return made


def upsert(host: DaemonProcess, writer: str | None = None, *, group: str = "g", **files: str) -> Delivery:
    """Contribute files."""
    return host.run().upsert_artifact(artifact(host, **files), group, writer=writer)


def finish(host: DaemonProcess, *, group: str = "g", writers: int = 0, **files: str) -> Delivery:
    """Finish a group."""
    return host.run().finish_artifact(artifact(host, **files), group, ["merged"], writers=writers)


def held(delivery: Delivery) -> str:
    """Return why a delivery is held, once it is."""
    until(lambda: delivery.state is JobState.HELD)
    report = delivery.report()
    assert report is not None
    return report.reason


def test_writers_on_two_hosts_make_one_version(hosts: list[DaemonProcess]) -> None:
    """A version has what all contributed, whoever finishes first, and both who finish get the same one."""
    one, two = hosts
    early = finish(one, writers=3, last="c")
    upsert(one, a="a").wait(60)
    assert early.state is not JobState.DELIVERED
    late = upsert(two, b="b")
    again = finish(two, writers=3)
    assert [one.wait(60).version for one in (late, early, again)] == [None, 0, 0]
    version = dropoff.open_version("project/shards:merged", settings=two.settings)
    assert {one.path: Path(version.path(one.path)).read_text() for one in version.entries} == {
        b"a": "a", b"b": "b", b"last": "c",
    }  # fmt: skip
    assert (version.metadata, len(dropoff.find_versions(settings=one.settings))) == ({"by": "all"}, 1)
    assert not list((one.root.parent / "store").glob("project/artifacts/shards/parts/g/*/*"))


def test_who_comes_too_late_is_told(hosts: list[DaemonProcess]) -> None:
    """A contribution after the group was finished is held with the reason, and changes nothing."""
    one, two = hosts
    upsert(one, a="a").wait(60)
    assert finish(one).wait(60).version == 0
    late = upsert(two, b="b")
    assert "finished without this" in held(late)
    assert finish(two).wait(60).version == 0
    assert [one.path for one in dropoff.open_version("project/shards", settings=one.settings).entries] == [b"a"]


def test_a_writer_that_tries_again_is_no_conflict(hosts: list[DaemonProcess]) -> None:
    """The same content twice is one file; a named writer's later contribution takes the earlier one's place."""
    one, two = hosts
    for host in hosts:
        upsert(host, same="same").wait(60)
    upsert(one, "rank-1", mine="first", gone="x").wait(60)
    upsert(two, "rank-1", mine="second").wait(60)
    finish(one).wait(60)
    version = dropoff.open_version("project/shards", settings=one.settings)
    assert [one.path for one in version.entries] == [b"mine", b"same"]
    assert Path(version.path("mine")).read_text() == "second"


def test_a_conflict_names_both_writers(hosts: list[DaemonProcess]) -> None:
    """Different content under one name holds the version, which names the writers, and another group is unharmed."""
    one, two = hosts
    upsert(one, "rank-1", a="a").wait(60)
    upsert(two, "rank-2", a="b").wait(60)
    reason = held(finish(one))
    assert "rank-1 and rank-2 both wrote 'a'" in reason
    upsert(two, "rank-3", group="other", a="b").wait(60)
    assert finish(two, group="other").wait(60).version == 0
