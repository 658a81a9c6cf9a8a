"""References: what is known of things that lie elsewhere, when a version is made of them."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import dropoff
from dropoff import DamagedError, DropoffError, JobState, UsageError
from support import stranger
from support.daemon import DaemonProcess
from support.servers.address import Address
from support.servers.client import client
from support.servers.fixtures import StartServer
from support.servers.server import new_bucket
from support.stores import environment, url
from support.web import Page, Web, date


@pytest.fixture(scope="module")
def raw(start_server: StartServer) -> Address:
    """Return a bucket that keeps versions, and is none of ours."""
    address = new_bucket(start_server("rgw").address)
    client(address).put_bucket_versioning(Bucket=address.bucket, VersioningConfiguration={"Status": "Enabled"})
    return address


@pytest.fixture(scope="module")
def lab(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Return a daemon whose store is beside that bucket, and which may look at private addresses."""
    store = new_bucket(start_server("rgw").address)
    daemon = DaemonProcess(
        tmp_path_factory.mktemp("lab"), store=url(store, "team"), allow_private_references="true", transfers_max=8
    )
    daemon.environment |= environment(store)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture
def web() -> Iterator[Web]:
    """Return a web server."""
    with Web() as found:
        yield found


def artifact(daemon: DaemonProcess, request: pytest.FixtureRequest, *uris: str) -> dropoff.Artifact:
    """Return an artifact, named after the test, that refers to these."""
    made = dropoff.Artifact(request.node.name[:60], "dataset", settings=daemon.settings)
    for number, uri in enumerate(uris):
        made.add_reference(uri, str(number))
    return made


