"""The safetensors format by hand, beside the library that defines it."""

import io
import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from dropoff.serializers.choosing import BUILT_IN

NUMPY = next(one for one in BUILT_IN if one.name == "numpy-safetensors")
ARRAYS = {
    "byte": np.arange(3, dtype=np.uint8),
    "wide": np.arange(6.0).reshape(2, 3),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 4), np.int64),
    "scalar": np.array(7, np.int16),
    "half": np.ones((2, 2), np.float16).T,
    "strided": np.arange(10, dtype=np.int32)[::3],
    "__metadata": np.ones(1, np.uint64),
}  # fmt: skip


def written(arrays: dict[str, Any]) -> bytes:
    """Return arrays as we write them."""
    file = io.BytesIO()
    NUMPY.write(arrays, file)
    return file.getvalue()


def read(data: bytes) -> dict[str, Any]:
    """Return arrays as we read them."""
    assert NUMPY.read
    found: dict[str, Any] = NUMPY.read(io.BytesIO(data))
    return found


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Tell whether the same arrays have the same names."""
    return left.keys() == right.keys() and all(
        (left[name].dtype, left[name].shape, left[name].tobytes())
        == (right[name].dtype, right[name].shape, right[name].tobytes())
        for name in left
    )


def test_the_library_reads_what_we_write_and_we_what_it_writes() -> None:
    """Tensors of each width and shape go to the library and come from it unchanged, and ours keep their order."""
    assert same(safetensors.numpy.load(written(ARRAYS)), ARRAYS)
    # It writes what lies in memory behind a strided array, and not the array.
    in_order = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in ARRAYS.items()}
    assert same(read(safetensors.numpy.save(in_order)), ARRAYS)
    assert list(read(written(ARRAYS))) == list(ARRAYS)


def test_every_tensor_is_aligned() -> None:
    """The numbers of each tensor begin at a multiple of their width, so that they can be mapped."""
    data = written(ARRAYS)
    (length,) = struct.unpack_from("<Q", data)
    assert (8 + length) % 8 == 0
    for name, said in json.loads(data[8 : 8 + length]).items():
        assert said["data_offsets"][0] % ARRAYS[name].itemsize == 0


def damaged(*more: dict[str, Any], **changes: Any) -> bytes:
    """Return a file of one tensor whose header says something else, or more."""
    said = {"dtype": "I16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"t": said | changes} | {str(n): said | one for n, one in enumerate(more)}).encode()
    return struct.pack("<Q", len(header)) + header + b"\1\0\2\0"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 200) + b"{}", b"\2" + b"\0" * 7 + b"[]",
        damaged(shape=[3]), damaged(shape=[-2]), damaged(shape=[2**62, 4]), damaged(data_offsets=[4, 8]),
        damaged(data_offsets=[4, 0]), damaged(data_offsets=[0, 2**63]), damaged(dtype="F4"), damaged(dtype="object"),
        damaged(shape=[1], data_offsets=[0, 2]), damaged() + b"\0", damaged()[:-1], damaged(dtype="BF16"),
        damaged({"data_offsets": [0, 4]}), damaged({"shape": [1], "data_offsets": [2, 4]}),
        damaged({"shape": [1], "data_offsets": [2, 4]}, shape=[0], data_offsets=[0, 0]),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(data: bytes) -> None:
    """Nothing is read past the file's end, and no memory is taken for what is not there."""
    assert read(damaged())["t"].tolist() == [1, 2]
    with pytest.raises((ValueError, TypeError)):
        read(data)
