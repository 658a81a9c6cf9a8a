"""Tables of polars."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from dropoff import Artifact, UsageError
from support.daemon import DaemonProcess


def test_a_table_of_polars_comes_back_as_one(shared: DaemonProcess) -> None:
    """A DataFrame comes back from parquet, or from CSV where its name says so; what parquet has not is refused."""
    frame = pl.DataFrame({"n": [1, None], "x": [0.5, float("nan")], "t": ["a", None], "l": [[1], [2, 3]]})
    artifact = Artifact("polars", "test", settings=shared.settings)
    artifact.add(frame, "frame")
    artifact.add(frame.select("n", "x"), "frame.csv")
    with pytest.raises(UsageError, match="LazyFrame: nothing here holds one"):
        artifact.add(frame.lazy(), "lazy")
    with pytest.raises(UsageError, match="as polars-parquet"):
        artifact.add(pl.DataFrame({"o": [object()]}), "objects")
    run = shared.run("frameworks", "polars")
    run.log_artifact(artifact).wait(30)
    version = run.use_artifact("polars")
    assert [(entry.path, entry.serializer) for entry in version.entries] == [
        (b"frame.csv", "polars-csv"), (b"frame.parquet", "polars-parquet"),
    ]  # fmt: skip
    assert_frame_equal(version.get("frame.parquet"), frame)
    assert_frame_equal(version.get("frame.csv"), frame.select("n", "x"))
