"""What a serializer is: one way to hold an object in a file.

The families beside this file are made of these, and so is what users register.
"""

from collections.abc import Callable
from typing import IO, Any

import msgspec


class Serializer(msgspec.Struct, frozen=True, kw_only=True):
    """One way to hold objects of one kind in a file.

    `takes` tells whether it is for an object; `write` puts one into an open binary file, and `read` makes it of such
    a file: also of one that somebody made to do harm. Both raise whatever they like.
    """

    name: str
    """What is recorded beside the content, so never to be changed."""
    endings: tuple[str, ...]
    """Of names, each with its dot, in lower case; the first is given to a name that has none of them."""
    takes: Callable[[Any], bool]
    write: Callable[[Any, IO[bytes]], None]
    read: Callable[[IO[bytes]], Any] | None = None
    """None where the file is for the eye, and nothing can be made of it again."""
    content_type: str = ""
    """Empty: what the name's ending stands for."""
    of: str = ""
    """What it is for, in words."""
    library: str = ""
    """The module that it makes objects of, if it is not the language's own."""
    on_request: bool = False
    """Whether it is used only where the name's ending, or `serializer=`, asks for it."""
    any_ending: bool = False
    """Whether a name may keep whatever ending it has."""
