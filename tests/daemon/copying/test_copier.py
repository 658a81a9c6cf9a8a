"""Copying between directories: what comes with what, what is in the way, and sources that mean harm."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dropoff.errors import NotStoredError, UsageError
from dropoffd.clock import SystemClock
from dropoffd.copying.copier import Scope, copy
from dropoffd.copying.tally import Copied, Tally
from dropoffd.stores.base import UnavailableError
from dropoffd.stores.directory.store import DirectoryStore

pytestmark = pytest.mark.anyio

EARLY, LATE = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"


def sha256(data: bytes) -> str:
    """Return a digest."""
    return hashlib.sha256(data).hexdigest()


class Shelf:
    """A store that is written by hand, as docs/store-format.md says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DirectoryStore(str(root))

    def put(self, key: str, what: object) -> str:
        """Write an object, JSON unless it is bytes, and return its key."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(what if isinstance(what, bytes) else json.dumps(what).encode())
        return key

    def file(self, name: str, data: bytes, **said: Any) -> dict[str, Any]:
        """Write a content and return its entry."""
        key = self.put(f"cv/files/{sha256(data)[:32]}/{name}", data)
        return entry(name, key, data) | said

    def pack(self, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
        """Write contents as a pack and return their entries."""
        whole = b"head" + b"".join(files.values()) + b"tail"
        key = self.put(f"cv/packs/{sha256(whole)[:32]}.zip", whole)
        return [entry(name, key, data) | {"offset": whole.index(data)} for name, data in files.items()]

    def version(self, number: int, entries: list[dict[str, Any]], artifact: str = "cats", **said: Any) -> str:
        """Write a manifest and return its key."""
        manifest = {
            "format": 1, "project": "cv", "artifact": artifact, "type": "dataset", "version": number,
            "digest": digest(entries), "size": 0, "created": EARLY, "job": f"{number:032x}", "run": "maker",
            "entries": entries, "references": [],
        } | said  # fmt: skip
        return self.put(f"cv/artifacts/{artifact}/versions/{number:06d}.json", manifest)

    def alias(self, alias: str, number: int, changed: str = EARLY) -> str:
        """Write an alias and return its key."""
        return self.put(
            f"cv/artifacts/cats/aliases/{alias}.json", {"format": 1, "version": number, "changed": changed, "job": ""}
        )

    def run(self, name: str = "maker", **said: Any) -> str:
        """Write a run's own record and return its key."""
        made = {"format": 1, "project": "cv", "run": name, "created": EARLY, "host": "h", "user": "u"} | said
        return self.put(f"cv/runs/{name}/run.json", made)

    def record(self, number: int, entries: list[dict[str, Any]], run: str = "maker", **said: Any) -> str:
        """Write a record and return its key."""
        record = {
            "format": 1, "job": f"{number:032x}", "project": "cv", "run": run, "kind": "file", "name": "name",
            "category": "output", "created": EARLY, "entries": entries,
        } | said  # fmt: skip
        return self.put(f"cv/runs/{run}/files/{number:032x}.json", record)

    def link(self, number: int, role: str = "output", run: str = "maker") -> list[str]:
        """Write a link and return its keys."""
        said = {
            "format": 1, "role": role, "run_project": "cv", "run": run, "project": "cv", "artifact": "cats",
            "version": number, "created": EARLY,
        }  # fmt: skip
        keys = [f"cv/runs/{run}/{role}s/cv%2Fcats%3Av{number}.json"]
        keys += [f"cv/artifacts/cats/uses/{number:06d}/cv%2F{run}.json"] if role == "input" else []
        return [self.put(key, said) for key in keys]

    @property
    def objects(self) -> dict[str, bytes]:
        """All of it."""
        found = [path for path in self.root.rglob("*") if path.is_file() and ".incoming" not in path.parts]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    @property
    def fixed(self) -> dict[str, bytes]:
        """All that never changes: aliases are written anew."""
        return {key: data for key, data in self.objects.items() if "/aliases/" not in key}

    def stands_for(self, alias: str) -> int:
        """Return the version that an alias stands for."""
        return int(json.loads(self.objects[f"cv/artifacts/cats/aliases/{alias}.json"])["version"])


