"""Reading back: what a run saved and what artifacts hold, through a real daemon."""

import os
import stat
from pathlib import Path

import pytest

import dropoff
from dropoff import DamagedError, NotStoredError, UnavailableError, UsageError
from dropoff.questions import Role
from dropoff.reading import StoredVersion, open_run, open_version
from support.daemon import DaemonProcess, MakeDaemon

LARGE = (9 << 20) + 17


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with many small files, a large one, an empty one, a program and a name that is no text."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for n in range(40):
        (root / f"{n:02}.png").write_bytes(b"image %d" % n)
    (root / "twice.png").write_bytes(b"image 7")
    (root / "empty").touch()
    (root / "deep" / "large.bin").write_bytes(os.urandom(LARGE))
    (root / "deep" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "deep" / "run.sh").chmod(0o755)
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_bytes(b"latin")
    return root


@pytest.fixture
def version(shared: DaemonProcess, directory: Path, request: pytest.FixtureRequest) -> StoredVersion:
    """Return a stored version of that directory, as another run uses it."""
    name = request.node.name.split("[")[0][:100]
    artifact = dropoff.Artifact(name, "dataset", "what it is", {"epoch": 3}, settings=shared.settings)
    artifact.add_dir(directory)
    artifact.add_reference("http://127.0.0.1/raw.tar", "raw.tar")
    shared.run(name="maker").log_artifact(artifact, aliases=["best"], tags=["t"]).wait(60)
    return shared.run(name="user").use_artifact(name)


def files(root: Path | str) -> dict[bytes, bytes]:
    """Return the files below a directory, by name."""
    top = os.fsencode(root)
    found = [os.path.join(here, name) for here, _, names in os.walk(top) for name in names]
    return {os.path.relpath(path, top): Path(os.fsdecode(path)).read_bytes() for path in found}


def test_a_version_tells_what_it_is(shared: DaemonProcess, version: StoredVersion) -> None:
    """A version is found by number, by alias and as the latest, and tells all that its maker said."""
    said = (version.type, version.description, version.metadata, version.tags, version.run, version.version)
    assert said == ("dataset", "what it is", {"epoch": 3}, ("t",), "maker", 0)
    for which in ("", ":v0", ":latest", ":best"):
        found = open_version(f"project/{version.name}{which}", settings=shared.settings)
        assert (found.version, found.digest) == (0, version.digest)
    with pytest.raises(NotStoredError, match="not there"):
        open_version(f"project/{version.name}:v1", settings=shared.settings)
    with pytest.raises(NotStoredError, match="not there"):
        open_version(f"project/{version.name}:worst", settings=shared.settings)
    with pytest.raises(UsageError, match="as a version"):
        open_version("a/b/c:d", settings=shared.settings)


def test_entries_are_listed_in_the_order_of_names(version: StoredVersion, directory: Path) -> None:
    """The entries of a version are its files and references by name, each with its size and digest."""
    entries = version.entries
    assert [entry.path for entry in entries] == sorted([*files(directory), b"raw.tar"])
    by_path = {entry.path: entry for entry in entries}
    assert by_path[b"raw.tar"].uri == "http://127.0.0.1/raw.tar"
    assert by_path[b"deep/large.bin"].size_bytes == LARGE


def test_a_download_brings_back_what_was_logged(version: StoredVersion, directory: Path, tmp_path: Path) -> None:
    """A download has every file under its name, with its bytes and permissions, and leaves nothing else."""
    umask = os.umask(0o022)
    try:
        root = version.download(tmp_path / "to" / "here")
    finally:
        os.umask(umask)
    assert files(root) == files(directory)
    assert stat.S_IMODE(os.stat(f"{root}/deep/run.sh").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(f"{root}/deep").st_mode) == 0o755
    Path(root, "00.png").write_bytes(b"mine")
    assert files(version.download(tmp_path / "again")) == files(directory)


def test_a_download_may_be_of_some_files(version: StoredVersion, directory: Path, tmp_path: Path) -> None:
    """Only files that are named come, and those below directories that are."""
    root = version.download(tmp_path / "some", ["deep/", "07.png"])
    wanted = {name: data for name, data in files(directory).items() if name.startswith(b"deep/") or name == b"07.png"}
    assert files(root) == wanted
    with pytest.raises(NotStoredError, match="no such file"):
        version.download(tmp_path / "none", "missing.png")
    with pytest.raises(UsageError, match="reference"):
        version.download(tmp_path / "none", "raw.tar")
    assert files(tmp_path / "none") == {}


