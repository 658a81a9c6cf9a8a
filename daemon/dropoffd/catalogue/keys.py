"""Every key in a store is built here, from digests and percent-encoded names, never from raw input.

`docs/store-format.md` has the layout.
"""

import enum
import hashlib
import re
from urllib.parse import unquote

from dropoff.questions import Role
from dropoff.records import LinkRecord
from dropoff.saves import RunInfo, Save

# The characters that S3's user guide calls safe in keys, without "*", and "~" of RFC 3986's unreserved ones.
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!'()")
# Leaves room for `.json` and the like within a file system's 255.
_COMPONENT_MAX_BYTES = 240
_KEPT_BYTES = 120
COMPONENT = r"[A-Za-z0-9\-_~!'()%][A-Za-z0-9\-._~!'()%]*"
"""What a component of a key looks like."""
_CONTENT = re.compile(rf"files/(?:{COMPONENT}/)*([0-9a-f]{{32}})/{COMPONENT}|packs/([0-9a-f]{{32}})\.zip")


class Holds(enum.Enum):
    """What an object of the catalogue is."""

    RUN = enum.auto()
    RECORD = enum.auto()
    MANIFEST = enum.auto()
    REMOVED = enum.auto()
    CONTRIBUTION = enum.auto()
    ALIAS = enum.auto()
    STATE = enum.auto()


_SHELVES = {
    ("runs", "files"): Holds.RECORD,
    ("artifacts", "versions"): Holds.MANIFEST,
    ("artifacts", "removed"): Holds.REMOVED,
    ("artifacts", "aliases"): Holds.ALIAS,
    ("artifacts", "states"): Holds.STATE,
}


def holds(key: str) -> Holds | None:
    """Return what is under a key by its form, or None for what is not the catalogue's."""
    match key.split("/"):
        case [_, "runs", _, "run.json"]:
            return Holds.RUN
        case [_, "artifacts", _, "parts", _, _, _]:
            return Holds.CONTRIBUTION
        case [_, room, _, shelf, _]:
            return _SHELVES.get((room, shelf))
    return None


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


def told_digest(project: str, key: str) -> str | None:
    """Return the beginning of the sha256 that the key of a content tells, or None for a key that no content has."""
    prefix = project_prefix(project)
    found = _CONTENT.fullmatch(key, len(prefix)) if key.startswith(prefix) else None
    return (found[1] or found[2]) if found else None


def run_key(run: RunInfo) -> str:
    """Return the key of a run's own record."""
    return f"{run_prefix(run.project, run.name)}run.json"


def record_key(save: Save) -> str:
    """Return the key of the record of one job."""
    return f"{records_prefix(save.run.project, save.run.name)}{save.job}.json"


def project_prefix(project: str) -> str:
    """Return what the keys of all that belongs to a project begin with."""
    return f"{component(project.encode())}/"


def catalogue_prefixes(folder: str) -> tuple[str, str]:
    """Return what the keys of records and manifests begin with in a project's folder."""
    return f"{folder}artifacts/", f"{folder}runs/"


def content_prefixes(project: str) -> tuple[str, str]:
    """Return what the keys of a project's content begin with."""
    return f"{project_prefix(project)}files/", f"{project_prefix(project)}packs/"


def claims_prefix(project: str) -> str:
    """Return what the keys of all claims in a project begin with."""
    return f"{project_prefix(project)}claims/"


def claim_key(project: str, job: str) -> str:
    """Return the key of a delivery's claim."""
    return f"{claims_prefix(project)}{job}.json"


def sweeps_prefix(project: str) -> str:
    """Return what the keys of all sweeps in a project begin with."""
    return f"{project_prefix(project)}sweeps/"


def sweep_key(project: str, sweep: str) -> str:
    """Return the key that tells what a sweep is about to remove."""
    return f"{sweeps_prefix(project)}{sweep}.json"


def run_prefix(project: str, run: str) -> str:
    """Return what the keys of all that belongs to a run begin with."""
    return f"{component(project.encode())}/runs/{component(run.encode())}/"


def records_prefix(project: str, run: str) -> str:
    """Return what the keys of a run's records begin with; listed, they come in the order of the calls."""
    return f"{run_prefix(project, run)}files/"


