"""Tables: pandas and polars as parquet, a pyarrow table as an Arrow file; as CSV where the name asks for that.

A table comes back as the library that it was of, with what its format holds: parquet knows types and pandas' index,
CSV neither.
"""

import io
from functools import partial
from typing import IO, Any

from dropoff.serializers.libraries import exactly, library
from dropoff.serializers.serializer import Serializer

# Older ones unpickle what the metadata of a file names (CVE-2023-47248).
_ARROW_SAFE = (14, 0, 1)
_PARQUET, _CSV = "application/vnd.apache.parquet", "text/csv"


def _write_pandas(obj: Any, file: IO[bytes]) -> None:
    library("pyarrow")
    obj.to_parquet(file, engine="pyarrow")


def _read_pandas(file: IO[bytes]) -> Any:
    library("pyarrow", _ARROW_SAFE)
    return library("pandas").read_parquet(file, engine="pyarrow")


def _write_pandas_csv(obj: Any, file: IO[bytes]) -> None:
    index = obj.index
    if not (exactly(index, "pandas", "RangeIndex") and index.equals(type(index)(len(obj))) and index.name is None):
        raise ValueError("its index would be lost: call .reset_index(), or save it as .parquet")
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    obj.to_csv(text, index=False)
    text.detach()


def _write_arrow(obj: Any, file: IO[bytes]) -> None:
    with library("pyarrow").ipc.new_file(file, obj.schema) as writer:
        writer.write_table(obj)


def _read_arrow(file: IO[bytes]) -> Any:
    return library("pyarrow", _ARROW_SAFE).ipc.open_file(file).read_all()


def _read_arrow_parquet(file: IO[bytes]) -> Any:
    library("pyarrow", _ARROW_SAFE)
    return library("pyarrow.parquet").read_table(file)


_is_pandas = partial(exactly, module="pandas", name="DataFrame")
_is_polars = partial(exactly, module="polars", name="DataFrame")
_is_arrow = partial(exactly, module="pyarrow", name="Table")

ALL = (
    Serializer(
        name="pandas-parquet", endings=(".parquet",), content_type=_PARQUET, of="pandas DataFrame", library="pandas",
        takes=_is_pandas, write=_write_pandas, read=_read_pandas,
    ),
    Serializer(
        name="pandas-csv", endings=(".csv",), content_type=_CSV, of="pandas DataFrame", library="pandas",
        takes=_is_pandas, write=_write_pandas_csv, read=lambda file: library("pandas").read_csv(file),
        on_request=True,
    ),
    Serializer(
        name="polars-parquet", endings=(".parquet",), content_type=_PARQUET, of="polars DataFrame", library="polars",
        takes=_is_polars, write=lambda obj, file: obj.write_parquet(file),
        read=lambda file: library("polars").read_parquet(file),
    ),
    Serializer(
        name="polars-csv", endings=(".csv",), content_type=_CSV, of="polars DataFrame", library="polars",
        takes=_is_polars, write=lambda obj, file: obj.write_csv(file),
        read=lambda file: library("polars").read_csv(file), on_request=True,
    ),
    Serializer(
        name="arrow", endings=(".arrow",), content_type="application/vnd.apache.arrow.file", of="pyarrow Table",
        library="pyarrow", takes=_is_arrow, write=_write_arrow, read=_read_arrow,
    ),
    Serializer(
        name="arrow-parquet", endings=(".parquet",), content_type=_PARQUET, of="pyarrow Table", library="pyarrow",
        takes=_is_arrow, write=lambda obj, file: library("pyarrow.parquet").write_table(obj, file),
        read=_read_arrow_parquet, on_request=True,
    ),
)  # fmt: skip