def test_a_second_download_mends_the_first(version: StoredVersion, directory: Path, tmp_path: Path) -> None:
    """What was changed or removed is there again after a second download, and what was not keeps its place."""
    root = Path(version.download(tmp_path / "mended"))
    kept = (root / "01.png").stat().st_ino
    (root / "00.png").write_bytes(b"changed")
    (root / "deep" / "large.bin").unlink()
    version.download(root)
    assert files(root) == files(directory)
    assert (root / "01.png").stat().st_ino == kept


def test_the_cache_has_a_version_once(version: StoredVersion, directory: Path, tmp_path: Path) -> None:
    """A local copy is one directory, made once, of read-only files, which downloads with links share."""
    place = version.get_local_copy()
    assert files(place) == files(directory)
    large = os.stat(f"{place}/deep/large.bin")
    assert not large.st_mode & 0o222
    assert version.get_local_copy() == place
    assert os.stat(f"{place}/deep/large.bin").st_ino == large.st_ino
    linked = version.download(tmp_path / "linked", links=True)
    assert files(linked) == files(directory)
    assert os.stat(f"{linked}/deep/large.bin").st_ino == large.st_ino
    own = version.download(tmp_path / "linked")
    assert os.stat(f"{own}/deep/large.bin").st_ino != large.st_ino
    assert files(own) == files(directory)


def test_a_file_of_the_cache_has_its_name(version: StoredVersion, directory: Path) -> None:
    """The path of one file leads to its content, under its own name."""
    path = Path(version.path("deep/large.bin"))
    assert (path.name, path.read_bytes()) == ("large.bin", (directory / "deep" / "large.bin").read_bytes())


def test_the_cache_may_be_written_to_and_deleted_at_any_time(
    shared: DaemonProcess, version: StoredVersion, directory: Path
) -> None:
    """What somebody writes into a file of the cache is given to nobody else; what he deletes is fetched again."""
    place = Path(version.get_local_copy())
    victim = place / "00.png"
    victim.chmod(0o644)
    victim.write_bytes(b"changed")
    assert files(version.get_local_copy()) == files(directory)
    for path in (shared.root / "cache" / "fetched" / "content").iterdir():
        path.unlink()
    (place / "01.png").unlink()
    assert files(version.get_local_copy()) == files(directory)


def test_a_file_is_read_as_a_stream(version: StoredVersion, directory: Path) -> None:
    """A stream gives a file's bytes in order, as text or not, and may be closed before its end."""
    with version.open("deep/large.bin", "rb") as file:
        assert file.read() == (directory / "deep" / "large.bin").read_bytes()
        assert file.read() == b""
    with version.open("deep/run.sh") as file:
        assert list(file) == ["#!/bin/sh\n"]
    with version.open("deep/large.bin", "rb") as file:
        assert file.read(3) == (directory / "deep" / "large.bin").read_bytes()[:3]
    with version.open("empty", "rb") as file:
        assert file.read() == b""
    with version.open("missing", "rb") as file, pytest.raises(NotStoredError):
        file.read()


def test_a_stream_whose_daemon_dies_says_so(make_daemon: MakeDaemon, directory: Path) -> None:
    """A stream that the daemon's death cuts off raises UnavailableError, and is never taken for the whole file."""
    daemon = make_daemon().start()
    daemon.run().log_artifact(directory, "cats", "dataset").wait(60)
    version = open_version("project/cats", settings=daemon.settings)
    with version.open("deep/large.bin", "rb") as file:
        file.read(1)
        daemon.kill()
        with pytest.raises(UnavailableError):
            file.read()
    with pytest.raises(UnavailableError):
        version.open("deep/large.bin")


def test_a_version_of_references_alone_has_an_empty_copy(shared: DaemonProcess, tmp_path: Path) -> None:
    """Where nothing is stored there is nothing to fetch, and a directory all the same."""
    artifact = dropoff.Artifact("references", "dataset", settings=shared.settings)
    artifact.add_reference("http://127.0.0.1/raw.tar")
    shared.run().log_artifact(artifact).wait(60)
    version = open_version("project/references", settings=shared.settings)
    assert files(version.get_local_copy()) == files(version.download(tmp_path / "out")) == {}


def test_lineage_is_told_from_both_ends(shared: DaemonProcess, version: StoredVersion) -> None:
    """A version tells who made and who used it, and a run what it made and used; twice is once."""
    shared.run(name="user").use_artifact(version.name)
    shared.run("other", "user").use_artifact(f"project/{version.name}:v0")
    seen = {(link.role, link.run_project, link.run) for link in version.links}
    assert seen == {
        (Role.OUTPUT, "project", "maker"), (Role.INPUT, "project", "user"), (Role.INPUT, "other", "user"),
    }  # fmt: skip
    assert len(version.links) == 3
    made = open_run("project", "maker", settings=shared.settings).links
    assert (Role.OUTPUT, version.name, 0) in {(link.role, link.artifact, link.version) for link in made}
    used = shared.run(name="user")
    assert shared.run(name="maker").artifacts[version.name].digest == version.digest
    assert version.name not in used.artifacts


