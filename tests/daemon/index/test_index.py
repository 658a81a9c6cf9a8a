"""The index of a store: it answers from what the store has, follows it, and can be lost at any time."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from daemon.making import job_id
from dropoff.answers import Found
from dropoff.conditions import conditions
from dropoff.messages import encode as encode_message
from dropoff.questions import Find, Subject
from dropoff.records import AliasRecord, Entry, Manifest, Record, RunRecord, encode
from dropoff.saves import Category, Kind
from dropoff.wire import FRAME_MAX_BYTES
from dropoffd.catalogue import keys
from dropoffd.index import follow
from dropoffd.index.index import Indexes
from dropoffd.stores.base import Bytes, Overwrite, UnavailableError, ignore_progress
from dropoffd.stores.directory import listing
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio

SHA = "3" * 64


def entry(path: str, size: int = 7) -> Entry:
    """Return an entry; its object need not be there."""
    return Entry(path=path, key=f"cv/files/{path}", size=size, sha256=SHA, mode="0644", mtime="")


def second(number: int) -> str:
    """Return a time."""
    return f"2026-11-26T08:00:{number:02}.000000Z"


class Shelf:
    """A store that is filled by hand, and an index of it."""

    def __init__(self, root: Path) -> None:
        self.store = DirectoryStore(str(root / "store"))
        self.cache = root / "cache"
        self.indexes = Indexes(str(self.cache))

    async def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        await self.store.put(key, Bytes(data, hashlib.sha256(data).hexdigest()), Overwrite(), ignore_progress)

    async def run(self, name: str = "run", at: int = 0, *, project: str = "cv", tags: tuple[str, ...] = ()) -> None:
        """Store a run's own record."""
        made = RunRecord(project=project, run=name, created=second(at), host="h", user="u", tags=tags)
        await self.put(f"{keys.run_prefix(project, name)}run.json", encode(made))

    async def file(
        self, number: int, name: str = "best.pt", *, project: str = "cv", run: str = "run", **other: object
    ) -> str:
        """Store the record of a saved file; return its key."""
        record = msgspec.structs.replace(
            Record(
                job=job_id(number), project=project, run=run, kind=Kind.FILE, name=name, category=Category.OUTPUT,
                created=second(number), entries=(entry(name),),
            ),
            **other,
        )  # fmt: skip
        key = f"{keys.records_prefix(project, run)}{record.job}.json"
        await self.put(key, encode(record))
        return key

    async def version(self, number: int, artifact: str = "cats", kind: str = "dataset", at: int = 0) -> None:
        """Store a manifest."""
        manifest = Manifest(
            project="cv", artifact=artifact, type=kind, version=number, digest="d", size=7, created=second(at),
            job=job_id(900 + number), run="run", entries=(entry("a"),), metadata={"acc": number / 10},
        )  # fmt: skip
        await self.put(keys.version_key("cv", artifact, number), encode(manifest))

    async def alias(self, alias: str, number: int) -> None:
        """Let an alias stand for a version of cats."""
        record = AliasRecord(version=number, changed=second(0), job="")
        await self.put(keys.alias_key("cv", "cats", alias), encode(record))

    async def find(
        self, subject: Subject = Subject.FILE, where: str | tuple[str, ...] = (), **wanted: object
    ) -> Found:
        """Look for something."""
        asked = Find(store=self.store.url, subject=subject, where=conditions(where))
        return await self.indexes.find(self.store, msgspec.structs.replace(asked, **wanted))

    async def names(self, where: str | tuple[str, ...] = (), **wanted: object) -> list[str]:
        """Return the names of the files that are found."""
        return [one.name for one in (await self.find(Subject.FILE, where, **wanted)).files]

    @property
    def database(self) -> Path:
        """The index's file."""
        (path,) = (self.cache / "index").glob("*.db")
        return path


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Return an empty store."""
    made = Shelf(tmp_path)
    yield made
    made.indexes.close()


async def test_files_are_found_by_all_that_was_said_of_them(shelf: Shelf) -> None:
    """Each criterion leaves what meets it, the newest first; several leave what meets all."""
    await shelf.file(1, "a.pt", tags=("x",), metadata={"epoch": 9, "opt": {"name": "adam"}})
    await shelf.file(2, "b.pt", tags=("x", "y"), metadata={"epoch": 11}, prefix="models/old")
    await shelf.file(3, "train.py", category=Category.CODE, run="other")
    await shelf.file(4, "c.pt", project="nlp", metadata={"epoch": "11"})
    assert await shelf.names() == ["c.pt", "train.py", "b.pt", "a.pt"]
    assert await shelf.names(project="cv") == ["train.py", "b.pt", "a.pt"]
    assert await shelf.names(run="other") == ["train.py"]
    assert await shelf.names(name="?.pt", project="cv") == ["b.pt", "a.pt"]
    assert await shelf.names(name="a.pt") == ["a.pt"]
    assert await shelf.names(tags=("y", "x")) == ["b.pt"]
    assert await shelf.names(category=Category.CODE) == ["train.py"]
    assert await shelf.names(prefix="models") == ["b.pt"]
    assert await shelf.names(prefix="model") == []
    assert await shelf.names("epoch>10") == ["b.pt"]
    assert await shelf.names("opt.name=adam") == ["a.pt"]
    assert await shelf.names(("epoch>=9", "epoch<10"), tags=("x",)) == ["a.pt"]
    began = 1795680000.0  # 2026-11-26T08:00:00Z
    assert await shelf.names(since=began + 2, until=began + 4) == ["train.py", "b.pt"]


async def test_versions_are_found_with_their_aliases(shelf: Shelf) -> None:
    """A version comes with the aliases that stand for it now; `newest` leaves one of each artifact."""
    await shelf.version(0, at=1)
    await shelf.version(1, at=2)
    await shelf.version(0, "resnet", "model", at=3)
    await shelf.alias("latest", 1)
    await shelf.alias("best", 0)
    found = (await shelf.find(Subject.VERSION)).versions
    assert [(one.id.artifact, one.id.number, one.aliases) for one in found] == [
        ("resnet", 0, ()), ("cats", 1, ("latest",)), ("cats", 0, ("best",)),
    ]  # fmt: skip
    await shelf.alias("best", 1)
    found = (await shelf.find(Subject.VERSION, newest=True, artifact_type="dataset")).versions
    assert [(one.id.artifact, one.id.number, one.aliases) for one in found] == [("cats", 1, ("best", "latest"))]
    (best,) = (await shelf.find(Subject.VERSION, "acc<0.05", name="cats")).versions
    assert (best.id.number, best.metadata, best.id.sha256 != "") == (0, {"acc": 0.0}, True)


async def test_runs_and_projects_are_found(shelf: Shelf) -> None:
    """Runs are found by their names and tags, projects with what they have."""
    await shelf.run("resnet-1", 1, tags=("good",))
    await shelf.run("resnet-2", 2)
    await shelf.run("bert", 3, project="nlp")
    await shelf.file(4, run="resnet-1")
    assert [one.id.run for one in (await shelf.find(Subject.RUN, name="resnet-*")).runs] == ["resnet-2", "resnet-1"]
    assert [one.id.run for one in (await shelf.find(Subject.RUN, tags=("good",))).runs] == ["resnet-1"]
    projects = (await shelf.find(Subject.PROJECT)).projects
    assert [(one.project, one.runs, one.files, one.size_bytes, one.changed) for one in projects] == [
        ("cv", 2, 1, 7, second(4)), ("nlp", 1, 0, 0, second(3)),
    ]  # fmt: skip


async def test_pages_have_everything_once(shelf: Shelf) -> None:
    """Read page by page, an answer has each thing once, also where many were made in one moment."""
    for number in range(25):
        await shelf.file(number, f"{number}", created=second(number // 10))
    found: list[str] = []
    more = ""
    while True:
        page = await shelf.find(Subject.FILE, limit=4, after=more)
        found += [one.name for one in page.files]
        more = page.more
        if not more:
            break
    assert found == [f"{number}" for number in sorted(range(25), key=lambda n: (n // 10, n), reverse=True)]


@pytest.mark.parametrize("passed", [0, 60], ids=["at-once", "later"])
async def test_the_index_follows_the_store(shelf: Shelf, passed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added, replaced or removed in the store shows in the next answer; so does a project that is gone."""
    monkeypatch.setattr(listing, "time_ns", lambda: time.time_ns() + passed * 10**9)
    first = await shelf.file(1, "a")
    await shelf.file(2, "b", project="nlp")
    assert await shelf.names() == ["b", "a"]
    await shelf.store.delete(first)
    await shelf.file(3, "c")
    assert await shelf.names() == ["c", "b"]
    await shelf.file(3, "C")
    assert await shelf.names() == ["C", "b"]
    for stat in [stat async for stat in shelf.store.list("nlp/")]:
        await shelf.store.delete(stat.key)
    (Path(shelf.store.url.removeprefix("file://")) / "nlp/runs/run/files").rmdir()
    assert await shelf.names() == ["C"]


