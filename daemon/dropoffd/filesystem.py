"""What a path is on, and what is done to it by more than one call: types of file systems, space, privacy, syncs."""

import ctypes
import os

_STATFS_BYTES = 256  # struct statfs is 120 bytes on 64-bit Linux; its first word is the type

NETWORK = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x65735546: "FUSE",
    0x01021997: "9p",
    0x0BD00BD0: "Lustre",
    0x00C36400: "Ceph",
    0x47504653: "GPFS",
    0x5346414F: "AFS",
    0x19830326: "BeeGFS",
    0xAAD7AAEA: "PanFS",
}


def network_type(path: str) -> str | None:
    """Return the name of the network (or user-space) file system that holds `path`, or None for a local one.

    By statfs(2): Python's `statvfs` does not tell the type.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    magic = ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
    return NETWORK.get(magic)


def free_bytes(path: str | int) -> int:
    """Return the bytes that this user may still write on the disk of `path`, or of an open file."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def private_directory(path: str) -> None:
    """Make `path` a directory that only this user can enter, or raise OSError.

    It may lie in a place that others can write, such as /tmp, so what is found there is not trusted: a link,
    somebody else's directory or one open to others is refused (PermissionError), not repaired.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if found.st_mode & 0o170077 != 0o040000 or found.st_uid != os.geteuid():
            raise PermissionError(1, "not a directory of this user alone (0700)", path) from None


def sync(path: str) -> None:
    """Sync one file or directory; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