def run_links_prefix(project: str, run: str, role: Role) -> str:
    """Return what the keys of the links from a run to its inputs or outputs begin with."""
    return f"{run_prefix(project, run)}{role}s/"


def version_links_prefix(project: str, artifact: str, number: int) -> str:
    """Return what the keys of the links from a version to the runs that use it begin with."""
    return f"{_artifact(project, artifact)}/uses/{number:06d}/"


def link_keys(link: LinkRecord) -> tuple[str, ...]:
    """Return the keys of a link: at the run, and of a use also at the version, whose manifest does not tell."""
    version = component(f"{link.project}/{link.artifact}:v{link.version}".encode())
    at_run = f"{run_links_prefix(link.run_project, link.run, link.role)}{version}.json"
    if link.role is Role.OUTPUT:
        return (at_run,)
    run = component(f"{link.run_project}/{link.run}".encode())
    return f"{version_links_prefix(link.project, link.artifact, link.version)}{run}.json", at_run


def artifact_prefix(project: str, artifact: str) -> str:
    """Return what the keys of all that belongs to an artifact begin with, but for its content."""
    return f"{_artifact(project, artifact)}/"


def versions_prefix(project: str, artifact: str) -> str:
    """Return what the keys of all versions of an artifact begin with."""
    return f"{_artifact(project, artifact)}/versions/"


def version_key(project: str, artifact: str, number: int) -> str:
    """Return the key of a version's manifest; listed, versions come in the order of their numbers."""
    return f"{versions_prefix(project, artifact)}{number:06d}.json"


def state_key(project: str, artifact: str, number: int) -> str:
    """Return the key that tells what state a version is in."""
    return f"{_artifact(project, artifact)}/states/{number:06d}.json"


def contributions_prefix(project: str, artifact: str, group: str) -> str:
    """Return what the keys of all contributions to a group begin with."""
    return f"{_artifact(project, artifact)}/parts/{component(group.encode())}/"


def contribution_key(project: str, artifact: str, group: str, writer: str, job: str) -> str:
    """Return the key of what a writer contributed to a group by one job."""
    return f"{contributions_prefix(project, artifact, group)}{component(writer.encode())}/{job}.json"


def closed_prefix(project: str, artifact: str, group: str) -> str:
    """Return what the keys begin with that tell that a group is being finished."""
    return f"{_artifact(project, artifact)}/groups/{component(group.encode())}/closed/"


def closed_key(project: str, artifact: str, group: str, job: str) -> str:
    """Return the key that tells that a job is finishing a group."""
    return f"{closed_prefix(project, artifact, group)}{job}.json"


def finished_key(project: str, artifact: str, group: str) -> str:
    """Return the key that tells what a group's version is made of."""
    return f"{_artifact(project, artifact)}/groups/{component(group.encode())}/finished.json"


def done_key(project: str, artifact: str, group: str) -> str:
    """Return the key that tells which version a group became."""
    return f"{_artifact(project, artifact)}/groups/{component(group.encode())}/done.json"


def removed_key(project: str, artifact: str, number: int) -> str:
    """Return the key of the manifest of a version that was removed."""
    return f"{_artifact(project, artifact)}/removed/{number:06d}.json"


def version_number(key: str) -> int | None:
    """Return the number that a manifest's key tells, or None for another key."""
    stem, _, ending = key.rpartition("/")[2].partition(".")
    return int(stem) if ending == "json" and stem.isascii() and stem.isdecimal() else None


def alias_key(project: str, artifact: str, alias: str) -> str:
    """Return the key of an alias."""
    return f"{_artifact(project, artifact)}/aliases/{component(alias.encode())}.json"


def alias_name(key: str) -> str:
    """Return the alias that a key stands for, as people write it."""
    return unquote(key.rpartition("/")[2].removesuffix(".json"))


def artifact_folder(key: str) -> str:
    """Return what the keys of all that belongs to an artifact begin with, from one of them."""
    return "/".join(key.split("/")[:3]) + "/"


def _artifact(project: str, artifact: str) -> str:
    return f"{component(project.encode())}/artifacts/{component(artifact.encode())}"


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