async def test_an_index_that_was_interrupted_keeps_nothing_that_is_gone(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before a first look was cut off is forgotten, too, once its run is removed from the store."""
    kept = [await shelf.file(number, f"{number}", run="gone") for number in range(2)]
    await shelf.file(3, "stays", run="other")
    get, calls = shelf.store.get, 0

    async def cut_off(key: str, start: int = 0, end: int | None = None) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise UnavailableError("unable: away")
        return await get(key, start, end)

    monkeypatch.setattr(follow, "_COMMIT_EVERY", 1)
    with monkeypatch.context() as away:
        away.setattr(shelf.store, "get", cut_off)
        with pytest.raises(UnavailableError):
            await shelf.names()
    for key in kept:
        await shelf.store.delete(key)
    shutil.rmtree(Path(shelf.store.url.removeprefix("file://")) / "cv/runs/gone")
    assert await shelf.names() == ["stays"]


async def test_what_made_no_sense_may_be_repaired_in_place(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a damaged record is looked into each time: to copy a sound one over it changes no folder."""
    monkeypatch.setattr(listing, "time_ns", lambda: time.time_ns() + 60 * 10**9)
    key = await shelf.file(1, "hurt")
    await shelf.file(2, "sound", run="other")
    path = Path(shelf.store.url.removeprefix("file://")) / key
    sound = path.read_bytes()
    path.write_bytes(b"{")
    assert (await shelf.names(), len((await shelf.find()).unreadable)) == (["sound"], 1)
    path.write_bytes(sound)
    assert (await shelf.names(), len((await shelf.find()).unreadable)) == (["sound", "hurt"], 0)


@pytest.mark.parametrize("harm", ["deleted", "garbage", "older"])
async def test_an_index_that_is_lost_is_made_again(shelf: Shelf, harm: str) -> None:
    """Without its file, with garbage in its place, or one of another form, the answer is the same."""
    await shelf.file(1, "a")
    assert await shelf.names() == ["a"]
    if harm == "deleted":
        shelf.database.unlink()
    else:
        shelf.indexes.close()
        data = bytearray(shelf.database.read_bytes())
        if harm == "garbage":
            data[:4096] = b"garbage!" * 512
        else:
            data[60:64] = (77).to_bytes(4, "big")  # PRAGMA user_version (sqlite.org/fileformat2.html)
        shelf.database.write_bytes(data)
    assert await shelf.names() == ["a"]


async def test_what_cannot_be_read_is_told_and_hides_nothing_else(shelf: Shelf) -> None:
    """Garbage, a newer format and a record under another's key are named; what is sound is found all the same."""
    key = await shelf.file(1, "sound")
    folder = keys.records_prefix("cv", "run")
    await shelf.put(f"{folder}{job_id(2)}.json", b"{")
    await shelf.put(f"{folder}{job_id(3)}.json", b'{"format": 99}')
    moved = (Path(shelf.store.url.removeprefix("file://")) / key).read_bytes()
    await shelf.put(f"{folder}{job_id(4)}.json", moved)
    await shelf.version(1)
    version = await shelf.store.get(keys.version_key("cv", "cats", 1))
    await shelf.put(keys.version_key("cv", "cats", 2), version)
    assert [one.id.number for one in (await shelf.find(Subject.VERSION)).versions] == [1]
    found = await shelf.find()
    assert [one.name for one in found.files] == ["sound"]
    told = [[trouble for trouble in found.unreadable if f"{job_id(n)}.json" in trouble] for n in (2, 3, 4)]
    assert [len(one) for one in told] == [1, 1, 1]


DEEP: object = 1
for _ in range(200):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    "said",
    [
        {"size": 1 << 63},
        {"size": -1},
        {"metadata": {"x": 10**400}},
        {"metadata": DEEP},
        {"metadata": {"x": "y" * (1 << 20)}},
        {"metadata": {"x": [0.5] * 150_000}},
        {"tags": ["tag"] * 300_000},
        {"job": "j" * (4 << 20)},
    ],
    ids=["large", "negative", "number", "deep", "long", "many", "tags", "misplaced"],
)
async def test_what_no_answer_could_carry_hides_nothing_else(shelf: Shelf, said: dict[str, object]) -> None:
    """A manifest that says more than fits into an answer, or a database, is told of, and all else is found."""
    await shelf.version(0)
    for artifact in ("a", "b"):
        await shelf.version(0, artifact)
        key = keys.version_key("cv", artifact, 0)
        made = json.loads(await shelf.store.get(key))
        if "job" in said:  # its key has the job's id
            key = f"{keys.records_prefix('cv', 'run')}{artifact}.json"
            made |= {"kind": "file", "name": "a", "category": "output"}
        await shelf.put(key, json.dumps(made | said).encode())
    found = await shelf.find(Subject.VERSION, name="cats")
    assert [one.id.number for one in found.versions] == [0]
    assert (len(found.unreadable), len(encode_message(found)) < FRAME_MAX_BYTES) == (2, True)
    assert (await shelf.find(Subject.PROJECT)).projects[0].project == "cv"


