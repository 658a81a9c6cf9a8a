"""The inbox: how a job reaches custody when no daemon answers.

A deposit is a directory, `inbox/<job id>/`, with the job's record and its content. It is made under a
temporary name, synced, renamed and its parent synced, so it is there whole or not at all, also after a power
cut. It names nothing outside itself: the state directory may be carried to another machine. The daemon
takes deposits in when it is back; the job id is the one the socket would have carried, so a lost answer never
makes two jobs.
"""

import fcntl
import os
import shutil
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from dropoff.content import (
    Capture,
    Content,
    copy_frozen,
    payload_name,
    payload_place,
    reflink,
    stamp,
)
from dropoff.errors import DropoffError, ProtocolError, SpoolFullError
from dropoff.ids import is_job_id
from dropoff.messages import decoded
from dropoff.packing import new_file
from dropoff.saves import Kind, Save, Stamp
from dropoff.settings import OnUnavailable, Settings
from dropoff.snapshot import snapshot

_MAGIC = b"dropoff deposit 1\n"
_CHECKSUM = struct.Struct("!I")
_RECORD = "record"
_UNFINISHED = "unfinished-"
# Between making the directory and locking it lies a moment in which it looks abandoned.
_ABANDONED_SECONDS = 60.0


class Deposit(msgspec.Struct, frozen=True, kw_only=True):
    """What a deposit's record holds."""

    save: Save
    contents: tuple[Content, ...]
    skipped: tuple[str, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Deposit)


def deposit(settings: Settings, save: Save, source: int | None) -> Deposit:
    """Put the job and the content of the open file or directory `source`, if it has one, into the inbox, durably.

    Raises SpoolFullError when the disk has less free space than the floor allows.
    """
    try:
        return _deposit(settings, save, source)
    except OSError as error:
        raise DropoffError(
            f"unable to put {save.job} into the inbox {settings.inbox_dir}: {error.strerror}",
            hint="free some space or set DROPOFF_STATE_DIR to a directory that can be written",
        ) from error


def _deposit(settings: Settings, save: Save, source: int | None) -> Deposit:
    for private in (settings.state_dir, settings.inbox_dir):
        os.makedirs(os.path.dirname(private), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(private, 0o700)
    unfinished = os.path.join(settings.inbox_dir, _UNFINISHED + save.job)
    with _opened(settings.inbox_dir) as inbox, _made(unfinished, inbox) as home:
        room = _room(settings)
        if source is None:
            made = Deposit(save=save, contents=())
        elif save.kind is Kind.DIRECTORY:
            made = _directory(settings, save, source, home, room)
        else:
            room(os.fstat(source).st_size)
            made = Deposit(save=save, contents=(_keep(settings, save, home)(source, 1, save.name),))
        _write_record(home, made)
        os.fsync(home)
        os.rename(unfinished, os.path.join(settings.inbox_dir, save.job))
        os.fsync(inbox)
    return made


def deposits(inbox_dir: str) -> list[str]:
    """Return the job ids of the finished deposits, oldest first."""
    try:
        return sorted(name for name in os.listdir(inbox_dir) if is_job_id(name))
    except FileNotFoundError:
        return []


def abandoned(inbox_dir: str) -> list[str]:
    """Return the paths of unfinished deposits whose makers are dead."""
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir(inbox_dir):
            path = os.path.join(inbox_dir, name)
            if name.startswith(_UNFINISHED) and time.time() - os.stat(path).st_mtime > _ABANDONED_SECONDS:
                with _opened(path) as fd, suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.append(path)
    return found


def read_deposit(directory: str) -> Deposit:
    """Read a deposit's record; raises ProtocolError if it is damaged or of an unknown format."""
    fd = os.open(os.path.join(directory, _RECORD), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ProtocolError(f"unable to read the deposit {directory}: its record is not a file")
        magic, checksum, body = file.read(len(_MAGIC)), file.read(_CHECKSUM.size), file.read()
    if magic != _MAGIC or checksum != _CHECKSUM.pack(zlib.crc32(body)):
        raise ProtocolError(f"unable to read the deposit {directory}: its record is damaged")
    return decoded(_decoder, body)


def discard(directory: str) -> None:
    """Remove a deposit that has been taken into custody, or one that was never finished."""
    inbox, name = os.path.split(directory)
    # At one stroke it is no deposit any more: half removed it would look like a damaged one.
    going = os.path.join(inbox, f"{_UNFINISHED}{name}.{os.getpid()}")
    os.rename(directory, going)
    shutil.rmtree(going)


def _directory(settings: Settings, save: Save, source: int, home: int, room: Callable[[int], None]) -> Deposit:
    contents, skipped = snapshot(
        source,
        home,
        payload_name(save.job, 0),
        payload_place(save.job, 0),
        _keep(settings, save, home),
        room,
    )
    return Deposit(save=save, contents=tuple(contents), skipped=tuple(skipped))


def _keep(settings: Settings, save: Save, home: int) -> Callable[[int, int, bytes], Content]:
    def keep(source: int, ordinal: int, path: bytes) -> Content:
        name = payload_name(save.job, ordinal)
        found = os.fstat(source)
        if settings.on_unavailable is OnUnavailable.LINK and _link(source, home, name):
            capture, kept = Capture.LINK, stamp(source)
        else:
            capture, kept = _duplicate(source, home, name, path)
        return Content(
            ordinal=ordinal,
            path=path,
            size_bytes=kept.size_bytes,
            mode=found.st_mode & 0o777,
            mtime_ns=found.st_mtime_ns,
            capture=capture,
            place=payload_place(save.job, ordinal),
            stamp=kept,
        )

    return keep


def _duplicate(source: int, home: int, name: str, path: bytes) -> tuple[Capture, Stamp]:
    target = new_file(home, name)
    try:
        capture = Capture.REFLINK
        if not reflink(source, target):
            capture = Capture.COPY
            copy_frozen(source, target, path)
        os.fsync(target)
        return capture, stamp(target)
    finally:
        os.close(target)


def _link(source: int, home: int, name: str) -> bool:
    try:
        # A src_dir_fd, any, makes Python call linkat with AT_SYMLINK_FOLLOW; without it this is EXDEV.
        os.link(f"/proc/self/fd/{source}", name, src_dir_fd=home, dst_dir_fd=home)
    except OSError:
        return False
    return True


def _write_record(home: int, made: Deposit) -> None:
    body = _encode(made)
    fd = new_file(home, _RECORD)
    with os.fdopen(fd, "wb") as file:
        file.write(_MAGIC + _CHECKSUM.pack(zlib.crc32(body)) + body)
        file.flush()
        os.fsync(fd)


def _room(settings: Settings) -> Callable[[int], None]:
    found = os.statvfs(settings.inbox_dir)
    free = found.f_bavail * found.f_frsize - settings.spool_floor_bytes

    def take(size: int) -> None:
        nonlocal free
        free -= size
        if free < 0:
            raise SpoolFullError(
                f"unable to keep {size} more bytes in {settings.inbox_dir}: its disk would have less than "
                f"{settings.spool_floor_bytes} bytes free",
                hint="start the daemon so that it delivers, free space, or lower spool_floor_bytes",
            )

    return take


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _made(path: str, inbox: int) -> Iterator[int]:
    """Make a directory that is removed again unless it was renamed away by the end."""
    os.mkdir(os.path.basename(path), 0o700, dir_fd=inbox)
    try:
        with _opened(path) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)  # tells the daemon that somebody still works on it
            yield fd
    finally:
        shutil.rmtree(path, ignore_errors=True)
