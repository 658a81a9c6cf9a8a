"""Objects through a real daemon: what is saved comes back as it was, or is refused where it is saved."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pytest

import dropoff
from dropoff import Artifact, MissingSourceError, NotStoredError, UsageError
from dropoff.inbox import deposits, read_deposit
from dropoff.reading import StoredVersion, open_run
from dropoff.serializers import Serializer
from support.daemon import DaemonProcess

FRAME = pd.DataFrame(
    {
        "n": [1, 2, 3],
        "x": [0.5, float("nan"), -0.0],
        "text": ["a", None, "\N{SNOWMAN}"],
        "when": pd.to_datetime(["2026-01-01", "2026-01-02", None], utc=True),
        "kind": pd.Categorical(["p", "q", "p"]),
    },
    index=pd.Index(["k", "l", "m"], name="key"),
)
ARRAYS = {
    "file": np.arange(6.0).reshape(2, 3).T,
    "a": np.array(3.5, dtype=np.float16),
    "a.npy": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "deep/er": np.zeros((0, 3), dtype=">i4"),
    "\N{SNOWMAN}": np.array([(1, 2.5)], dtype=[("n", "i4"), ("x", "f8")]),
    "nan": np.array([np.nan, -np.inf, -0.0]),
    "strided": np.arange(20)[::3],
}
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

# Under which name it is added: the object, the name it is stored as, by what, of which type.
OBJECTS: dict[str, tuple[Any, str, str, str]] = {
    "array": (ARRAYS["file"], "array.npy", "npy", "application/x-npy"),
    "v1.5": (ARRAYS["strided"], "v1.5.npy", "npy", "application/x-npy"),
    "arrays": (ARRAYS, "arrays.npz", "npz", "application/x-npz"),
    "w.safetensors": (
        {"b": np.ones(3, np.float16), "a": np.arange(4)[::2]}, "w.safetensors", "numpy-safetensors",
        "application/x-safetensors",
    ),
    "frame": (FRAME, "frame.parquet", "pandas-parquet", "application/vnd.apache.parquet"),
    "plain.CSV": (pd.DataFrame({"n": [1, 2]}), "plain.CSV", "pandas-csv", "text/csv"),
    "table": (
        pa.table({"n": [1, None], "t": ["a", "b"]}), "table.arrow", "arrow", "application/vnd.apache.arrow.file",
    ),
    "t.parquet": (pa.table({"n": [1, None]}), "t.parquet", "arrow-parquet", "application/vnd.apache.parquet"),
    "tree/dict": (
        {"a": [1, 2.5, None, True], "b": {}, "\N{SNOWMAN}": 10**30}, "tree/dict.json", "json", "application/json",
    ),
    "list": ([{"a": -0.0}, [], ""], "list.json", "json", "application/json"),
    "text": ("\N{SNOWMAN}\r\n", "text.txt", "text", "text/plain"),
    "notes.md": ("# notes", "notes.md", "text", "text/markdown"),
    "bytes": (b"\0\xff", "bytes.bin", "bytes", "application/octet-stream"),
    "pixels.png": (PIL.Image.fromarray(PIXELS), "pixels.png", "image-png", "image/png"),
}  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Tell whether two objects are the same in kind and in content."""
    if isinstance(left, PIL.Image.Image):
        return (left.mode, left.tobytes()) == (right.mode, right.tobytes())
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, pd.DataFrame):
        pd.testing.assert_frame_equal(left, right)
        return True
    return repr(left) == repr(right) and bool(left == right)


@pytest.fixture(scope="module")
def version(shared: DaemonProcess) -> StoredVersion:
    """Return a version that has every object, once each."""
    artifact = Artifact("objects", "test", settings=shared.settings)
    for name, (obj, *_) in OBJECTS.items():
        artifact.add(obj, name)
    shared.run("o", "maker").log_artifact(artifact).wait(60)
    return shared.run("o", "user").use_artifact("objects")


def logged(daemon: DaemonProcess, name: str, **objects: Any) -> StoredVersion:
    """Return a version that has these objects, by name."""
    artifact = Artifact(name, "test", settings=daemon.settings)
    for key, obj in objects.items():
        artifact.add(obj, key.replace("__", "."))
    run = daemon.run("o", "more")
    run.log_artifact(artifact).wait(60)
    return run.use_artifact(name)


