"""Every key in a store is built here, from digests and percent-encoded names, never from raw input.

`docs/store-format.md` has the layout.
"""

import hashlib

from dropoff.messages import RunInfo, Save

# The characters that S3's user guide calls safe in keys, without "*", and "~" of RFC 3986's unreserved ones.
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()")
# Leaves room for `.json` and the like within a file system's 255.
_COMPONENT_MAX_BYTES = 240
_KEPT_BYTES = 120


def file_key(save: Save, path: bytes, sha256: str) -> str:
    """Return the key of one file's content: same content and same name make the same key."""
    directory, _, filename = path.rpartition(b"/")
    folders = [part for part in (save.prefix.encode() + b"/" + directory).split(b"/") if part]
    return "/".join(
        (
            component(save.run.project.encode()),
            "files",
            *map(component, folders),
            sha256[:32],
            component(filename),
        )
    )


def pack_key(save: Save, sha256: str) -> str:
    """Return the key of a pack of small files."""
    return f"{component(save.run.project.encode())}/packs/{sha256[:32]}.zip"


def run_key(run: RunInfo) -> str:
    """Return the key of a run's own record."""
    return f"{_run(run)}/run.json"


def record_key(save: Save) -> str:
    """Return the key of the record of one job."""
    return f"{_run(save.run)}/files/{save.job}.json"


def versions_prefix(project: str, artifact: str) -> str:
    """Return what the keys of all versions of an artifact begin with."""
    return f"{_artifact(project, artifact)}/versions/"


def version_key(project: str, artifact: str, number: int) -> str:
    """Return the key of a version's manifest; listed, versions come in the order of their numbers."""
    return f"{versions_prefix(project, artifact)}{number:06d}.json"


def version_number(key: str) -> int | None:
    """Return the number that a manifest's key tells, or None for another key."""
    stem, _, ending = key.rpartition("/")[2].partition(".")
    return int(stem) if ending == "json" and stem.isascii() and stem.isdecimal() else None


def alias_key(project: str, artifact: str, alias: str) -> str:
    """Return the key of an alias."""
    return f"{_artifact(project, artifact)}/aliases/{component(alias.encode())}.json"


def _artifact(project: str, artifact: str) -> str:
    return f"{component(project.encode())}/artifacts/{component(artifact.encode())}"


def _run(run: RunInfo) -> str:
    return f"{component(run.project.encode())}/runs/{component(run.name.encode())}"


def component(name: bytes) -> str:
    """Return `name` as one component of a key.

    Percent-encoded where a key could not hold it; where that makes it too long, its beginning and end around a
    digest of all of it: the record has the true name. A leading dot is encoded: it would be hidden in listings.
    """
    encoded = "".join(chr(b) if b in _SAFE else f"%{b:02X}" for b in name)
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) <= _COMPONENT_MAX_BYTES:
        return encoded
    digest = hashlib.sha256(name).hexdigest()[:32]
    return f"{_whole_escapes(encoded[:_KEPT_BYTES])}~{digest}~{encoded[-_KEPT_BYTES // 2 :].lstrip('%')}"


def _whole_escapes(text: str) -> str:
    cut = text.rfind("%", len(text) - 2)
    return text if cut < 0 else text[:cut]
