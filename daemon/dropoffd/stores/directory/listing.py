"""What a directory store lists. Everything here blocks.

Objects come and go by `link`, `rename` and `unlink` alone, each of which sets the change time of the directory that
names them. So a directory whose change time is what it was, and was not just set, names what it named: its objects
need not be looked at one by one. Whatever cannot be read raises OSError: half a listing would let a collection
remove what the other half needs.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from time import time_ns

from dropoffd.stores.base import Folder, Stat

INCOMING = ".incoming"
"""Where what is being written is, which is no object yet."""

# A later change may have the same change time, as long as the clock that sets it has not moved on: FAT's by 2 s.
_SETTLED_SECONDS = 5.0


def listed(root: str, prefix: str) -> list[Stat]:
    """Return every object whose key begins with `prefix`, in the order of keys."""
    found: list[Stat] = []
    todo = [_folder_of(prefix)] if _stays_below(prefix) else []
    while todo:
        folder = todo.pop()
        objects, below = _level(root, folder, lambda key: key.startswith(prefix))
        found += objects
        todo += [one for one in below if one.startswith(prefix)]
    return sorted(found, key=_key)


def folders(root: str, prefix: str) -> list[str]:
    """Return the beginnings of keys from `prefix` to the next '/', in order."""
    above = _folder_of(prefix)
    if not _stays_below(prefix):
        return []
    with _entries(root, above) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and entry.name != INCOMING]
    return sorted(folder for name in names if (folder := f"{above}{name}/").startswith(prefix))


def changes(root: str, prefix: str, known: Mapping[str, str]) -> list[Folder]:
    """Return each folder at and below `prefix`: without its objects where `known` has its etag."""
    below_known: dict[str, list[str]] = {}
    for folder in known:
        below_known.setdefault(_folder_of(folder[:-1]), []).append(folder)
    settled_ns = time_ns() - int(_SETTLED_SECONDS * 1e9)
    found: list[Folder] = []
    todo = [prefix] if _stays_below(prefix) else []
    while todo:
        folder = todo.pop()
        try:
            status = os.stat(os.path.join(root, folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        state = f"{status.st_ino:x}-{status.st_ctime_ns:x}"
        if known.get(folder) == state:
            found.append(Folder(prefix=folder, etag=state, objects=None))
            todo += below_known.get(folder, ())
        else:
            objects, below = _level(root, folder, lambda _key: True)
            settled = status.st_ctime_ns < settled_ns
            found.append(Folder(prefix=folder, etag=state if settled else "", objects=tuple(objects)))
            todo += below
    return found


def told(key: str, status: os.stat_result) -> Stat:
    """Return what is told of an object without a look at its bytes."""
    return Stat(key=key, size_bytes=status.st_size, etag=etag(status), modified_at=status.st_mtime)


def etag(status: os.stat_result) -> str:
    """Return what is another for every object that was ever under a key."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _level(root: str, folder: str, wanted: Callable[[str], bool]) -> tuple[list[Stat], list[str]]:
    """Return the wanted objects right below a folder, and the folders."""
    objects, below = [], []
    with _entries(root, folder) as entries:
        for entry in entries:
            key = folder + entry.name
            if entry.is_dir():  # or a link to one, which reads follow, too
                if key != INCOMING:
                    below.append(f"{key}/")
            elif wanted(key):
                try:
                    objects.append(told(key, entry.stat()))
                except FileNotFoundError:  # deleted since it was named
                    continue
    return objects, below


@contextlib.contextmanager
def _entries(root: str, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Give what is in a folder; nothing where there is none."""
    try:
        entries = os.scandir(os.path.join(root, folder))
    except (FileNotFoundError, NotADirectoryError):
        yield iter(())
        return
    with entries:
        yield entries


def _stays_below(prefix: str) -> bool:
    return not prefix.startswith("/") and ".." not in prefix.split("/")


def _folder_of(key: str) -> str:
    above, slash, _ = key.rpartition("/")
    return above + slash


def _key(stat: Stat) -> str:
    return stat.key