def logged(daemon: DaemonProcess, made: dropoff.Artifact) -> tuple[int | None, dict[str, Any]]:
    """Log an artifact; return the version's number and its manifest, as a stranger reads it."""
    receipt = daemon.run().log_artifact(made).wait(60)
    address = daemon.environment
    store = Address(
        endpoint=daemon.settings.store.partition("endpoint=")[2].partition("&")[0], region="default",
        bucket=daemon.settings.store.partition("://")[2].partition("/")[0],
        access_key=address["AWS_ACCESS_KEY_ID"], secret_key=address["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    shelves = stranger.Bucket(client(store), store.bucket, "team/")
    return receipt.version, stranger.version(shelves, "project", made.name)


def put(address: Address, key: str, data: bytes) -> Any:
    """Store an object with a client that is not ours; return what the server said of it."""
    return client(address).put_object(Bucket=address.bucket, Key=key, Body=data)


def test_what_is_known_is_recorded(
    lab: DaemonProcess, raw: Address, web: Web, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A manifest tells the size, the etag and the version of what it refers to, by web, bucket and file."""
    web.pages |= {
        "/a": Page(b"12345", {"ETag": '"abc"', "x-goog-generation": "17"}),
        "/weak": Page(b"1", {"ETag": 'W/"abc"', "Last-Modified": date(0)}),
        "/dated": Page(b"1", {"Last-Modified": date(86400)}),
        "/moved": Page(status=302, headers={"Location": "/a"}),
        "/a%20b?c=d": Page(b"", {"ETag": '"odd"'}),
    }
    stored = put(raw, "a b/c%20d.tar", b"123")
    file = tmp_path / "a b"
    file.write_bytes(b"1234567")
    uris = [f"{web.url}{path}" for path in web.pages]
    uris += [f"s3://{raw.bucket}/a b/c%20d.tar", f"file://{quote(str(file))}"]
    _, manifest = logged(lab, artifact(lab, request, *uris))
    found = file.stat()
    assert manifest["references"] == [
        {"path": "0", "uri": uris[0], "size": 5, "etag": "abc", "uri_version": "17"},
        {"path": "1", "uri": uris[1], "size": 1, "etag": 'W/"abc"'},
        {"path": "2", "uri": uris[2], "size": 1, "etag": "Fri, 02 Jan 1970 00:00:00 GMT"},
        {"path": "3", "uri": uris[3], "size": 5, "etag": "abc", "uri_version": "17"},
        {"path": "4", "uri": uris[4], "size": 0, "etag": "odd"},
        {
            "path": "5",
            "uri": uris[5],
            "size": 3,
            "etag": stored["ETag"].strip('"'),
            "uri_version": stored["VersionId"],
        },
        {"path": "6", "uri": uris[6], "size": 7, "etag": f"{found.st_mtime_ns:x}-7"},
    ]
    assert manifest["skipped"] == []
    assert {method for method, _ in web.asked} == {"HEAD"}


def test_what_has_changed_makes_a_new_version(
    lab: DaemonProcess, raw: Address, web: Web, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same references make a version once more as soon as one of them leads to something else, and only then."""
    file = tmp_path / "file"
    uris = [f"{web.url}/a", f"s3://{raw.bucket}/changing", file.as_uri()]

    def change(which: int) -> None:
        if which == 0:
            web.pages["/a"] = Page(b"", {"ETag": f'"{time.time_ns()}"'})
        elif which == 1:
            put(raw, "changing", os.urandom(9))
        else:
            file.write_bytes(os.urandom(9))

    for which in range(3):
        change(which)
    numbers = [logged(lab, artifact(lab, request, *uris))[0] for _ in range(2)]
    for which in range(3):
        change(which)
        numbers.append(logged(lab, artifact(lab, request, *uris))[0])
    assert numbers == [0, 0, 1, 2, 3]


def test_a_prefix_stands_for_what_lies_below_it(
    lab: DaemonProcess, raw: Address, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A bucket's prefix and a local directory become a reference for each object, and nothing of them is stored."""
    for key in ("many/a", "many/b/c", "many/b/", "many/b//d", "many/x/../y", "manyother"):
        put(raw, key, key.encode())
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "sub" / "100% a").write_bytes(b"12")
    (tmp_path / "dir" / "away").symlink_to("/etc/hostname")
    made = artifact(lab, request, f"s3://{raw.bucket}/many/", (tmp_path / "dir").as_uri())
    _, manifest = logged(lab, made)
    seen = {one["path"]: (one["uri"], one["size"]) for one in manifest["references"]}
    assert seen == {
        "0/a": (f"s3://{raw.bucket}/many/a", 6),
        "0/b/c": (f"s3://{raw.bucket}/many/b/c", 8),
        "1/sub/100% a": (f"{(tmp_path / 'dir').as_uri()}/sub/100%25%20a", 2),
    }
    assert all(one["etag"] for one in manifest["references"])
    assert (len(manifest["skipped"]), manifest["entries"]) == (3, [])
    assert any("outside" in line for line in manifest["skipped"])


def test_more_than_was_foreseen_is_refused(
    lab: DaemonProcess, raw: Address, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A directory with too much in it is refused at the call, a prefix holds the version, with the reason."""
    for number in range(3):
        put(raw, f"toomany/{number}", b"")
        (tmp_path / str(number)).touch()
    made = artifact(lab, request)
    with pytest.raises(UsageError, match="more than 2 files"):
        made.add_reference(tmp_path.as_uri(), "dir", max_objects=2)
    made.add_reference(f"s3://{raw.bucket}/toomany/", "prefix", max_objects=2)
    delivery = lab.run().log_artifact(made)
    lab.command("wait", delivery.id, "--timeout", "30", check=False)
    report = delivery.report()
    assert report is not None
    assert (report.state, "more than 2 objects" in report.reason) == (JobState.HELD, True)
    assert "max_objects" in report.hint
    delivery.cancel()


def test_what_cannot_be_looked_at_is_recorded_bare(
    lab: DaemonProcess, raw: Address, web: Web, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Silence, refusals and nonsense cost some seconds and a line each, and never the version."""
    web.pages |= {
        "/silent": Page(silent=True),
        "/denied": Page(status=403),
        "/loop": Page(status=302, headers={"Location": "/loop"}),
        "/ftp": Page(status=302, headers={"Location": "ftp://127.0.0.1/x"}),
        "/odd": Page(headers={"ETag": '"\xff"', "x-amz-version-id": "x" * 5000, "Content-Length": "9" * 30}),
    }
    bare = [f"{web.url}{path}" for path in ("/silent", "/denied", "/loop", "/ftp", "/none")]
    bare += ["http://127.0.0.1:1/x", "http://127.0.0.1:99999/", f"s3://{raw.bucket}/none", "s3://no-such-bucket-1/a"]
    bare += [f"s3://{raw.bucket}/none/", "az://container/blob", f"file://{tmp_path}/none", f"file://{tmp_path}/fifo"]
    os.mkfifo(tmp_path / "fifo")
    began = time.monotonic()
    _, manifest = logged(lab, artifact(lab, request, *bare, f"{web.url}/odd"))
    assert time.monotonic() - began < 15
    by_path = {one["path"]: one for one in manifest["references"]}
    assert [by_path[str(number)] for number in range(len(bare))] == [
        {"path": str(number), "uri": uri} for number, uri in enumerate(bare)
    ]
    assert "etag" not in by_path[str(len(bare))]
    lines = dict(line.split(": ", 1) for line in manifest["skipped"])
    assert set(lines) >= {str(number) for number in range(len(bare))}
    assert "took too long" in lines["0"]
    assert json.dumps(manifest)


def test_what_is_referred_to_comes_when_it_is_asked_for(
    lab: DaemonProcess, raw: Address, web: Web, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Beside stored files a download brings what references lead to; where a bucket keeps versions, that of then."""
    large = os.urandom((16 << 20) + 5)
    web.pages |= {
        "/large": Page(large, {"ETag": '"1"'}, ranges=True),
        "/whole": Page(b"no ranges here", {"Last-Modified": date(0)}),
        "/moved": Page(status=301, headers={"Location": "/large"}),
    }
    put(raw, "kept", b"then")
    file = tmp_path / "file"
    file.write_bytes(b"a file")
    made = artifact(
        lab, request, *(f"{web.url}{path}" for path in web.pages), f"s3://{raw.bucket}/kept", file.as_uri()
    )
    made.add_file(file, "stored")
    logged(lab, made)
    put(raw, "kept", b"now")
    version = dropoff.open_version(f"project/{made.name}", settings=lab.settings)
    contents = [large, b"no ranges here", large, b"then", b"a file"]
    wanted = {str(number): content for number, content in enumerate(contents)} | {"stored": b"a file"}
    assert read(version.download(tmp_path / "out", references=True)) == wanted
    assert read(version.download(tmp_path / "some", ["3", "stored"], references=True)) == {
        "3": b"then", "stored": b"a file",
    }  # fmt: skip
    assert read(version.download(tmp_path / "stored")) == {"stored": b"a file"}
    lab.command("get", f"project/{made.name}", str(tmp_path / "got"), "--references", "--path", "1")
    assert read(tmp_path / "got") == {"1": b"no ranges here"}


def test_what_has_changed_since_does_not_come(
    lab: DaemonProcess, web: Web, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What has another etag or size by now is refused, and so is what nobody gives; nothing has its name then."""
    file = tmp_path / "file"
    file.write_bytes(b"a file")
    web.pages["/a"] = Page(b"then", {"ETag": '"1"'}, ranges=True)
    web.pages["/b"] = Page(b"then")
    made = artifact(lab, request, f"{web.url}/a", f"{web.url}/b", file.as_uri())
    logged(lab, made)
    version = dropoff.open_version(f"project/{made.name}", settings=lab.settings)
    web.pages["/a"] = Page(b"now!", {"ETag": '"2"'}, ranges=True)
    web.pages["/b"] = Page(b"longer now")
    file.write_bytes(b"b file")
    for which, cause in (("0", "its etag is '2' now"), ("1", "it has 10 bytes now"), ("2", "its etag is")):
        with pytest.raises(DamagedError, match=cause):
            version.download(tmp_path / "out", which, references=True)
    del web.pages["/a"]
    with pytest.raises(DropoffError, match="answers 404"):
        version.download(tmp_path / "out", "0", references=True)
    assert read(tmp_path / "out") == {}


def read(root: str | Path) -> dict[str, bytes]:
    """Return the files below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
