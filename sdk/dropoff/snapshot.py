"""Freeze a whole directory: small files into one pack, large ones each by themselves.

Used where the save is taken: by the daemon, and by the SDK when no daemon answers. Only how a large file is
kept differs, so that is an argument.
"""

import os
from collections.abc import Callable

from dropoff.content import SMALL_MAX_BYTES, Capture, Content, read_frozen, stamp
from dropoff.packing import PackWriter, new_file
from dropoff.walk import walk

# Captures the open large file under this ordinal and path.
KeepLarge = Callable[[int, int, bytes], Content]

SKIPPED_SHOWN = 100


def snapshot(
    root: int,
    home: int,
    pack_name: str,
    place: bytes,
    keep_large: KeepLarge,
    take: Callable[[int], None],
) -> tuple[list[Content], list[str]]:
    """Freeze every file below the open directory `root`; return its contents and what was passed over.

    The pack is made as `pack_name` in the open directory `home`, synced, and known as `place`; none is left
    if there are no small files. `take` is called with each file's size before it is read and may refuse by
    raising. On any error the pack is removed; large files already kept are the caller's.
    """
    skipped: list[str] = []
    fd = new_file(home, pack_name)
    try:
        contents = _freeze(root, PackWriter(fd), fd, place, keep_large, take, skipped)
        if contents and contents[0].capture is Capture.PACK:
            os.fdatasync(fd)
        else:
            os.unlink(pack_name, dir_fd=home)
    except BaseException:
        os.unlink(pack_name, dir_fd=home)
        raise
    finally:
        os.close(fd)
    if len(skipped) > SKIPPED_SHOWN:
        skipped[SKIPPED_SHOWN:] = [f"... and {len(skipped) - SKIPPED_SHOWN} more"]
    return contents, skipped


def _freeze(
    root: int,
    pack: PackWriter,
    fd: int,
    place: bytes,
    keep_large: KeepLarge,
    take: Callable[[int], None],
    skipped: list[str],
) -> list[Content]:
    contents: list[Content] = []
    for ordinal, (path, child) in enumerate(walk(root, skipped.append), start=1):
        size = os.fstat(child).st_size
        take(size)
        if size > SMALL_MAX_BYTES:
            contents.append(keep_large(child, ordinal, path))
            continue
        data, found = read_frozen(child, path)
        contents.append(
            Content(
                ordinal=ordinal,
                path=path,
                size_bytes=len(data),
                mode=found.st_mode & 0o777,
                mtime_ns=found.st_mtime_ns,
                capture=Capture.PACKED,
                place=place,
                offset=pack.add(path, data),
            )
        )
    if pack.members:
        size = pack.finish()
        whole = Content(
            ordinal=0, path=b"", size_bytes=size, mode=0o600, mtime_ns=0,
            capture=Capture.PACK, place=place, stamp=stamp(fd),
        )  # fmt: skip
        contents.insert(0, whole)
    return contents
