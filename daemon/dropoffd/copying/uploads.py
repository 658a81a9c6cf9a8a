"""Which parts of a large object the target has, in a file for each: whoever comes again sends the others.

A line for each fact, in the order in which they happened. A last line that a crash cut off does not count, nor does
one that is lost in a power cut do harm: the store is asked for its parts, too.
"""

import contextlib
import hashlib
import os
from functools import partial

import anyio.to_thread
import msgspec

from dropoffd.custody import UploadBegun
from dropoffd.fetch.incoming import Incoming
from dropoffd.stores.base import Part

_LINES_MAX_BYTES = 16 << 20


class _Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    begun: UploadBegun | None = None
    part: Part | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Fact).decode


def upload_number(store: str, key: str) -> int:
    """Return what tells the uploads of one process from those of another that copies something else."""
    return int(hashlib.sha256(f"{store} {key}".encode()).hexdigest()[:15], 16)


class UploadNotes:
    """The facts of uploads as `transfer.parts` wants them, as files in `incoming`."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    async def upload_begun(self, seq: int, ordinal: int, upload: UploadBegun) -> None:
        """Record that an upload in parts is being begun, or was; what was known before counts no more."""
        await anyio.to_thread.run_sync(partial(self._write, seq, ordinal, _Fact(begun=upload), anew=True))

    async def upload(self, seq: int, ordinal: int) -> UploadBegun | None:
        """Return the upload that was begun, if any."""
        facts = await anyio.to_thread.run_sync(self._read, seq, ordinal)
        return facts[0].begun if facts else None

    async def part_stored(self, seq: int, ordinal: int, part: Part) -> None:
        """Record that the store confirmed a part."""
        await anyio.to_thread.run_sync(partial(self._write, seq, ordinal, _Fact(part=part), anew=False))

    async def parts(self, seq: int, ordinal: int) -> list[Part]:
        """Return the parts that the store confirmed."""
        facts = await anyio.to_thread.run_sync(self._read, seq, ordinal)
        return [fact.part for fact in facts if fact.part is not None]

    async def forget_upload(self, seq: int, ordinal: int) -> None:
        """Forget an upload that is gone."""
        await anyio.to_thread.run_sync(self._incoming.discard, _name(seq, ordinal))

    def _write(self, seq: int, ordinal: int, fact: _Fact, *, anew: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
        fd = os.open(_name(seq, ordinal), flags, 0o600, dir_fd=self._incoming.fd)
        try:
            os.write(fd, _encode(fact) + b"\n")
        finally:
            os.close(fd)

    def _read(self, seq: int, ordinal: int) -> list[_Fact]:
        try:
            fd = os.open(_name(seq, ordinal), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._incoming.fd)
        except FileNotFoundError:
            return []
        try:
            lines = os.pread(fd, _LINES_MAX_BYTES, 0).split(b"\n")[:-1]
        finally:
            os.close(fd)
        facts: list[_Fact] = []
        with contextlib.suppress(msgspec.DecodeError):  # what comes after is not believed either
            for line in lines:
                facts.append(_decode(line))  # noqa: PERF401  # those before a line that is none are kept
        return facts if facts and facts[0].begun is not None else []


def _name(seq: int, ordinal: int) -> str:
    return f"{seq:x}-{ordinal}.upload"
