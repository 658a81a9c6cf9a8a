"""Bring files and their names to the disk."""

import logging
import os
from collections.abc import Mapping
from typing import TypeVar

from dropoffd.filesystem import sync

_log = logging.getLogger(__name__)
Key = TypeVar("Key")


def sync_files(paths: Mapping[Key, str]) -> set[Key]:
    """Sync files, then, once each, the directories that name them; return the keys of those that are on disk now.

    What failed is not tried again: after a failed sync the next one may say yes to pages that are lost.
    """
    synced: dict[str, set[Key]] = {}
    for key, path in paths.items():
        if _synced(path):
            synced.setdefault(os.path.dirname(path), set()).add(key)
    return {key for directory, keys in synced.items() if _synced(directory) for key in keys}


def _synced(path: str) -> bool:
    try:
        sync(path)
    except FileNotFoundError:  # delivered and dropped before its turn came
        return False
    except OSError as error:
        _log.error("not synced path=%s cause=%s", path, error)
        return False
    return True
