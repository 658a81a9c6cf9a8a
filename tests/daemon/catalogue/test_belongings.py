"""Keys read backwards: what `keys.py` builds is known for what it is, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.catalogue.test_keys import SHA, labels, paths
from daemon.making import job_id, run_info, save
from dropoff.questions import Role
from dropoff.records import Entry, LinkRecord
from dropoffd.catalogue import keys
from dropoffd.catalogue.belongings import Kind, holders, is_owner, kind_of, number_of
from dropoffd.stores.base import CorruptError


def entry(key: str, sha256: str = SHA, size: int = 1, offset: int | None = None) -> Entry:
    """Return an entry under a key."""
    return Entry(path="a", key=key, size=size, sha256=sha256, mode="0644", mtime="", offset=offset)


@given(labels, labels, labels, st.integers(0, 10**9), st.sampled_from(Role))
def test_what_is_built_is_known(project: str, name: str, artifact: str, number: int, role: Role) -> None:
    """The key of each thing that belongs to a run or an artifact tells whose it is and what."""
    run, mine = run_info(name, project), keys.run_prefix(project, name)
    theirs = keys.artifact_prefix(project, artifact)
    link = LinkRecord(
        role=role, run_project=project, run=name, project=project, artifact=artifact, version=number, created=""
    )
    *at_version, at_run = keys.link_keys(link)
    built = [
        (mine, keys.run_key(run), Kind.RUN),
        (mine, keys.record_key(save(1, run=run)), Kind.RECORD),
        (mine, at_run, Kind.LINK),
        *((theirs, key, Kind.USE) for key in at_version),
        (theirs, keys.version_key(project, artifact, number), Kind.MANIFEST),
        (theirs, keys.alias_key(project, artifact, name), Kind.ALIAS),
        (theirs, keys.removed_key(project, artifact, number), Kind.REMOVED),
        (theirs, keys.state_key(project, artifact, number), Kind.STATE),
        (theirs, keys.contribution_key(project, artifact, name, name, job_id(1)), Kind.GROUP),
        (theirs, keys.closed_key(project, artifact, name, job_id(1)), Kind.GROUP),
        (theirs, keys.done_key(project, artifact, name), Kind.GROUP),
    ]
    for prefix, key, kind in built:
        assert kind_of(prefix, key) is kind, key
        numbered = {Kind.USE, Kind.MANIFEST, Kind.REMOVED, Kind.STATE}
        assert number_of(prefix, key) == (number if kind in numbered else -1)
        assert keys.told_digest(project, key) is None
    of_artifacts, of_runs = keys.catalogue_prefixes(keys.project_prefix(project))
    assert is_owner(of_runs, mine)
    assert is_owner(of_artifacts, theirs)


@given(labels, labels, paths)
def test_content_is_known_by_its_key(project: str, prefix: str, path: bytes) -> None:
    """The key of a file or a pack tells of which digest it is, and of no other project's."""
    one = save(run=run_info("run", project), prefix=prefix)
    for key in (keys.file_key(one, path, SHA), keys.pack_key(one, SHA)):
        assert keys.told_digest(project, key) == SHA[:32]
        assert keys.told_digest(project + "x", key) is None


@pytest.mark.parametrize(
    "rest",
    ["", "run.json/", "run.jsonx", "files/x.json", f"files/{job_id(1)}.json/x", f"files/../{job_id(1)}.json",
     "inputs/.x.json", "inputs/.json", "outputs/a/b.json", "outputs/..json", "throughputs/x.json", "versions/0.json",
     "versions/0000042.json",
     "versions/00000x.json", "aliases/a b.json", "uses/000001/a", "\n"],
)  # fmt: skip
def test_what_nobody_builds_is_not_known(rest: str) -> None:
    """Keys that climb, hide, or have more or less to them than ours are none of ours."""
    assert kind_of("cv/runs/r/", f"cv/runs/r/{rest}") is None


def test_a_pack_is_one_holder_that_reaches_to_its_last_file() -> None:
    """Files of one pack are held by one object, which has at least the size that the last of them needs."""
    pack, file = f"p/packs/{SHA[:32]}.zip", f"p/files/{SHA[:32]}/a"
    found = holders("p", [entry(pack, "1" * 64, 5, 10), entry(file, size=3), entry(pack, "2" * 64, 4, 20)], "it")
    assert {(one.key, one.sha256, one.size_bytes) for one in found} == {(pack, SHA[:32], 24), (file, SHA, 3)}


def test_a_key_with_two_contents_is_refused() -> None:
    """One key cannot hold two contents, whatever their digests begin with."""
    file = f"p/files/{SHA[:32]}/a"
    for other in (entry(file, SHA[:32] + "f" * 32), entry(file, size=2), entry(file, offset=0)):
        with pytest.raises(CorruptError, match="contradicts itself"):
            holders("p", [entry(file), other], "it")