def test_objects_are_stored_under_names_that_tell_what_they_are(version: StoredVersion) -> None:
    """Each object has the name, the recorded serializer and the content type that its kind and its name stand for."""
    found = {os.fsdecode(entry.path): (entry.serializer, entry.content_type) for entry in version.entries}
    assert found == {stored: (serializer, kind) for _, stored, serializer, kind in OBJECTS.values()}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_comes_back_as_it_was(version: StoredVersion, name: str) -> None:
    """What `get` returns is the object in kind and in content, found under its name with and without the ending."""
    obj, stored, *_ = OBJECTS[name]
    for asked in {name, stored}:
        found = version.get(asked)
        assert same(found, obj), found


def test_equal_arrays_make_equal_content(version: StoredVersion) -> None:
    """An archive of arrays says nothing of the time it was made at, so that the same arrays are the same version."""
    with zipfile.ZipFile(version.path("arrays.npz")) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_object_saved_by_a_run_has_all_that_a_file_has(shared: DaemonProcess) -> None:
    """`save_object` takes what `save_file` takes, and names an object that has no name by its type."""
    run = shared.run("o", "saver")
    run.save_object(
        ARRAYS["a"], "input", name="a", prefix="some/where", description="d", tags=["t"], metadata={"m": 1},
        priority=3, keep="newest",
    ).wait(30)  # fmt: skip
    receipt = run.save_object({"lr": 0.1}).wait(30)
    named, unnamed = open_run("o", "saver", settings=shared.settings).files()
    assert (named.name, named.category, named.description, named.tags, named.metadata) == (
        "a.npy", "input", "d", ("t",), {"m": 1},
    )  # fmt: skip
    assert same(named.get(), ARRAYS["a"])
    assert (unnamed.name, unnamed.get()) == ("dict.json", {"lr": 0.1})
    record = json.loads((shared.store / receipt.record).read_bytes())
    assert (record["source"], record["entries"][0]["serializer"]) == ("", "json")
    assert receipt.key.endswith("/dict.json")
    with pytest.raises(UsageError, match="as category"):
        run.save_object({"a": 1}, "results")


def test_pictures_are_for_the_eye(shared: DaemonProcess) -> None:
    """A figure is stored as the picture that its name asks for, the same each time, and is no object again."""
    figure = matplotlib.figure.Figure(figsize=(1, 1))
    figure.subplots().plot([1, 3, 2])
    pictures = {
        "fig": figure,
        "fig__svg": figure,
        "fig__pdf": figure,
        "noise__jpg": np.linspace(0, 1, 64).reshape(8, 8),
    }
    version = logged(shared, "pictures", **pictures)
    starts = {"fig.png": b"\x89PNG", "fig.svg": b"<?xml", "fig.pdf": b"%PDF", "noise.jpg": b"\xff\xd8"}
    assert {name: Path(version.path(name)).read_bytes()[: len(start)] for name, start in starts.items()} == starts
    for name in ("fig.png", "fig.svg", "fig.pdf"):
        with pytest.raises(UsageError, match="picture of a matplotlib Figure"):
            version.get(name)
    assert version.get("noise").size == (8, 8)
    assert b"CreationDate" not in Path(version.path("fig.pdf")).read_bytes()
    assert logged(shared, "pictures", **pictures).version == version.version == 0


def test_files_are_read_by_their_endings(shared: DaemonProcess, tmp_path: Path) -> None:
    """What was added as a file, or by a daemon that records no serializer, is read by what its ending stands for."""
    buffer = io.BytesIO()
    np.save(buffer, ARRAYS["nan"])
    gif = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(gif, "GIF")
    files = {
        "a.npy": buffer.getvalue(), "d.json": b'{"a": [1]}', "t.TXT": b"text", "labels.csv": b"n\n7\n",
        "model.pkl": b"", "README": b"", "broken.json": b"{",
        "other.png": gif.getvalue(),
    }  # fmt: skip
    artifact = Artifact("files", "test", settings=shared.settings)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        artifact.add_file(tmp_path / name)
    artifact.add_reference("s3://bucket/raw.json")
    run = shared.run("o", "filer")
    run.log_artifact(artifact).wait(30)
    version = run.use_artifact("files")
    assert same(version.get("a"), ARRAYS["nan"])
    assert (version.get("d"), version.get("t"), version.get("labels")["n"][0]) == ({"a": [1]}, "text", 7)
    refused = {
        "model.pkl": "nothing says how", "README": "nothing says how", "broken.json": "as json: ",
        "raw.json": "it is a reference", "other.png": "as image-png: cannot identify",
    }  # fmt: skip
    for name, cause in refused.items():
        with pytest.raises(UsageError, match=cause):
            version.get(name, allow_pickle=True)
    with pytest.raises(UsageError, match="several"):
        version.get()
    saved = run.save_directory(tmp_path, name="dir")
    saved.wait(30)
    with pytest.raises(UsageError, match="it is a directory"):
        open_run("o", "filer", settings=shared.settings).files()[-1].get()


