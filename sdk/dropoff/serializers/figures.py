"""Figures: matplotlib as a picture of itself, plotly as the figure that it is.

A picture is for the eye: matplotlib reads none of its own. Dates and random ids are left out, so that equal figures
make equal content.
"""

from functools import partial
from typing import IO, Any

from dropoff.serializers.libraries import is_a, library
from dropoff.serializers.serializer import Serializer

_UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def _draw(obj: Any, file: IO[bytes], kind: str) -> None:
    with library("matplotlib").rc_context({"svg.hashsalt": "dropoff"}):
        obj.savefig(file, format=kind, metadata=_UNDATED[kind])


def _write_plotly(obj: Any, file: IO[bytes]) -> None:
    file.write(obj.to_json().encode())


def _read_plotly(file: IO[bytes]) -> Any:
    return library("plotly.io").from_json(file.read().decode())


def _matplotlib(kind: str, content_type: str, *, on_request: bool) -> Serializer:
    return Serializer(
        name=f"matplotlib-{kind}", endings=(f".{kind}",), content_type=content_type, of="matplotlib Figure",
        library="matplotlib", takes=partial(is_a, module="matplotlib.figure", name="Figure"),
        write=partial(_draw, kind=kind), on_request=on_request,
    )  # fmt: skip


ALL = (
    _matplotlib("png", "image/png", on_request=False),
    _matplotlib("svg", "image/svg+xml", on_request=True),
    _matplotlib("pdf", "application/pdf", on_request=True),
    Serializer(
        name="plotly-json", endings=(".json",), content_type="application/json", of="plotly Figure", library="plotly",
        takes=partial(is_a, module="plotly.basedatatypes", name="BaseFigure"), write=_write_plotly, read=_read_plotly,
    ),
)  # fmt: skip