def test_a_run_tells_what_it_saved(shared: DaemonProcess, directory: Path, tmp_path: Path) -> None:
    """A run's files come in the order of the calls, chosen by prefix, name, category and tags, and are read back."""
    run = shared.run(name="saver", tags=["baseline"], metadata={"lr": 0.1})
    model = tmp_path / "best.pt"
    model.write_bytes(b"model")
    run.save_file(model, prefix="models", tags=["best"], metadata={"epoch": 1})
    run.save_file(model, "input", name="models.txt")
    run.save_directory(directory, "input")
    run.save_file(os.fsencode(directory) + b"/caf\xe9", "code")
    assert not run.flush(60).pending
    found = open_run("project", "saver", settings=shared.settings)
    assert (found.tags, found.metadata, found.finished) == (("baseline",), {"lr": 0.1}, None)
    assert [file.name for file in found.files()] == ["best.pt", "models.txt", "images", "caf\ufffd"]
    assert [file.name for file in found.files("models")] == ["best.pt"]
    assert [file.name for file in found.files(category="input")] == ["models.txt", "images"]
    assert [file.name for file in found.files(tags=["best"])] == ["best.pt"]
    (best,) = found.files(name="best.pt")
    assert (best.metadata, Path(best.get_local_copy()).read_bytes()) == ({"epoch": 1}, b"model")
    (latin,) = found.files(category="code")
    assert Path(latin.get_local_copy()).read_bytes() == b"latin"
    (images,) = found.files(name="images")
    assert files(Path(images.get_local_copy(), "images")) == files(directory)
    assert files(Path(images.download(tmp_path / "out"), "images")) == files(directory)
    with pytest.raises(NotStoredError, match="run project/nobody"):
        open_run("project", "nobody", settings=shared.settings)


def test_verify_names_what_is_damaged(shared: DaemonProcess, version: StoredVersion, directory: Path) -> None:
    """Objects that are gone or of another size are found by looking, changed bytes by reading; files are named."""
    whole = version.verify(read_data=True)
    assert (whole.damaged, whole.files) == (0, len(files(directory)))
    assert whole.read_bytes >= LARGE
    (sha256,) = [one.sha256 for one in version.entries if one.path == b"deep/large.bin"]
    large = shared.store / "project/files/deep" / sha256[:32] / "large.bin"
    data = bytearray(large.read_bytes())
    data[5 << 20] ^= 1
    times = large.stat()
    large.write_bytes(data)
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert version.verify().damaged == 0
    assert [one.path for one in version.verify(read_data=True).damage] == [b"deep/large.bin"]
    large.unlink()
    assert [one.cause for one in version.verify().damage] == ["it is not in the store"]


def test_what_is_damaged_is_not_handed_out(shared: DaemonProcess, version: StoredVersion, tmp_path: Path) -> None:
    """A content with a flipped bit raises DamagedError by every way of reading and appears nowhere."""
    for large in shared.store.glob("project/files/deep/*/large.bin"):
        data = bytearray(large.read_bytes())
        data[-1] ^= 1
        large.write_bytes(data)
    for read in (
        lambda: version.download(tmp_path / "out"), version.get_local_copy,
        lambda: version.open("deep/large.bin", "rb").read(),
    ):  # fmt: skip
        with pytest.raises(DamagedError, match="sha256"):
            read()
    assert b"deep/large.bin" not in files(tmp_path / "out")


def test_without_a_daemon_the_hint_names_a_way(make_daemon: MakeDaemon) -> None:
    """Reading without a daemon raises UnavailableError with what to do."""
    with pytest.raises(UnavailableError, match="dropoff get"):
        open_run("project", "run", settings=make_daemon().settings)


@pytest.mark.parametrize("running", [True, False])
def test_the_command_line_downloads_with_and_without_a_daemon(
    make_daemon: MakeDaemon, directory: Path, tmp_path: Path, *, running: bool
) -> None:
    """`dropoff get` brings a version's files, whether or not a daemon runs, and says what it did."""
    daemon = make_daemon().start()
    daemon.run().log_artifact(directory, "cats", "dataset").wait(60)
    if not running:
        daemon.stop()
    done = daemon.command("get", "project/cats:latest", str(tmp_path / "out"), "--path", "deep/")
    assert "project/cats:v0: 2 files" in done.stdout
    assert set(files(tmp_path / "out")) == {b"deep/large.bin", b"deep/run.sh"}
    refused = daemon.command("get", "project/cats:v9", str(tmp_path / "none"), check=False)
    assert (refused.returncode, "hint" in refused.stderr) == (1, True)
    assert not (tmp_path / "none").exists()
