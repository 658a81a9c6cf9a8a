"""The safetensors format, written and read by hand: eight bytes of length, a header in JSON, then the bare numbers.

By hand because the library first copies every tensor into bytes, and gives names back in another order. What is
written has the widest numbers first, so that each tensor is aligned; the header keeps the order of the names. What is
read is believed in nothing: sizes must agree with shapes, and the tensors must fill the file without gaps.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Annotated, Any, NamedTuple

import msgspec

_LENGTH = struct.Struct("<Q")
_HEADER_MAX_BYTES = 100_000_000
_METADATA = "__metadata__"
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Tensor(NamedTuple):
    """A tensor to write; its bytes are asked for when they are due, one tensor at a time."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], memoryview]

    @property
    def size_bytes(self) -> int:
        """How many bytes `data` has."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class _Place(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


_decode_header = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_metadata = msgspec.json.Decoder(dict[str, str]).decode
_decode_place = msgspec.json.Decoder(_Place).decode

# Returns an empty tensor of this dtype and shape, and its memory.
Make = Callable[[str, tuple[int, ...]], tuple[Any, memoryview]]


def write(file: IO[bytes], tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, each straight from its memory."""
    named = {tensor.name: tensor for tensor in tensors}
    ordered = sorted(named.values(), key=lambda tensor: -ITEM_BYTES[tensor.dtype])
    places = {}
    position = 0
    for tensor in ordered:
        end = position + tensor.size_bytes
        places[tensor.name] = _Place(tensor.dtype, tensor.shape, (position, end))
        position = end
    said: dict[str, object] = {_METADATA: metadata} if metadata else {}
    header = msgspec.json.encode(said | {name: places[name] for name in named})
    header += b" " * (-len(header) % 8)
    file.write(_LENGTH.pack(len(header)) + header)
    for tensor in ordered:
        file.write(tensor.data())


def read(file: IO[bytes], make: Make) -> tuple[dict[str, Any], dict[str, str]]:
    """Return tensors, each read straight into memory of its own, and the metadata; raises ValueError."""
    places, metadata = _header(file)
    made: dict[str, Any] = dict.fromkeys(places)
    for name, place in sorted(places.items(), key=lambda item: item[1].data_offsets):
        made[name], memory = make(place.dtype, place.shape)
        if file.readinto(memory) != len(memory):  # type: ignore[attr-defined]  # an open file has it
            raise ValueError("it ends too early")
    return made, metadata


def _header(file: IO[bytes]) -> tuple[dict[str, _Place], dict[str, str]]:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(_LENGTH.size)
    length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
    if length > min(size - _LENGTH.size, _HEADER_MAX_BYTES):
        raise ValueError("its header is longer than it")
    said = _decode_header(file.read(length))
    metadata = _decode_metadata(said.pop(_METADATA, b"{}"))
    places = {name: _decode_place(place) for name, place in said.items()}
    position = 0
    for place in sorted(places.values(), key=lambda place: place.data_offsets):
        begin, end = place.data_offsets
        if begin != position or end - begin != ITEM_BYTES.get(place.dtype, -1) * math.prod(place.shape):
            raise ValueError(f"its header contradicts itself, or has numbers that are not read here: {place.dtype}")
        position = end
    if _LENGTH.size + length + position != size:
        raise ValueError("its tensors do not fill it")
    return places, metadata