def entry(name: str, key: str, data: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    return {"path": name, "key": key, "size": len(data), "sha256": sha256(data), "mode": "0644", "mtime": EARLY}


def digest(entries: list[dict[str, Any]]) -> str:
    """Return the digest of a manifest's content, as the format says."""
    found = hashlib.sha256(b"dropoff content 1\0")
    for one in sorted(entries, key=lambda one: str(one["path"]).encode()):
        found.update(str(one["path"]).encode() + b"\0sha256:" + str(one["sha256"]).encode() + b"\0")
    return found.hexdigest()


class Copying:
    """Two stores, and what is copied from one to the other."""

    def __init__(self, root: Path) -> None:
        self.source, self.target = Shelf(root / "source"), Shelf(root / "target")
        self._cache = root / "cache"

    async def copy(self, **scope: str) -> Copied:
        """Copy, and see that nothing is left on the way."""
        tally = Tally(lambda _: None)
        try:
            return await copy(
                self.source.store, self.target.store, Scope(project="cv", **scope), str(self._cache), tally,
                SystemClock(),
            )  # fmt: skip
        finally:
            assert list(self._cache.rglob("*")) == []


@pytest.fixture
def copying(tmp_path: Path) -> Copying:
    """Return two empty stores."""
    return Copying(tmp_path)


async def test_a_run_comes_with_what_it_saved_and_made(copying: Copying) -> None:
    """One run brings its records, the versions that it made, its links, and nothing of others."""
    source = copying.source
    mine = [source.run(), source.record(1, [source.file("a", b"1")]), *source.link(1), *source.link(0, "input")]
    mine += [source.version(1, source.pack({"b": b"22", "c": b"333"}))]
    source.alias("latest", 1)
    mine += [key for key in source.objects if "/files/" in key or "/packs/" in key]
    source.version(0, [source.file("other", b"0")])
    source.run("other")
    source.record(2, [source.file("d", b"4")], "other")
    copied = await copying.copy(run="maker")
    assert (copied.runs, copied.records, copied.versions, copied.links) == (1, 1, 1, 2)
    at_version = "cv/artifacts/cats/uses/000000/cv%2Fmaker.json"  # belongs to what was not copied
    assert copying.target.fixed == {key: source.objects[key] for key in mine if key != at_version}
    assert copying.target.stands_for("latest") == 1


@pytest.mark.parametrize("which", ["v1", "best"])
async def test_one_version_comes_alone(copying: Copying, which: str) -> None:
    """One version brings its content and the aliases that stand for it; it is the latest of those that are there."""
    source = copying.source
    for number in range(3):
        source.version(number, [source.file("a", b"%d" % number)])
    for alias, number in (("latest", 2), ("best", 1), ("worst", 0)):
        source.alias(alias, number)
    copied = await copying.copy(artifact="cats", which=which)
    assert (copied.versions, copied.objects) == (1, 1)
    target = copying.target
    assert {key for key in target.objects if "/artifacts/" in key} == {
        f"cv/artifacts/cats/{key}.json" for key in ("versions/000001", "aliases/best", "aliases/latest")
    }
    assert target.stands_for("latest") == 1
    await copying.copy(artifact="cats")
    assert target.stands_for("latest") == 2
    assert target.fixed == source.fixed


async def test_a_number_that_is_taken_is_a_conflict(copying: Copying) -> None:
    """Where the target has another version under a number nothing of the artifact comes, and all else does."""
    source, target = copying.source, copying.target
    for number in range(3):
        source.version(number, [source.file("a", b"%d" % number)])
    source.alias("latest", 2)
    source.version(0, [source.file("d", b"dog")], "dogs")
    taken = target.version(1, [target.file("a", b"mine")])
    before = target.objects
    copied = await copying.copy()
    assert [one.what for one in copied.conflicting] == [taken]
    assert (copied.conflicts, copied.damaged, copied.versions) == (1, 0, 1)
    come = {key: data for key, data in target.objects.items() if key not in before}
    assert {key.split("/")[1] for key in come} == {"artifacts", "files"}
    assert all("dog" in key for key in come if "/artifacts/" in key)
    assert [data for key, data in come.items() if "/files/" in key] == [b"dog"]


async def test_an_artifact_has_one_type(copying: Copying) -> None:
    """A version of another type than the target's is a conflict, though its number is free."""
    copying.source.version(1, [copying.source.file("a", b"1")], type="model")
    copying.target.version(0, [copying.target.file("a", b"0")])
    copied = await copying.copy()
    assert (copied.conflicts, copied.versions) == (1, 0)
    assert "it is a 'model'" in copied.conflicting[0].cause


async def test_another_run_of_the_name_is_a_conflict(copying: Copying) -> None:
    """Two runs of one name are not mixed; a run that has finished since is the same run."""
    source, target = copying.source, copying.target
    source.run("theirs")
    target.run("theirs", created=LATE)
    source.record(1, [source.file("a", b"1")], "theirs")
    source.run("mine", finished=LATE)
    target.run("mine")
    copied = await copying.copy()
    assert [one.what for one in copied.conflicting] == ["cv/runs/theirs/"]
    assert (copied.runs, copied.records) == (1, 0)
    assert target.objects["cv/runs/mine/run.json"] == source.objects["cv/runs/mine/run.json"]


async def test_an_alias_follows_who_moved_it_last(copying: Copying) -> None:
    """An alias or a state that was set later in the target stays, others follow; `latest` never goes back."""
    source, target = copying.source, copying.target
    for number in range(2):
        for shelf in (source, target):
            shelf.version(number, [shelf.file("a", b"%d" % number)])
    target.version(2, [target.file("a", b"2")])
    for alias, theirs, ours in (("old", EARLY, LATE), ("new", LATE, EARLY), ("latest", LATE, EARLY)):
        source.alias(alias, 0, theirs)
        target.alias(alias, 2 if alias == "latest" else 1, ours)
    states = [f"cv/artifacts/cats/states/{number:06d}.json" for number in range(3)]
    for number, theirs, ours in ((0, LATE, EARLY), (1, EARLY, LATE), (2, LATE, "")):
        source.put(states[number], {"format": 1, "state": "published", "changed": theirs})
        if ours:
            target.put(states[number], {"format": 1, "state": "archived", "changed": ours})
    assert (await copying.copy()).conflicts == 0
    assert [target.stands_for(alias) for alias in ("old", "new", "latest")] == [1, 0, 2]
    assert [json.loads(target.objects[key])["state"] for key in states[:2]] == ["published", "archived"]
    assert states[2] not in target.objects  # of a version that the source does not have


async def test_what_the_target_has_damaged_is_mended(copying: Copying) -> None:
    """Content of the target with other bytes than its key says is replaced, and right content is not copied."""
    source, target = copying.source, copying.target
    source.version(0, [source.file("a", b"right"), source.file("b", b"there")])
    target.file("b", b"there")
    broken = target.root / source.file("a", b"right")["key"]
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"wrong")
    copied = await copying.copy()
    assert (copied.objects, copied.objects_present, copied.copied_bytes) == (1, 1, 5)
    assert broken.read_bytes() == b"right"