def test_one_object_needs_no_name_and_a_name_one_object(shared: DaemonProcess, source: Path) -> None:
    """Among files the one object is found without a name; two of one name, or none, are told apart from it."""
    artifact = Artifact("found", "test", settings=shared.settings)
    artifact.add_file(source)
    artifact.add_file(source, "result.txt")
    artifact.add({"a": 1}, "result")
    with pytest.raises(UsageError, match="has that already"):
        artifact.add([1], "result")
    wrote: list[object] = []
    own = Serializer(name="own", endings=(".json",), takes=bool, write=lambda obj, _: wrote.append(obj))
    with pytest.raises(UsageError, match="has that already"):
        artifact.add([1], "result", serializer=own)
    assert wrote == [], "found before anything is written"
    artifact.add([1], "result", overwrite=True)
    run = shared.run("o", "finder")
    run.log_artifact(artifact).wait(30)
    assert run.use_artifact("found").get() == run.use_artifact("found").get("result") == [1]
    version = logged(shared, "ambiguous", a={"b": 1}, a__txt="text", **{"a-b": "other", "a/b": "below"})
    with pytest.raises(UsageError, match=r"several: 'a.json', 'a.txt'"):
        version.get("a")
    assert version.get("a.txt") == "text"
    with pytest.raises(NotStoredError, match="nothing is stored as 'b'"):
        version.get("b")


