"""What belongs to whom in a store, and which objects hold the content of it: pure.

For stores that may be anybody's: a key is taken for one of ours only if it is one that `keys.py` builds, and what an
entry names only if it is content of the entry's own project.
"""

import enum
import re
from collections.abc import Iterable

import msgspec

from dropoff.names import printable
from dropoff.records import Entry
from dropoffd.catalogue import keys
from dropoffd.stores.base import CorruptError, Stat


class Kind(enum.Enum):
    """What lies under a key, below the prefix of a run or an artifact."""

    RUN = "the run's own record"
    RECORD = "what one save of the run stored"
    LINK = "which version the run made or used"
    MANIFEST = "a version of the artifact"
    REMOVED = "a version that was removed"
    ALIAS = "which version an alias stands for"
    STATE = "which state people said a version is in"
    USE = "which run used a version"
    GROUP = "what writers tell each other who make a version together in this store"


# As `keys.py` writes it: no number has two keys.
_NUMBER = r"(?:[0-9]{6}|[1-9][0-9]{6,17})"
_KINDS = {
    Kind.RUN: re.compile(r"run\.json"),
    Kind.RECORD: re.compile(r"files/[0-9a-f]{32}\.json"),
    Kind.LINK: re.compile(rf"(?:in|out)puts/{keys.COMPONENT}\.json"),
    Kind.MANIFEST: re.compile(rf"versions/{_NUMBER}\.json"),
    Kind.REMOVED: re.compile(rf"removed/{_NUMBER}\.json"),
    Kind.ALIAS: re.compile(rf"aliases/{keys.COMPONENT}\.json"),
    Kind.STATE: re.compile(rf"states/{_NUMBER}\.json"),
    Kind.USE: re.compile(rf"uses/{_NUMBER}/{keys.COMPONENT}\.json"),
    Kind.GROUP: re.compile(
        rf"parts/{keys.COMPONENT}/{keys.COMPONENT}/[0-9a-f]{{32}}\.json"
        rf"|groups/{keys.COMPONENT}/(?:closed/[0-9a-f]{{32}}|finished|done)\.json"
    ),
}
_NUMBERED = re.compile(rf"[a-z]+/({_NUMBER})[./]")
_OWNER = re.compile(rf"{keys.COMPONENT}/")


def kind_of(prefix: str, key: str) -> Kind | None:
    """Return what lies under a key below the prefix of its owner; None for what the format does not know."""
    return next((kind for kind, form in _KINDS.items() if form.fullmatch(key, len(prefix))), None)


def number_of(prefix: str, key: str) -> int:
    """Return of which version something tells that belongs to an artifact; -1 for what tells of none."""
    found = _NUMBERED.match(key, len(prefix))
    return int(found[1]) if found else -1


def is_owner(prefix: str, folder: str) -> bool:
    """Tell whether a folder, below the prefix of all runs or artifacts, may be that of one of them."""
    return _OWNER.fullmatch(folder, len(prefix)) is not None


class Holder(msgspec.Struct, frozen=True):
    """An object that holds content: a file, or a pack of files.

    Of a pack its key tells the beginning of the `sha256`, and what lies in it that it has `size_bytes` at least.
    """

    key: str
    sha256: str
    size_bytes: int
    packed: bool

    def is_in(self, found: Stat) -> bool:
        """Tell whether what a store has is it."""
        if self.packed:
            return found.size_bytes >= self.size_bytes and found.sha256.startswith(self.sha256)
        return (found.size_bytes, found.sha256) == (self.size_bytes, self.sha256)


def holders(project: str, entries: Iterable[Entry], name: str) -> list[Holder]:
    """Return the objects that hold what the entries of a record or manifest name.

    Raises CorruptError for a key that is not that of this content, or of another project.
    """
    found: dict[str, Holder] = {}
    for entry in entries:
        digits = keys.told_digest(project, entry.key)
        if digits is None or (entry.offset is None and not entry.sha256.startswith(digits)):
            raise CorruptError(
                f"unable to use {name}: {printable(entry.path)!r} is said to lie under {printable(entry.key)!r}",
                hint="that is no key of such content in this project; somebody made it by hand",
            )
        packed = entry.offset is not None
        size = entry.size + (entry.offset or 0)
        one = Holder(entry.key, digits if packed else entry.sha256, size, packed)
        other = found.setdefault(entry.key, one)
        if packed and other.packed:
            found[entry.key] = max(one, other, key=lambda holder: holder.size_bytes)
        elif one != other:
            raise CorruptError(f"unable to use {name}: it contradicts itself of {printable(entry.key)!r}")
    return list(found.values())
