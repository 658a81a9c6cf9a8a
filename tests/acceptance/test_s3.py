"""The main job to real S3 servers, and what came of it read by a stranger's client."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dropoff import JobState
from support import oracle
from support.daemon import MakeDaemon
from support.fault_server.calls import Operation
from support.fault_server.server import FaultServer
from support.servers.address import Address
from support.servers.client import client

MIB = 1 << 20


def url(address: Address) -> str:
    """Return a server's bucket as a store."""
    return f"s3://{address.bucket}/artifacts?endpoint={address.endpoint}&region={address.region}"


def credentials(monkeypatch: pytest.MonkeyPatch, address: Address) -> None:
    """Let processes find the credentials of a server where every AWS tool looks."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.secret_key)


def downloaded(address: Address, directory: Path) -> Path:
    """Copy all of a bucket into a directory with a client that is not ours."""
    stranger: Any = client(address)
    pages = stranger.get_paginator("list_objects_v2").paginate(Bucket=address.bucket)
    for found in [item for page in pages for item in page.get("Contents", [])]:
        path = directory / found["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stranger.get_object(Bucket=address.bucket, Key=found["Key"])["Body"].read())
    return directory / "artifacts"


def test_what_was_saved_is_in_the_bucket(
    make_daemon: MakeDaemon, s3_bucket: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files, a file in parts, a packed directory and odd names arrive as they were, nothing else, none open."""
    credentials(monkeypatch, s3_bucket)
    daemon = make_daemon(tmp_path / "host", store=url(s3_bucket))
    (tmp_path / "host").mkdir()
    daemon.start()
    run, wanted = daemon.run(), dict[str, dict[bytes, bytes]]()
    for name, size in (
        ("empty", 0),
        ("small.txt", 10),
        ("in parts.bin", 20 * MIB + 7),
        ("caf\u00e9 (1)+&=.bin", 300_000),
    ):
        source = tmp_path / "source"
        source.write_bytes(os.urandom(size))
        wanted[run.save_file(source, name=name).id] = {name.encode(): source.read_bytes()}
        source.write_bytes(b"something else")
    root = tmp_path / "results"
    root.mkdir()
    for number in range(40):
        (root / f"{number}.json").write_text(json.dumps({"number": number}))
    wanted[run.save_directory(root).id] = {f"results/{p.name}".encode(): p.read_bytes() for p in root.iterdir()}
    settled = run.flush(60)
    assert (settled.pending, settled.troubled) == (0, ())
    assert oracle.contents(downloaded(s3_bucket, tmp_path / "seen")) == wanted
    assert client(s3_bucket).list_multipart_uploads(Bucket=s3_bucket.bucket).get("Uploads", []) == []


def test_the_same_content_is_sent_once(
    make_daemon: MakeDaemon, fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second save of the same bytes under the same name sends its record and not its content."""
    credentials(monkeypatch, fault_server.address)
    daemon = make_daemon(store=url(fault_server.address)).start()
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(17 * MIB))
    daemon.run().save_file(source).wait(30)
    # Made of parts, it is as old as the first request for it, so it was claimed before it was named.
    puts = [seen.call.key or "" for seen in fault_server.journal.requests(Operation.PUT)]
    rooms = [key.split("/")[2] for key in puts if key.startswith("artifacts/project/")]
    assert rooms == ["runs", "claims", "runs"]
    before = len(fault_server.objects)
    sent = sum(seen.received_bytes for seen in fault_server.journal.requests(None))
    daemon.run().save_file(source).wait(30)
    again = sum(seen.received_bytes for seen in fault_server.journal.requests(None)) - sent
    assert len(fault_server.objects) == before + 1
    assert again < 10_000


def test_the_newest_takes_the_place_of_what_waits(
    make_daemon: MakeDaemon, fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of saves with keep="newest" that pile up before they can be delivered the last alone is."""
    credentials(monkeypatch, fault_server.address)
    daemon = make_daemon(store=url(fault_server.address)).start()
    daemon.command("pause")
    run, source = daemon.run(), tmp_path / "checkpoint.pt"
    saves = []
    for number in range(5):
        source.write_bytes(f"epoch {number}".encode() * 1000)
        saves.append(run.save_file(source, keep="newest"))
    daemon.command("resume")
    saves[-1].wait(30)
    assert [save.state for save in saves] == [JobState.SUPERSEDED] * 4 + [JobState.DELIVERED]
    (newest,) = (key for key in fault_server.objects if key == f"artifacts/{saves[-1].result().key}")
    assert fault_server.content(newest) == b"epoch 4" * 1000


def test_bandwidth_is_held_to_what_a_command_says(
    make_daemon: MakeDaemon, fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dropoff limit` holds from the next byte on, no faster than it says, and `off` lifts it in mid-upload."""
    credentials(monkeypatch, fault_server.address)
    daemon = make_daemon(store=url(fault_server.address)).start()
    run, source = daemon.run(), tmp_path / "model.bin"
    source.write_bytes(os.urandom(24 * MIB))
    told = json.loads(daemon.command("limit", "8MiB/s", "--json").stdout)
    assert told["rates"] == [{"store": "", "bandwidth": "8MiB/s", "bytes_per_second": 8.0 * MIB}]
    began = time.monotonic()
    run.save_file(source).wait(60)
    # 24 MiB less one burst.
    assert time.monotonic() - began > 0.95 * (24 - 1) / 8
    daemon.command("limit", "10KB/s")
    source.write_bytes(os.urandom(24 * MIB))
    journal = fault_server.journal
    journal.clear()
    delivery = run.save_file(source)
    journal.wait(lambda: any(part.received_bytes for part in journal.requests(Operation.PART)))
    daemon.command("limit", "off")
    assert delivery.wait(60).size_bytes == 24 * MIB


def test_a_limit_that_is_none_is_refused(make_daemon: MakeDaemon) -> None:
    """A timetable that cannot be read changes nothing and says how to write one."""
    daemon = make_daemon().start()
    done = daemon.command("limit", "10MB", check=False)
    assert (done.returncode, "10MB/s" in done.stderr) == (1, True)
    assert "unlimited" in daemon.command("limit").stdout
