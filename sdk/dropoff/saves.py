"""A save as it travels: what is to be taken into custody, of which run, and what it makes of an artifact.

Names are bytes, as in the file system. Unknown fields are ignored, so an older daemon takes what a newer SDK sends.
"""

import enum
from typing import Annotated, Any

import msgspec

from dropoff.ids import JobId

# The newest format of a save; one that says nothing of artifacts is still of the first, so that any daemon takes it.
ARTIFACT_FORMAT, GROUP_FORMAT = 2, 3
SAVE_FORMAT = GROUP_FORMAT
PRIORITY_MOST = 1_000


class Category(enum.StrEnum):
    """What part a saved thing plays in its run."""

    CODE = "code"
    INPUT = "input"
    OUTPUT = "output"


class Keep(enum.StrEnum):
    """Whether a newer save of the same name replaces one that is not delivered yet."""

    ALL = "all"
    NEWEST = "newest"


class Kind(enum.StrEnum):
    """What was saved."""

    FILE = "file"
    DIRECTORY = "directory"
    VERSION = "version"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a save belongs to; travels with each save, so that no call has to come first."""

    project: str
    name: str
    store: str
    created_at: float
    host: str
    user: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What `fstat` says of a file's content: it changes when the content may have changed."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a save is one addition to an artifact: the `position`-th step of making `draft`."""

    draft: str
    artifact: str
    position: int
    overwrite: bool = False


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A step of making an artifact: the file of this path, or all below it, is taken out again."""

    position: int
    path: bytes


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """A step of making an artifact: under this path stands something that lies elsewhere and is not stored.

    With `objects_max` it is a prefix, and below the path stands each object that it has, of no more than so many.
    """

    position: int
    path: bytes
    uri: str
    overwrite: bool = False
    objects_max: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a version has several writers: this save contributes to it, or brings it all together (`finish`).

    `writer` tells the contributions apart; of one writer the later counts. `writers` is how many there have to be.
    """

    name: str
    writer: str = ""
    finish: bool = False
    writers: int = 0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a save makes a version of an artifact out of all `steps` of `draft`.

    The steps not listed here are parts, which are in custody already.
    """

    draft: str
    type: str
    steps: int
    aliases: tuple[str, ...] = ()
    ttl_seconds: float | None = None
    removals: tuple[Removal, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    group: Group | None = None


class Save(msgspec.Struct, frozen=True, kw_only=True, tag="save"):
    """Take this file or directory into custody; its descriptor travels beside the message.

    With `version` it is the version that makes a draft's parts visible, and has no descriptor.
    """

    job: JobId
    run: RunInfo
    kind: Kind
    name: bytes
    category: Category
    source: bytes
    created_at: float
    format: int = 1
    content_type: str | None = None
    prefix: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    priority: Annotated[int, msgspec.Meta(ge=-PRIORITY_MOST, le=PRIORITY_MOST)] = 0
    keep: Keep = Keep.ALL
    part: Part | None = None
    version: Version | None = None
    serializer: str = ""
