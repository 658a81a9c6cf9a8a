"""NumPy: an array is a .npy file, a dict of arrays a .npz.

Only arrays as such: what a subclass adds (a mask, names of fields) would be lost. Object arrays are pickles in
disguise, so neither written nor read. `zipfile` gives what is written so one fixed date: equal arrays, equal content.
"""

import zipfile
from typing import IO, Any

from dropoff.serializers.libraries import exactly, library
from dropoff.serializers.serializer import Serializer

_MEMBER = ".npy"


def is_array(obj: object) -> bool:
    """Tell whether it is an array and nothing more; one that is mapped from a file is one, too."""
    return exactly(obj, "numpy", "ndarray") or exactly(obj, "numpy", "memmap")


def is_dict_of_arrays(obj: object) -> bool:
    """Tell whether it is a dict with arrays under text, and nothing else."""
    return (
        type(obj) is dict
        and bool(obj)
        and all(type(key) is str and is_array(value) for key, value in obj.items())
    )  # fmt: skip


def _write_array(obj: Any, file: IO[bytes]) -> None:
    # To a real file NumPy writes the array's own memory.
    library("numpy").lib.format.write_array(file, obj, allow_pickle=False)


def _read_array(file: IO[bytes]) -> Any:
    return library("numpy").lib.format.read_array(file, allow_pickle=False)


def _write_arrays(obj: dict[str, Any], file: IO[bytes]) -> None:
    # Not numpy.savez: it takes the key "file" for its own argument.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, array in obj.items():
            if "\0" in key:
                raise ValueError(f"{key!r} has a NUL in it, and no file can have that name")
            with archive.open(key + _MEMBER, "w", force_zip64=True) as member:
                _write_array(array, member)


def _read_arrays(file: IO[bytes]) -> dict[str, Any]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                found[name.removesuffix(_MEMBER)] = _read_array(member)
    return found


ALL = (
    Serializer(
        name="npy", endings=(".npy",), content_type="application/x-npy", of="NumPy array", library="numpy",
        takes=is_array, write=_write_array, read=_read_array,
    ),
    Serializer(
        name="npz", endings=(".npz",), content_type="application/x-npz", of="dict of NumPy arrays", library="numpy",
        takes=is_dict_of_arrays, write=_write_arrays, read=_read_arrays,
    ),
)  # fmt: skip
