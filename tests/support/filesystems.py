"""File systems of our own: ext4, XFS and btrfs in image files, and a tmpfs, mounted for as long as they are needed.

Images are sparse, so their size costs nothing. Loop devices are set up and detached by word, never by `mount -o
loop`, which leaves the detaching to a moment nobody controls.
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

KINDS = ("ext4", "xfs", "btrfs", "tmpfs")
REFLINKS = frozenset({"xfs", "btrfs"})

_SIZE_BYTES = 2 << 30
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_UNMOUNT_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
# FS_IOC_SHUTDOWN, and FSOP_GOING_FLAGS_NOLOGFLUSH: nothing more reaches the device, the journal's memory included.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)


class UnavailableError(Exception):
    """This machine cannot mount such a file system, for the reason given."""


class FileSystem:
    """One mounted file system, at `path`."""

    def __init__(self, kind: str, home: Path, size_bytes: int = _SIZE_BYTES) -> None:
        """Make and mount it below `home`; raises UnavailableError."""
        self.kind = kind
        self.path = home / kind
        self._image = home / f"{kind}.image"
        self._device = ""
        objection = _objection(kind)
        if objection:
            raise UnavailableError(objection)
        self.path.mkdir(parents=True)
        try:
            if kind != "tmpfs":
                with self._image.open("xb") as file:
                    file.truncate(size_bytes)
                _run(*_MAKE[kind], str(self._image))
                self._attach()
            self.mount()
        except subprocess.CalledProcessError as error:
            self._remove()
            raise UnavailableError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error

    def mount(self) -> None:
        """Mount it, as after `unmount`."""
        if self.kind == "tmpfs":
            _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES}", "dropoff-test", str(self.path))
        else:
            _run("mount", "-t", self.kind, self._device, str(self.path))

    def unmount(self) -> None:
        """Unmount it, as soon as killed processes have let go of it."""
        _when_free(lambda: _run("umount", str(self.path)))

    def shut_down(self) -> None:
        """Cut the power: what is not durable at this moment is gone (ext4 and XFS only)."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def restore_power(self) -> None:
        """Mount what reached the device; under another device number, as a machine's next start may give it."""
        self.unmount()
        old = self._device
        self._attach()
        self._detach(old)
        self.mount()

    def clear(self) -> None:
        """Remove all that is on it."""
        for child in self.path.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()

    def close(self) -> None:
        """Leave nothing behind."""
        try:
            if os.path.ismount(self.path):
                self.unmount()
        finally:
            self._remove()

    def _attach(self) -> None:
        self._device = _run("losetup", "-f", "--show", str(self._image)).strip()

    def _detach(self, device: str) -> None:
        """Give a loop device back, and return when it is.

        Every private mount namespace made meanwhile has a copy of the mount, which keeps the file system alive, and
        with it the writes that were under way.
        """
        _when_free(lambda: _run("losetup", "-d", device))
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while f"{device}:" in _run("losetup", "-j", str(self._image)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"unable to detach {device}: a mount namespace of another process holds it")
            time.sleep(_PAUSE_SECONDS)

    def _remove(self) -> None:
        if self._device:
            self._detach(self._device)
        with contextlib.suppress(FileNotFoundError):
            self._image.unlink()


def _objection(kind: str) -> str:
    """Return why a file system of this kind cannot be mounted, as far as that shows beforehand."""
    if os.geteuid() != 0:
        return "only root can mount"
    if kind == "tmpfs":
        return ""
    if shutil.which(_MAKE[kind][0]) is None:
        return f"{_MAKE[kind][0]} is not installed"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    return ""


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr)
        raise


def _when_free(work: Callable[[], object]) -> None:
    """Do `work`, again while the kernel says that the thing is in use, up to a bound."""
    deadline = time.monotonic() + _UNMOUNT_SECONDS
    while True:
        try:
            work()
        except subprocess.CalledProcessError as error:
            if "busy" not in error.stderr or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
