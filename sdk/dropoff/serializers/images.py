"""Images, where the name asks for one: of PIL, or arrays of pixels; what comes back is a PIL image.

An array is height x width, alone or with 1, 3 or 4 channels; of uint8, or of floats from 0 to 1.
"""

from functools import partial
from typing import IO, Any

from dropoff.serializers.arrays import is_array
from dropoff.serializers.libraries import is_a, library
from dropoff.serializers.serializer import Serializer


def _is_image(obj: Any) -> bool:
    if is_array(obj):
        pixels = obj.dtype == "uint8" or obj.dtype.kind == "f"
        return pixels and (obj.ndim == 2 or (obj.ndim == 3 and obj.shape[2] in {1, 3, 4}))
    return is_a(obj, "PIL.Image", "Image")


def _write(obj: Any, file: IO[bytes], kind: str) -> None:
    images = library("PIL.Image")
    image = images.fromarray(_pixels(obj)) if is_array(obj) else obj
    try:
        image.save(file, format=kind)
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from error  # a mode that the format does not have


def _pixels(array: Any) -> Any:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == "uint8":
        return array
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
        raise ValueError("its floats are not all from 0 to 1")
    return (array * 255).round().astype("uint8")


def _read(file: IO[bytes], kind: str) -> Any:
    try:
        # The one format that is meant: others call programs.
        image = library("PIL.Image").open(file, formats=(kind,))
        image.load()
    except OSError as error:
        raise ValueError(str(error)) from error
    return image


def _of(kind: str, name: str, *endings: str) -> Serializer:
    return Serializer(
        name=name, endings=endings, content_type=f"image/{kind.lower()}", of="PIL Image, array of pixels",
        library="PIL", takes=_is_image, write=partial(_write, kind=kind), read=partial(_read, kind=kind),
        on_request=True,
    )  # fmt: skip


ALL = (_of("PNG", "image-png", ".png"), _of("JPEG", "image-jpeg", ".jpg", ".jpeg"))
