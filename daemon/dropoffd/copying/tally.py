"""What a copy has done so far, and what it could not do."""

from collections.abc import Callable

import msgspec

# Of very much that went wrong only some is told; the counts tell of all.
_TOLD_MOST = 500


class Trouble(msgspec.Struct, frozen=True):
    """Something that was not copied, and why."""

    what: str
    cause: str


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a copy. `present` counts what the target had already, `removed` versions that were removed there.

    Objects are those that hold content.
    """

    source: str
    target: str
    project: str
    runs: int
    records: int
    versions: int
    links: int
    present: int
    removed: int
    objects: int
    objects_present: int
    copied_bytes: int
    conflicts: int
    conflicting: tuple[Trouble, ...]
    damaged: int
    damage: tuple[Trouble, ...]
    unknown: int
    """Objects below the prefixes that were copied which this version does not know; they were left out."""


class Tally:
    """Counts, and shows each change to whoever looks."""

    def __init__(self, show: Callable[["Tally"], None]) -> None:
        self._show = show
        self.runs = self.records = self.versions = self.links = self.present = self.removed = 0
        self.objects = self.objects_present = 0
        self.expected_bytes = self.copied_bytes = 0
        self.conflicts = self.damaged = self.unknown = 0
        self._conflicting: list[Trouble] = []
        self._damage: list[Trouble] = []
        self._fetched_bytes = self._sent_bytes = 0

    @property
    def moved_bytes(self) -> int:
        """How far it is on the way to `expected_bytes`: what was fetched and sent counts whole."""
        return (self._fetched_bytes + self._sent_bytes) // 2

    def expect(self, size: int) -> None:
        """Note that so many bytes are to be copied."""
        self.expected_bytes += size
        self._show(self)

    def fetched(self, size: int) -> None:
        """Note bytes that came from the source."""
        self._fetched_bytes += size
        self._show(self)

    def sent(self, size: int) -> None:
        """Note bytes that went to the target."""
        self._sent_bytes += size
        self._show(self)

    def copied(self, size: int) -> None:
        """Note that the target has one more object."""
        self.objects += 1
        self.copied_bytes += size
        self._show(self)

    def conflict(self, what: str, cause: str) -> None:
        """Note what the target has otherwise."""
        self.conflicts += 1
        if len(self._conflicting) < _TOLD_MOST:
            self._conflicting.append(Trouble(what, cause))

    def damage(self, what: str, cause: str) -> None:
        """Note what the source has not as it should be."""
        self.damaged += 1
        if len(self._damage) < _TOLD_MOST:
            self._damage.append(Trouble(what, cause))

    def outcome(self, source: str, target: str, project: str) -> Copied:
        """Return all of it."""
        return Copied(
            source=source, target=target, project=project, runs=self.runs, records=self.records,
            versions=self.versions, links=self.links, present=self.present, removed=self.removed,
            objects=self.objects, objects_present=self.objects_present, copied_bytes=self.copied_bytes,
            conflicts=self.conflicts, conflicting=tuple(self._conflicting), damaged=self.damaged,
            damage=tuple(self._damage), unknown=self.unknown,
        )  # fmt: skip
