"""How versions are made: a real spool, worker and directory, and a store that fails, or is somebody else's, too."""

import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from daemon import making
from daemon.making import Deliveries, FakeClock, FaultyStore, Spools, inline, part, run_info, version
from dropoff.content import PAYLOADS, Capture, Content, payload_place
from dropoff.messages import JobReport, JobState
from dropoff.packing import PackWriter
from dropoff.saves import Group, Kind, Save
from dropoffd.catalogue import keys
from dropoffd.catalogue.aliases import advance, alias_of, alias_record
from dropoffd.spool.spool import Spool
from dropoffd.stores.base import UnavailableError
from dropoffd.stores.directory.store import DirectoryStore
from support import oracle

pytestmark = pytest.mark.anyio

T = TypeVar("T")

_drafts = itertools.count()


class StruckStore(FaultyStore):
    """A store whose n-th operation fails, before or after it was done."""

    strike_at = -1
    after = False

    async def _do(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls.append(operation)
        struck = len(self.calls) - 1 == self.strike_at
        if struck and not self.after:
            raise UnavailableError("unable: struck")
        result = await work()
        if struck:
            raise UnavailableError("unable: struck")
        return result


class Host(Deliveries):
    """The parts of one host's daemon that deliver, to a store that others may use, too."""

    def __init__(self, spool: Spool, root: Path, store: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.objects = DirectoryStore(str(store))
        self.store = StruckStore(self.objects)
        super().__init__(spool, root, self.store, self.clock, places=4)

    async def add(self, save: Save, *contents: Content) -> int:
        """Take a job into custody."""
        seq = await self.spool.accept(save, contents, ())
        assert seq is not None
        self.spool.quota.reserve(sum(content.size_bytes for content in contents))
        return seq

    async def log(self, *files: tuple[str, bytes], name: str = "cats", **said: Any) -> int:
        """Log an artifact with these files."""
        draft = f"draft {next(_drafts)}"
        for n, (path, data) in enumerate(files):
            await self.add(part(draft, n, artifact=name, name=path.encode()), inline(data))
        return await self.add(version(draft, len(files), artifact=name, **said))

    async def settle(self) -> None:
        """Deliver until nothing is queued or will be by itself."""
        while True:
            totals = await self.spool.totals()
            if not totals[JobState.QUEUED].jobs and not totals[JobState.WAITING].jobs:
                return
            await self.round()
            self.clock.advance(1000)

    async def report(self, seq: int) -> JobReport:
        """Return how a job stands."""
        (found,) = await self.spool.numbered([seq])
        return found

    async def number(self, seq: int) -> int | None:
        """Return the number of a delivered version."""
        report = await self.report(seq)
        assert report.receipt is not None, report
        return report.receipt.version


@pytest.fixture
async def host(spools: Spools, tmp_path: Path) -> Host:
    """Return a host with an empty spool and store."""
    return Host(await spools.open(), tmp_path / "state", tmp_path / "store")


def manifests(store: Path, name: str = "cats") -> dict[int, dict[str, Any]]:
    """Return the manifests of an artifact by number."""
    found = (store / "project" / "artifacts" / name / "versions").glob("*.json")
    return {int(path.stem): json.loads(path.read_bytes()) for path in found}


def alias(store: Path, which: str, name: str = "cats") -> int:
    """Return the version that an alias stands for."""
    aliases = store / "project" / "artifacts" / name / "aliases"
    return int(json.loads((aliases / f"{which}.json").read_bytes())["version"])


def files(store: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Return a version's files, read as a stranger would."""
    return {entry["path"]: oracle.content(store, entry) for entry in manifest["entries"]}


async def test_a_version_is_its_files_whole(host: Host, tmp_path: Path) -> None:
    """A manifest names the artifact, its type, its number, where it comes from, and every file."""
    seq = await host.log(("a", b"1"), ("b/c", b"22"), run=run_info("r", "project"))
    await host.settle()
    manifest = manifests(tmp_path / "store")[0]
    assert files(tmp_path / "store", manifest) == {"a": b"1", "b/c": b"22"}
    expected = {
        "format": 1,
        "artifact": "cats",
        "type": "dataset",
        "version": 0,
        "size": 3,
        "run": "r",
        "project": "project",
    }
    assert {key: manifest[key] for key in expected} == expected
    assert (await host.number(seq), alias(tmp_path / "store", "latest")) == (0, 0)
    assert host.spool.quota.used_bytes == 0


async def test_versions_keep_the_order_of_calls_whatever_is_stored_first(host: Host, tmp_path: Path) -> None:
    """A version whose files come late is numbered before those that were called after it."""
    seqs = [await host.log(("a", b"%d" % n)) for n in range(5)]
    first_part = seqs[0] - 1
    await host.spool.hold(first_part, "not now", "")
    for _ in range(8):
        await host.round()
    assert manifests(tmp_path / "store") == {}
    await host.spool.requeue([seqs[0]])
    await host.settle()
    assert [await host.number(seq) for seq in seqs] == [0, 1, 2, 3, 4]
    found = manifests(tmp_path / "store")
    assert [files(tmp_path / "store", found[n])["a"] for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_equal_content_makes_no_new_version_but_moves_aliases(host: Host, tmp_path: Path) -> None:
    """What the newest version holds already is that version; older content is a version of its own again."""
    logged = [(("a", b"1"), "x"), (("a", b"1"), "y"), (("a", b"2"), "y"), (("a", b"1"), "z")]
    seqs = [await host.log(one, aliases=(which,)) for one, which in logged]
    await host.settle()
    assert [await host.number(seq) for seq in seqs] == [0, 0, 1, 2]
    assert [alias(tmp_path / "store", which) for which in ("x", "y", "z", "latest")] == [0, 1, 2, 2]
    assert len(manifests(tmp_path / "store")) == 3


async def test_another_type_is_held_with_the_reason(host: Host, tmp_path: Path) -> None:
    """A host that does not know the artifact hears from the store that it is of another type."""
    await host.log(("a", b"1"))
    await host.settle()
    other = Host(await Spools(tmp_path / "other").open(), tmp_path / "other", tmp_path / "store")
    seq = await other.log(("a", b"2"), of_type="model")
    await other.settle()
    report = await other.report(seq)
    assert (report.state, len(manifests(tmp_path / "store"))) == (JobState.HELD, 1)
    assert report.reason == "unable to make a version of 'cats' as a 'model': it is a 'dataset'"
    await other.spool.aclose()


async def test_an_artifact_whose_newest_version_was_removed_has_its_type(host: Host, tmp_path: Path) -> None:
    """Another host that logs it as something else is told so by the versions that are left."""
    for data in (b"0", b"1"):
        await host.log(("a", data))
        await host.settle()
    (tmp_path / "store" / keys.version_key("project", "cats", 1)).unlink()
    other = Host(await Spools(tmp_path / "other").open(), tmp_path / "other", tmp_path / "store")
    seq = await other.log(("a", b"2"), of_type="model")
    await other.settle()
    report = await other.report(seq)
    assert report.reason == "unable to make a version of 'cats' as a 'model': it is a 'dataset'"
    await other.spool.aclose()


async def test_what_a_group_has_lost_is_not_named(host: Host, tmp_path: Path) -> None:
    """A group whose contributions lie for long is not finished unless what they name is there still."""
    await host.log(("a", b"1"), group=Group(name="g", writer="w"))
    await host.settle()
    (lost,) = objects(tmp_path / "store")
    (tmp_path / "store" / lost).unlink()
    seq = await host.add(version("finish", 0, group=Group(name="g", finish=True)))
    await host.settle()
    assert "log it again" in (await host.report(seq)).hint
    assert manifests(tmp_path / "store") == {}


async def test_content_of_the_newest_version_is_not_sent_again(host: Host, tmp_path: Path) -> None:
    """Under whatever name: what the newest version has is named again, asked for once each, and counted as spared."""
    many = {f"{n:03}": b"content %d" % n for n in range(100)}
    await host.add(part("first", 0, name=b"", kind=Kind.DIRECTORY), *packed(host, "first", many))
    await host.add(version("first", 1))
    await host.settle()
    stored = objects(tmp_path / "store")

    async def again(draft: str, named: dict[str, bytes]) -> tuple[int, set[str]]:
        before = objects(tmp_path / "store")
        await host.add(part(draft, 0, name=b"d", kind=Kind.DIRECTORY), *packed(host, draft, named))
        seq = await host.add(version(draft, 1))
        host.store.calls.clear()
        await host.settle()
        report = await host.report(seq)
        assert report.receipt is not None
        assert report.receipt.version is not None
        made = files(tmp_path / "store", manifests(tmp_path / "store")[report.receipt.version])
        assert made == {"d/" + path: data for path, data in named.items()}
        return report.receipt.spared_bytes, objects(tmp_path / "store") - before

    whole = sum(map(len, many.values()))
    assert await again("renamed", many) == (whole, set())
    assert host.store.calls.count("put") == 3  # the manifest, the alias, the link
    few = many | {f"{n:03}": b"new %d" % n for n in range(3)}
    spared, new = await again("few", few)
    assert spared == sum(len(data) for path, data in few.items() if many[path] == data)
    assert {Path(key).name for key in new} == {"000", "001", "002"}
    half = few | {f"{n:03}": b"newer %d" % n for n in range(50)}
    spared, new = await again("half", half)
    (pack,) = new
    assert spared == sum(len(data) for path, data in half.items() if few[path] == data)
    assert ("packs/" in pack, (tmp_path / "store" / pack).stat().st_size < 50 * 150) == (True, True)
    assert len(stored) == 1
    assert list((tmp_path / "state" / PAYLOADS).iterdir()) == []


def packed(host: Host, draft: str, named: dict[str, bytes]) -> list[Content]:
    """Return small files in a pack of their own, as a directory is frozen."""
    path = host.root / PAYLOADS / f"{draft}-0"
    with path.open("xb+") as file:
        pack = PackWriter(file.fileno())
        offsets = {name: pack.add(name.encode(), data) for name, data in sorted(named.items())}
        size = pack.finish()
    place = payload_place(draft, 0)
    contents = [Content(ordinal=0, path=b"", size_bytes=size, mode=0, mtime_ns=0, capture=Capture.PACK, place=place)]
    for ordinal, (name, offset) in enumerate(offsets.items(), start=1):
        size = len(named[name])
        contents.append(
            Content(
                ordinal=ordinal, path=name.encode(), size_bytes=size, mode=0o644, mtime_ns=0, capture=Capture.PACKED,
                place=place, offset=offset,
            )
        )  # fmt: skip
    return contents


def objects(store: Path) -> set[str]:
    """Return the keys of content."""
    return {
        str(path.relative_to(store))
        for path in store.rglob("*")
        if path.is_file() and path.suffix != ".json" and ".incoming" not in path.parts
    }


async def test_content_that_somebody_deleted_is_sent_again(host: Host, tmp_path: Path) -> None:
    """A version never names what the store has lost, whatever the version before it says."""
    await host.log(("a", b"1"), ("b", b"2"))
    await host.settle()
    (lost,) = [tmp_path / "store" / key for key in objects(tmp_path / "store") if key.endswith("/a")]
    lost.unlink()
    await host.log(("a", b"1"), ("b", b"2"), ("c", b"3"))
    await host.settle()
    assert files(tmp_path / "store", manifests(tmp_path / "store")[1]) == {"a": b"1", "b": b"2", "c": b"3"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_failure_at_any_operation_makes_one_version_in_the_end(tmp_path: Path, after: bool) -> None:
    """Whichever operation fails, done or not: each version is there once, in order, with its content and aliases."""
    calls = 100
    for n in itertools.count():
        root = tmp_path / f"{n}"
        host = Host(await Spools(root / "state").open(), root / "state", root / "store")
        host.store.strike_at, host.store.after = n, after
        for k in range(2):
            await host.log(("a", b"%d" % k), ("b", b"b"), aliases=("best",))
        await host.settle()
        found = manifests(root / "store")
        assert sorted(found) == [0, 1], n
        assert [files(root / "store", found[k]) for k in (0, 1)] == [
            {"a": b"0", "b": b"b"},
            {"a": b"1", "b": b"b"},
        ], n
        assert (alias(root / "store", "latest"), alias(root / "store", "best")) == (1, 1), n
        calls = len(host.store.calls)
        await host.spool.aclose()
        if n > calls:
            break
    assert calls > 20


async def test_a_version_is_recognized_after_others_came(host: Host, tmp_path: Path) -> None:
    """A version whose creation was answered by nobody is found again, though others made versions since."""
    other = Host(await Spools(tmp_path / "other").open(), tmp_path / "other", tmp_path / "store")
    seq = await host.log(("a", b"ours"))
    real = host.store.put

    async def put(at: str, *arguments: Any) -> Any:
        stat = await real(at, *arguments)
        if at == keys.version_key("project", "cats", 0):
            host.store.put = real  # type: ignore[method-assign]
            await other.log(("a", b"theirs"))
            await other.settle()
            raise UnavailableError("unable: the answer was lost")
        return stat

    host.store.put = put  # type: ignore[method-assign, assignment]
    await host.settle()
    assert (await host.number(seq), sorted(manifests(tmp_path / "store"))) == (0, [0, 1])
    assert alias(tmp_path / "store", "latest") == 1
    await other.spool.aclose()


async def test_a_retry_does_not_undo_what_others_did_since(host: Host) -> None:
    """An alias whose move was answered by nobody, and that somebody moved on, stays where they put it."""
    seq = await host.log(("a", b"1"), aliases=("best",))
    key = keys.alias_key("project", "cats", "best")
    others = alias_record(7, 1e9, "somebody else")
    real = host.store.put

    async def put(at: str, *arguments: Any) -> Any:
        stat = await real(at, *arguments)
        if at == key:
            host.store.put = real  # type: ignore[method-assign]
            await advance(host.objects, key, others)
            raise UnavailableError("unable: the answer was lost")
        return stat

    host.store.put = put  # type: ignore[method-assign, assignment]
    await host.settle()
    assert await host.number(seq) == 0
    assert await alias_of(host.objects, key) == others


async def test_latest_never_goes_back(host: Host) -> None:
    """Told of an older version, it stays; told of a newer one, it moves, whoever tells it when."""
    key = keys.alias_key("project", "cats", "latest")
    numbers = [3, 1, 4, 1, 5, 9, 2, 6]
    async with anyio.create_task_group() as group:
        for number in numbers:
            group.start_soon(advance, host.objects, key, alias_record(number, 1e9, f"{number}"))
    found = await alias_of(host.objects, key)
    assert found is not None
    assert found.version == 9


async def test_a_version_is_found_without_its_latest(host: Host, tmp_path: Path) -> None:
    """If `latest` was lost or lags behind, the next version is the next all the same, and mends it."""
    for n in range(3):
        await host.log(("a", b"%d" % n))
    await host.settle()
    latest = tmp_path / "store" / "project/artifacts/cats/aliases/latest.json"
    for spoiled in (None, 1):
        latest.unlink()
        if spoiled is not None:
            await advance(host.objects, keys.alias_key("project", "cats", "latest"), alias_record(spoiled, 1e9, "x"))
        await host.log(("a", b"after %r" % spoiled))
        await host.settle()
    assert (sorted(manifests(tmp_path / "store")), alias(tmp_path / "store", "latest")) == ([0, 1, 2, 3, 4], 4)


async def test_hosts_share_no_number(tmp_path: Path) -> None:
    """Many hosts at once: numbers without gaps, each version once, each host's in the order of its calls."""
    hosts = [Host(await Spools(tmp_path / f"{n}").open(), tmp_path / f"{n}", tmp_path / "store") for n in range(8)]
    for n, host in enumerate(hosts):
        for k in range(6):
            await host.log(("a", b"%d of %d" % (k, n)))
    async with anyio.create_task_group() as group:
        for host in hosts:
            group.start_soon(host.settle)
    found = manifests(tmp_path / "store")
    contents = [files(tmp_path / "store", found[number])["a"] for number in range(48)]
    assert (sorted(found), len(set(contents))) == (list(range(48)), 48)
    for n in range(8):
        mine = [text for text in contents if text.endswith(b"of %d" % n)]
        assert mine == [b"%d of %d" % (k, n) for k in range(6)]
    for host in hosts:
        await host.spool.aclose()


async def test_a_damaged_manifest_is_named_and_not_built_upon(host: Host, tmp_path: Path) -> None:
    """A newest version that cannot be read holds the next, and says which object is to blame."""
    await host.log(("a", b"1"))
    await host.settle()
    (tmp_path / "store/project/artifacts/cats/versions/000000.json").write_bytes(b'{"format": 1, "job": 5')
    seq = await host.log(("a", b"2"))
    await host.settle()
    report = await host.report(seq)
    assert report.state is JobState.HELD
    assert "000000.json" in report.reason


async def test_a_manifest_of_a_newer_format_is_left_alone(host: Host, tmp_path: Path) -> None:
    """What a newer dropoff wrote is not guessed at."""
    await host.log(("a", b"1"))
    await host.settle()
    (tmp_path / "store/project/artifacts/cats/versions/000000.json").write_bytes(b'{"format": 2}')
    seq = await host.log(("a", b"2"))
    await host.settle()
    assert "a newer dropoff wrote it" in (await host.report(seq)).reason


async def test_references_are_recorded(host: Host, tmp_path: Path) -> None:
    """An artifact may be all references; another URI is another version, the same one is not."""
    seqs = [await host.add(making.referring(uri)) for uri in ("s3://b/1", "s3://b/1", "s3://b/2")]
    await host.settle()
    assert [await host.number(seq) for seq in seqs] == [0, 0, 1]
    found = manifests(tmp_path / "store")
    assert [found[n]["references"] for n in (0, 1)] == [[{"path": "a", "uri": f"s3://b/{n}"}] for n in (1, 2)]


async def test_what_a_reference_leads_to_counts(host: Host, tmp_path: Path) -> None:
    """The same URI is another version when its etag is another, and the same one when it is not."""
    seqs = []
    for etag in ("x", "x", "y"):
        host.references.etags["s3://b/1"] = etag
        seqs.append(await host.add(making.referring("s3://b/1")))
        await host.settle()
    assert [await host.number(seq) for seq in seqs] == [0, 0, 1]
    found = manifests(tmp_path / "store")
    assert [found[n]["references"][0]["etag"] for n in (0, 1)] == ["x", "y"]


async def test_a_version_that_was_made_is_not_made_again_because_a_reference_changed(
    host: Host, tmp_path: Path
) -> None:
    """A version whose creation was answered by nobody is taken for made, with what its references were then."""
    seq = await host.add(making.referring("s3://b/1"))
    host.references.etags["s3://b/1"] = "then"
    real = host.store.put

    async def put(at: str, *arguments: Any) -> Any:
        stat = await real(at, *arguments)
        if at == keys.version_key("project", "cats", 0):
            host.store.put = real  # type: ignore[method-assign]
            host.references.etags["s3://b/1"] = "now"
            raise UnavailableError("unable: the answer was lost")
        return stat

    host.store.put = put  # type: ignore[method-assign, assignment]
    await host.settle()
    found = manifests(tmp_path / "store")
    assert (await host.number(seq), sorted(found), found[0]["references"][0]["etag"]) == (0, [0], "then")
