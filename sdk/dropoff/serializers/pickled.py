"""Pickles: anything, for who asks for it on both ends, since reading one runs whatever its maker put there.

Nobody imports this module unless `allow_pickle=True` was said.
"""

import pickle
from typing import IO, Any

from dropoff.serializers.serializer import Serializer


def _write(obj: Any, file: IO[bytes]) -> None:
    pickle.dump(obj, file, protocol=5)


def _read(file: IO[bytes]) -> Any:
    return pickle.load(file)  # noqa: S301  # the caller said that whoever can write to the store is trusted


PICKLED = Serializer(
    name="pickle", endings=(".pkl", ".pickle"), content_type="application/x-python-pickle",
    of="anything, with `allow_pickle=True`", takes=lambda obj: True,  # noqa: ARG005  # it is asked like the others
    write=_write, read=_read,
)  # fmt: skip