async def test_sizes_that_add_up_to_nonsense_are_no_trouble(shelf: Shelf) -> None:
    """Projects are listed whatever sizes somebody claims in them, and a version with however many aliases."""
    for number in range(3):
        await shelf.version(number)
        key = keys.version_key("cv", "cats", number)
        await shelf.put(key, json.dumps(json.loads(await shelf.store.get(key)) | {"size": 1 << 62}).encode())
    for number in range(300):
        await shelf.alias(f"{number}", 0)
    assert (await shelf.find(Subject.PROJECT)).projects[0].size_bytes == (1 << 63) - 1
    assert len((await shelf.find(Subject.VERSION, newest=False)).versions[-1].aliases) == 200


async def test_a_name_with_brackets_is_a_name_as_well(shelf: Shelf) -> None:
    """What looks like a pattern is found under just that name, too."""
    await shelf.file(1, "a[1].pt")
    await shelf.file(2, "a1.pt")
    assert await shelf.names(name="a[1].pt") == ["a1.pt", "a[1].pt"]


async def test_a_time_that_is_none_breaks_no_page(shelf: Shelf) -> None:
    """Whatever stands where a time should: each page goes on where the one before ended."""
    for number, created in enumerate(("2026", "2026\0x", "2026\0y", "z")):
        await shelf.file(number, f"{number}", created=created)
    found, after = list[str](), ""
    while True:
        page = await shelf.find(limit=1, after=after)
        found += [one.name for one in page.files]
        if not (after := page.more):
            break
    assert found == ["3", "2", "1", "0"]