async def test_what_is_being_removed_there_is_not_counted_on(copying: Copying) -> None:
    """Content that a sweep is about to remove from the target is not named; it is claimed where nobody does."""
    source, target = copying.source, copying.target
    there = source.file("a", b"garbage")
    source.version(0, [there])
    target.file("a", b"garbage")
    sweep = target.put("cv/sweeps/1.json", {"format": 1, "keys": [there["key"]], "created": EARLY})
    with pytest.raises(UnavailableError, match="being removed"):
        await copying.copy()
    assert [key for key in target.objects if "/versions/" in key] == []
    assert any(key.startswith("cv/claims/") for key in target.objects)
    (target.root / sweep).unlink()
    before = set(target.objects)
    assert (await copying.copy()).versions == 1
    assert {key for key in set(target.objects) - before if "/claims/" in key} == set()


async def test_what_was_removed_stays_so(copying: Copying) -> None:
    """A version that the target has removed does not come back; a number that the source removed is not free."""
    source, target = copying.source, copying.target
    manifests = [source.version(number, [source.file("a", b"%d" % number)]) for number in range(3)]
    removed = manifests[1].replace("/versions/", "/removed/")
    target.put(removed, source.objects[manifests[1]])
    source.put(manifests[2].replace("/versions/", "/removed/"), source.objects[manifests[2]])
    (source.root / manifests[2]).unlink()
    source.alias("latest", 2)
    copied = await copying.copy()
    assert (copied.versions, copied.removed, copied.unknown) == (1, 1, 0)
    assert {key for key in target.objects if "/versions/" in key or "/removed/" in key} == {manifests[0], removed}
    assert target.stands_for("latest") == 2


async def test_damage_in_the_source_is_told_and_left_out(copying: Copying) -> None:
    """Bytes that are not those of their sha256, in a file or a pack, are copied nowhere; other versions are."""
    source = copying.source
    source.version(0, [source.file("a", b"good")])
    flipped = source.file("b", b"flipped")
    source.version(1, [flipped])
    packed = source.pack({"c": b"packed"})
    source.version(2, packed)
    source.version(3, [source.file("d", b"gone")])
    source.version(4, [source.file("e", b"fine")])
    (source.root / flipped["key"]).write_bytes(b"Flipped")
    (source.root / packed[0]["key"]).write_bytes(b"headPackedtail")
    (source.root / source.file("d", b"gone")["key"]).unlink()
    copied = await copying.copy()
    assert [one.what[-11:] for one in copied.damage] == ["000001.json", "000002.json", "000003.json"]
    assert (copied.versions, copied.objects) == (2, 2)
    content = {data for key, data in copying.target.objects.items() if "/artifacts/" not in key}
    assert content == {b"good", b"fine"}
    assert copying.target.stands_for("latest") == 4


