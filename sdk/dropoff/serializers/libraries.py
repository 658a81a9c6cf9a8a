"""Other people's libraries: what the user has imported is recognised, and nothing is imported to find that out.

An object of a library can only be there if its module is, so detection looks at `sys.modules` alone. What writes or
reads one imports it here, the only door.
"""

import importlib
import re
import sys
from typing import Any

from dropoff.errors import UsageError


def exactly(obj: object, module: str, name: str) -> bool:
    """Tell whether `obj` is of that very class: a subclass may hold more, and would come back as less."""
    return type(obj) is _class(module, name)


def is_a(obj: object, module: str, name: str) -> bool:
    """Tell whether `obj` is of that class or of a subclass."""
    kind = _class(module, name)
    return kind is not None and isinstance(obj, kind)


def _class(module: str, name: str) -> type | None:
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def library(module: str, at_least: tuple[int, ...] = ()) -> Any:
    """Import a library; raises UsageError if it is not there, or older than what is safe to read with."""
    name = module.split(".", maxsplit=1)[0]
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"unable to use {name}: {error}", hint=f"install {name} here") from error
    version = str(getattr(importlib.import_module(name), "__version__", ""))
    if tuple(int(number) for number in re.findall(r"\d+", version)[: len(at_least)]) < at_least:
        wanted = ".".join(map(str, at_least))
        raise UsageError(
            f"unable to read with {name} {version}: it can be made to run what it reads",
            hint=f"install {name} {wanted} or newer",
        )
    return found


def kind_of(obj: object) -> str:
    """Return what an object is, as people write it."""
    kind = type(obj)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