class Thing:
    """Something that nothing here knows."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None  # type: ignore[assignment]


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
REFUSED: dict[str, tuple[Any, str, str, str]] = {
    "unknown": (Thing(), "x", r"unable to save a .*\.Thing: nothing here holds one", "allow_pickle=True"),
    "subclass": (OrderedDict(a=1), "x", "OrderedDict: nothing here", "what works: NumPy array"),
    "mask": (np.ma.masked_array([1], [True]), "x", "MaskedArray: nothing here", "serializer="),
    "objects": (np.array([Thing()]), "x", "Object arrays", "allow_pickle"),
    "scalar": (np.float32(1), "x", "numpy.float32: nothing here", "what works"),
    "tuple": ({"a": [{"b": (1, 2)}]}, "x", r"its \['a'\]\[0\]\['b'\] is tuple", "make it a list"),
    "nan": ([1.0, float("nan")], "x", r"its \[1\] is nan", "use None"),
    "number": ({"lr": np.float64(0.1)}, "x", r"its \['lr'\] is numpy.float64", ".item()"),
    "mixture": ({"a": np.ones(2), "b": 1}, "x", r"its \['a'\] is numpy.ndarray", "flat dict of arrays"),
    "key": ({"a": {1: 2}}, "x", r"its \['a'\] has the key 1, of type int", "make every key a str"),
    "surrogate": (["\ud800"], "x", "as json: .*surrogates", "change it"),
    "index": (FRAME, "x.csv", "its index would be lost", "change it"),
    "columns": (pd.DataFrame([[1, "a"], ["b", 2]], columns=["a", "b"]), "x", "as pandas-parquet", "change it"),
    "floats": (np.full((2, 2), 1.5), "x.png", "from 0 to 1", "change it"),
    "format": (PIL.Image.fromarray(np.zeros((2, 2, 4), np.uint8)), "x.jpg", "RGBA", "change it"),
    "image": (PIL.Image.fromarray(PIXELS), "x", "nothing says in which format", ".png or .jpg"),
    "ending": (np.ones(1), "x.json", "such a file holds something else", r"make it .npy"),
    "pickle": ({"a": 1}, "x.pkl", "such a file holds something else", "allow_pickle=True"),
    "NUL": ({"a\0b": np.ones(1)}, "x", "has a NUL", "change it"),
    "itself": (ENDLESS, "x", "holds itself", "its parts"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_come_back_is_refused_at_once(shared: DaemonProcess, case: str) -> None:
    """What nothing holds exactly is refused in the call, with the place in the message and the fix in the hint."""
    obj, name, cause, fix = REFUSED[case]
    artifact = Artifact("refused", "test", settings=shared.settings)
    with pytest.raises(UsageError, match=cause) as raised:
        artifact.add(obj, name)
    assert fix in raised.value.hint
    assert not isinstance(raised.value, MissingSourceError)
    artifact.add("the next step is still the first", name + "/y")
    shared.run("o", "refuser").log_artifact(artifact).wait(30)


def test_what_nothing_holds_is_pickled_where_both_ends_allow_it(shared: DaemonProcess) -> None:
    """With `allow_pickle` what has a serializer still takes it; the rest is pickled, and read with `allow_pickle`."""
    run = shared.run("o", "pickler")
    things = {"safe": {"a": 1}, "tuple": {"a": (1, 2)}, "thing": (1, {2}), "asked.pkl": [3]}
    artifact = Artifact("pickled", "test", settings=shared.settings)
    for name, thing in things.items():
        artifact.add(thing, name, allow_pickle=True)
    artifact.add([4], "named", serializer="pickle", allow_pickle=True)
    begun = {
        "array": np.ones(1000),
        "object": np.array([{1}]),
    }  # an archive, until its second array is one of objects
    artifact.add(begun, "begun", allow_pickle=True)
    with pytest.raises(UsageError, match="needs allow_pickle=True"):
        artifact.add([4], "x", serializer="pickle")
    with pytest.raises(UsageError, match="unable to save a function as pickle"):
        artifact.add(lambda: 0, "lambda", allow_pickle=True)
    run.log_artifact(artifact).wait(30)
    version = run.use_artifact("pickled")
    assert [os.fsdecode(entry.path) for entry in version.entries] == [
        "asked.pkl", "begun.pkl", "named.pkl", "safe.json", "thing.pkl", "tuple.pkl",
    ]  # fmt: skip
    assert {name: version.get(name, allow_pickle=True) for name in things} == things
    assert repr(version.get("begun", allow_pickle=True)) == repr(begun)
    assert Path(version.path("begun.pkl")).read_bytes().startswith(b"\x80")
    for name in ("thing", "tuple", "named", "asked"):
        with pytest.raises(UsageError, match="it is a pickle"):
            version.get(name)
    assert version.get("safe") == {"a": 1}


def test_an_object_goes_through_the_inbox_when_there_is_no_daemon(tmp_path: Path) -> None:
    """Without a daemon an object is deposited like a file, with what it was written by."""
    settings = DaemonProcess(tmp_path).settings
    dropoff.init("o", "offline", settings=settings, offline=True).save_object(ARRAYS["nan"], name="a")
    (job,) = deposits(settings.inbox_dir)
    found = read_deposit(f"{settings.inbox_dir}/{job}")
    assert (found.save.name, found.save.serializer, found.contents[0].size_bytes) == (b"a.npy", "npy", 128 + 24)


LARGE = """
import json, resource, sys
import numpy as np, dropoff
run = dropoff.init("o", "large")
large = {"a": np.ones(6 << 20), "b": np.ones((1 << 9, 1 << 10)).T}
run.save_object(large["b"][:8, :8], name="warm")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run.save_object(large["a"], name="large")
run.save_object(large, name="large.safetensors")
run.save_object(large, name="several")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_array_is_neither_copied_in_memory_nor_by_the_daemon(paused: DaemonProcess) -> None:
    """48 MiB go from their memory into a file that the daemon links; less than half as much memory is used for it."""
    made = subprocess.run(
        [sys.executable, "-c", LARGE], env=os.environ | paused.environment, capture_output=True, text=True, check=True
    )
    assert int(made.stdout) < 24 << 10
    jobs = {job["name"]: job["capture"] for job in json.loads(paused.command("jobs", "--json").stdout)}
    captures = {jobs[name] for name in ("large.npy", "large.safetensors", "several.npz")}
    assert captures <= {"link", "reflink"}