@pytest.mark.parametrize(
    "key",
    ["../outside", "/etc/outside", "cv/runs/x/run.json", "cv/artifacts/cats/versions/000009.json", "other/files/{}/a",
     "cv/files/../../{}/a", "cv/files/{}", "cv/files/{}/", "cv/files/.x/{}/a", "cv/files/{}/.a", "cv/packs/{}.zip/a",
     "cv/files/" + "0" * 32 + "/a", "cv/files/{}/a\0b", "cv/files//{}/a", "files/{}/a", "cv/files/{}/a/b"],
)  # fmt: skip
async def test_a_key_that_no_content_has_is_refused(copying: Copying, tmp_path: Path, key: str) -> None:
    """A manifest or record that names what is none of its project's content is left out, and nothing is written."""
    source = copying.source
    bad = entry("a", key.format(sha256(b"evil")[:32]), b"evil")
    if not {"", ".."} & set(bad["key"].split("/")) and "\0" not in bad["key"]:
        source.put(bad["key"], b"evil")
    source.version(0, [bad])
    source.run()
    source.record(1, [bad])
    source.record(2, [bad | {"offset": 0, "size": 1}])
    copied = await copying.copy()
    assert (copied.damaged >= 3, copied.objects, copied.versions, copied.records) == (True, 0, 0, 0)
    assert set(copying.target.objects) == {"cv/runs/maker/run.json"}
    assert set(os.listdir(tmp_path)) == {"source", "target", "cache"}


async def test_what_lies_in_another_place_is_refused(copying: Copying) -> None:
    """Records, manifests and links under keys that are not their own, or with sense missing, are left out."""
    source = copying.source
    one = source.file("a", b"1")
    source.run("renamed", run="maker")
    source.run()
    source.record(1, [one], project="other")
    source.record(2, [one | {"size": -1}])
    source.record(3, [one], created=7)
    source.version(0, [one], artifact="cats", project="other")
    source.version(1, [one], digest="0" * 64)
    source.version(2, [one], format=2)
    (link,) = source.link(1)
    source.put("cv/runs/maker/outputs/cv%2Fdogs%3Av0.json", source.objects[link])
    source.put("cv/artifacts/cats/aliases/.hidden.json", b"{}")
    source.put("cv/artifacts/cats/versions/x.json", b"{}")
    source.put("cv/artifacts/cats/parts/group/writer/01a100000000000000000000000000ff.json", b"{}")
    source.put("cv/artifacts/cats/groups/group/done.json", b"{}")
    source.put("cv/runs/maker/files/x.json", b"{}")
    source.record(4, [one], "headless")
    (source.root / "cv/runs/empty").mkdir()
    source.version(3, [one])
    source.alias("odd", 3, "tomorrow")
    copied = await copying.copy()
    assert (copied.damaged, copied.unknown, copied.conflicts) == (10, 3, 0)
    assert (copied.runs, copied.records, copied.versions, copied.links) == (1, 0, 1, 1)
    allowed = {"cv/runs/maker/run.json", "cv/runs/maker/outputs/cv%2Fcats%3Av1.json", one["key"]}
    assert set(copying.target.objects) == allowed | {
        f"cv/artifacts/cats/{key}.json" for key in ("versions/000003", "aliases/latest")
    }


async def test_a_pack_whose_digest_nobody_noted_is_read_for_it(copying: Copying) -> None:
    """A source that was copied by hand lost its notes; of its packs the key tells what their digest begins with."""
    source = copying.source
    source.version(0, source.pack({"a": b"1", "b": b"22"}))
    for path in source.root.rglob("*"):
        assert "user.dropoff.sha256" not in os.listxattr(path)
    assert (await copying.copy()).objects == 1
    assert copying.target.objects.items() >= source.objects.items()


async def test_a_pack_that_ends_before_a_file_in_it_is_damage(copying: Copying) -> None:
    """A pack is right only if it has room for what is said to lie in it."""
    (packed,) = copying.source.pack({"a": b"1"})
    copying.source.version(0, [packed | {"offset": 1 << 40}])
    copied = await copying.copy()
    assert (copied.damaged, copied.objects) == (1, 0)


async def test_what_is_not_there_is_said(copying: Copying) -> None:
    """A project, run or version that the source does not have is an error, and so is a copy onto itself."""
    for scope in ({}, {"run": "nobody"}, {"artifact": "cats"}, {"artifact": "cats", "which": "v0"}):
        with pytest.raises(NotStoredError, match="not there"):
            await copying.copy(**scope)
    copying.target = copying.source
    with pytest.raises(UsageError, match="onto itself"):
        await copying.copy()
