"""torch: safetensors where that holds all there is, else what torch.save makes, read back without running anything.

safetensors holds tensors under names, dense, each with memory of its own. What needs more (an optimizer's nested
dicts, tied weights, gradients wanted) is a .pt file that `weights_only` can read; for what that refuses, so do we, at
the save. Tensors come back on the processor, a state_dict as a dict.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

from dropoff.errors import UsageError
from dropoff.serializers import safetensors
from dropoff.serializers.arrays import is_dict_of_arrays
from dropoff.serializers.libraries import exactly, kind_of, library
from dropoff.serializers.safetensors import Tensor
from dropoff.serializers.serializer import Serializer

# Before, `weights_only` could be made to run code all the same (CVE-2025-32434).
_TORCH_SAFE = (2, 6)
_DTYPES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "float32": "F32", "int32": "I32", "uint32": "U32",
    "float16": "F16", "bfloat16": "BF16", "int16": "I16", "uint16": "U16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_NAMES = {tag: name for name, tag in _DTYPES.items()}
# Says in the file that it is one tensor and no dict of one.
_ALONE = "tensor"
_ALONE_METADATA = {"dropoff": "one tensor"}
_PLAIN = frozenset({str, int, float, bool, type(None)})
_CONTENT_TYPE = "application/x-safetensors"


def _is_tensor(obj: object) -> bool:
    return exactly(obj, "torch", "Tensor") or exactly(obj, "torch.nn.parameter", "Parameter")


def _holds_tensors(obj: Any) -> bool:
    if "torch" not in sys.modules:  # the objects of JSON may be many
        return False
    if type(obj) in {dict, OrderedDict}:
        return any(map(_holds_tensors, obj.values()))
    if type(obj) in {list, tuple}:
        return any(map(_holds_tensors, obj))
    return type(obj) not in _PLAIN and _is_tensor(obj)


def _fits(obj: Any) -> bool:
    """Tell whether safetensors gives it back as it is."""
    if exactly(obj, "torch", "Tensor"):
        return _is_bare(obj)
    if type(obj) not in {dict, OrderedDict} or not obj:
        return False
    if not all(type(name) is str and name != "__metadata__" and _is_bare(one) for name, one in obj.items()):
        return False
    # An empty tensor has no memory to share.
    memories = [one.untyped_storage().data_ptr() for one in obj.values() if one.numel()]
    return len(memories) == len(set(memories))


def _is_bare(obj: Any) -> bool:
    return (
        sys.byteorder == "little"
        and exactly(obj, "torch", "Tensor")
        and not obj.requires_grad
        and str(obj.layout) == "torch.strided"
        and obj.is_contiguous()
        and obj.device.type != "meta"
        and not obj.is_conj()
        and not obj.is_neg()
        and _dtype(obj) in _DTYPES
    )


def _dtype(obj: Any) -> str:
    return str(obj.dtype).removeprefix("torch.")


def _write_tensors(obj: Any, file: IO[bytes]) -> None:
    alone = _is_tensor(obj)
    tensors = {_ALONE: obj} if alone else obj
    described = [Tensor(name, _DTYPES[_dtype(one)], tuple(one.shape), _memory(one)) for name, one in tensors.items()]
    safetensors.write(file, described, _ALONE_METADATA if alone else {})


def _memory(tensor: Any) -> Callable[[], memoryview]:
    def memory() -> memoryview:
        data: memoryview = tensor.detach().cpu().reshape(-1).view(library("torch").uint8).numpy().data
        return data

    return memory


def _read_tensors(file: IO[bytes]) -> Any:
    torch = library("torch")

    def make(dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        made = torch.empty(shape, dtype=getattr(torch, _NAMES[dtype]))
        return made, made.reshape(-1).view(torch.uint8).numpy().data

    tensors, metadata = safetensors.read(file, make)
    return tensors[_ALONE] if metadata == _ALONE_METADATA and list(tensors) == [_ALONE] else tensors


def _write_torch(obj: Any, file: IO[bytes]) -> None:
    try:
        _check(obj, "it")
    except RecursionError:
        raise ValueError("it is nested too deeply, or holds itself") from None
    library("torch").save(obj, file)


def _check(obj: Any, where: str) -> None:
    if type(obj) in {dict, OrderedDict}:
        for key, value in obj.items():
            _check(key, f"the key {key!r}")
            _check(value, f"[{key!r}]")
    elif type(obj) in {list, tuple}:
        for number, value in enumerate(obj):
            _check(value, f"[{number}]")
    elif not (_is_tensor(obj) or type(obj) in _PLAIN or _is_torch_word(obj)):
        raise UsageError(
            f"unable to save a checkpoint: {where} is a {kind_of(obj)}, and torch would have to run code to read it",
            hint="keep tensors, str, int, float, bool and None, in dicts, lists and tuples",
        )


def _is_torch_word(obj: object) -> bool:
    return any(exactly(obj, "torch", name) for name in ("dtype", "Size", "device"))


def _read_torch(file: IO[bytes]) -> Any:
    return library("torch", _TORCH_SAFE).load(file, weights_only=True, map_location="cpu")


def _takes_arrays(obj: Any) -> bool:
    """Tell whether it is a dict of arrays that safetensors gives back as they are."""
    return is_dict_of_arrays(obj) and all(
        array.dtype.isnative and sys.byteorder == "little" and array.dtype.name in _DTYPES for array in obj.values()
    )


def _write_arrays(obj: Any, file: IO[bytes]) -> None:
    numpy = library("numpy")

    def memory(array: Any) -> Callable[[], memoryview]:
        return lambda: numpy.ascontiguousarray(array).reshape(-1).view("uint8").data

    described = [Tensor(name, _DTYPES[one.dtype.name], one.shape, memory(one)) for name, one in obj.items()]
    safetensors.write(file, described, {})


def _read_arrays(file: IO[bytes]) -> Any:
    numpy = library("numpy")

    def make(dtype: str, shape: tuple[int, ...]) -> tuple[Any, memoryview]:
        made = numpy.empty(shape, dtype=_NAMES[dtype])
        return made, made.reshape(-1).view("uint8").data

    return safetensors.read(file, make)[0]


ALL = (
    Serializer(
        name="safetensors", endings=(".safetensors",), content_type=_CONTENT_TYPE, of="torch Tensor, state_dict",
        library="torch", takes=_fits, write=_write_tensors, read=_read_tensors,
    ),
    Serializer(
        name="torch", endings=(".pt", ".pth"), content_type="application/x-pytorch", library="torch",
        of="dicts and lists with torch tensors", takes=_holds_tensors, write=_write_torch, read=_read_torch,
    ),
    Serializer(
        name="numpy-safetensors", endings=(".safetensors",), content_type=_CONTENT_TYPE, of="dict of NumPy arrays",
        library="numpy", takes=_takes_arrays, write=_write_arrays, read=_read_arrays, on_request=True,
    ),
)  # fmt: skip
