"""Nobody can unpickle who did not ask for it."""

import os
import subprocess
import sys

import pytest

from dropoff import Artifact
from support.daemon import DaemonProcess

WITHOUT = """
import sys, dropoff
run = dropoff.init("pickled", "without")
artifact = dropoff.Artifact("mixed", "test")
artifact.add({"a": [1]}, "plain")
artifact.add("text", "text")
foreign = {"numpy", "pandas", "polars", "pyarrow", "torch", "safetensors", "matplotlib", "plotly", "PIL"}
assert not foreign & set(sys.modules), foreign & set(sys.modules)
import numpy
artifact.add(numpy.ones(3), "array")
assert foreign & set(sys.modules) == {"numpy"}
trap = run.use_artifact("trap")
for refused, *arguments in (
    (artifact.add, object(), "x"), (artifact.add, {1: 2}, "x"), (artifact.add, [1], "x.pkl"),
    (lambda: artifact.add([1], "x", serializer="pickle"),),
    (run.save_object, object()), (trap.get,), (trap.get, "trap"),
):
    try:
        refused(*arguments)
    except dropoff.UsageError:
        continue
    raise SystemExit("not refused")
run.log_artifact(artifact).wait(30)
version = run.use_artifact("mixed")
assert (version.get("plain"), version.get("text"), version.get("array").sum()) == ({"a": [1]}, "text", 3)
print("dropoff.serializers.pickled" in sys.modules)
artifact = dropoff.Artifact("asked", "test")
artifact.add(object(), "x", allow_pickle=True)
print("dropoff.serializers.pickled" in sys.modules)
"""


@pytest.fixture
def trap(shared: DaemonProcess) -> None:
    """Store a pickle."""
    artifact = Artifact("trap", "test", settings=shared.settings)
    artifact.add(frozenset({1}), "trap", allow_pickle=True)
    shared.run("pickled", "maker").log_artifact(artifact).wait(30)


@pytest.mark.usefixtures("trap")
def test_without_allow_pickle_what_unpickles_is_not_even_loaded(shared: DaemonProcess) -> None:
    """Whatever is saved, read and refused, the one module that unpickles is loaded only when both words are said.

    Nor is any library imported that the user has not imported.
    """
    made = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env=os.environ | shared.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr, made.stdout.split()) == (0, "", ["False", "True"])
