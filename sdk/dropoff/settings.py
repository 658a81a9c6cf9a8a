"""Settings: one table, read alike by the SDK, the command line and the daemon.

From weakest to strongest: the defaults below, a TOML file (`$DROPOFF_CONFIG`, else
`$XDG_CONFIG_HOME/dropoff/config.toml`), then one environment variable per key, `DROPOFF_<KEY>`.
A key nobody knows is refused with the nearest right one: a misspelled limit must not mean "no limit".
"""

import enum
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import msgspec

from dropoff.errors import SettingsError

_PREFIX = "DROPOFF_"
_CONFIG = "DROPOFF_CONFIG"
# A year: longer is a slip of the keyboard, and some clocks overflow.
_LONGEST_SECONDS = 366 * 86400
_SPAN = msgspec.Meta(ge=0, le=_LONGEST_SECONDS)
_SOME_TIME = msgspec.Meta(gt=0, le=_LONGEST_SECONDS)
_BYTE_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


class OnUnavailable(enum.StrEnum):
    """What a save does when no daemon takes the content."""

    COPY = "copy"
    LINK = "link"
    ERROR = "error"


class WhenFull(enum.StrEnum):
    """What a save does when the spool is full."""

    REFUSE = "refuse"
    WAIT = "wait"


def _setting(unit: str, description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"unit": unit})


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting; `docs` of each are its annotation, and the README's table is held against them."""

    store: Annotated[str, _setting("URL", "where artifacts go when `init` names no store")] = ""
    state_dir: Annotated[
        str, _setting("path", "the spool: jobs, content in custody, inbox; must be on a local disk")
    ] = ""
    allow_network_state: Annotated[
        bool, _setting("true, false", "use a state directory on a network file system all the same")
    ] = False
    runtime_dir: Annotated[str, _setting("path", "the daemon's socket")] = ""
    cache_dir: Annotated[str, _setting("path", "what can be fetched again")] = ""
    cache_max_bytes: Annotated[
        int,
        _setting("bytes", "how much of what was fetched the cache keeps; what was not used for longest goes"),
        msgspec.Meta(ge=0),
    ] = 50 * 2**30
    answer_deadline_seconds: Annotated[
        float,
        _setting("seconds", "how long a save waits for a silent daemon before it uses the inbox"),
        _SOME_TIME,
    ] = 0.1
    on_unavailable: Annotated[
        OnUnavailable,
        _setting(
            "copy, link, error",
            "without a daemon: copy (or reflink) the content, hard-link it (unsafe if it is mapped), or raise",
        ),
    ] = OnUnavailable.COPY
    spool_quota_bytes: Annotated[
        int, _setting("bytes", "how much content may be in custody at once"), msgspec.Meta(ge=0)
    ] = 200 * 2**30
    spool_floor_bytes: Annotated[
        int, _setting("bytes", "free space that custody never uses on the spool's disk"), msgspec.Meta(ge=0)
    ] = 2 * 2**30
    when_full: Annotated[
        WhenFull, _setting("refuse, wait", "a save that does not fit is refused at once, or waits for space")
    ] = WhenFull.REFUSE
    when_full_timeout_seconds: Annotated[
        float,
        _setting("seconds", 'how long `when_full = "wait"` waits before it refuses'),
        _SPAN,
    ] = 60.0
    copy_after_seconds: Annotated[
        float,
        _setting("seconds", "how long content may rest on a lease before it is copied in the background"),
        _SPAN,
    ] = 10.0
    leases_max: Annotated[
        int,
        _setting("count", "files held by lease at once; further ones are copied before the save returns"),
        msgspec.Meta(ge=0),
    ] = 1024
    link_dir: Annotated[
        str,
        _setting("path", "where hard links go for files outside the spool's file system; empty: found by itself"),
    ] = ""
    transfers_max: Annotated[int, _setting("count", "jobs delivered at once to each store"), msgspec.Meta(ge=1)] = 4
    in_flight_max: Annotated[
        int,
        _setting("count", "files and parts on their way to a store at once; how many up to that is found by trying"),
        msgspec.Meta(ge=1, le=1024),
    ] = 16
    bandwidth: Annotated[
        str,
        _setting("bytes per second", "how fast bytes go out, by the hour: `08:00-19:00 10MB/s, sat-sun unlimited`"),
    ] = "unlimited"
    requests_per_second: Annotated[
        float, _setting("count per second", "requests to each store; 0: as many as it takes"), msgspec.Meta(ge=0)
    ] = 0.0
    retry_first_seconds: Annotated[
        float,
        _setting("seconds", "the first pause after a failed delivery; doubles each time"),
        _SOME_TIME,
    ] = 2.0
    retry_most_seconds: Annotated[
        float,
        _setting("seconds", "the longest pause between two tries of a delivery"),
        _SOME_TIME,
    ] = 3600.0
    unlogged_keep_seconds: Annotated[
        float, _setting("seconds", "how long additions to an artifact wait for it to be logged"), _SOME_TIME
    ] = 604800.0
    retention: Annotated[
        str,
        _setting(
            "rules",
            "which versions `dropoff prune` keeps: `cv/ckpt-*: newest 5, highest 3 by acc; */tmp-*: unexpired`",
        ),
    ] = ""
    tidy_every_seconds: Annotated[
        float,
        _setting("seconds", "how often the daemon prunes and collects garbage in `store` by itself; 0: never"),
        _SPAN,
    ] = 0.0
    allow_private_references: Annotated[
        bool, _setting("true, false", "look at references to addresses that are not public, such as a lab's own")
    ] = False
    history_jobs: Annotated[
        int, _setting("count", "finished jobs, with their receipts, that the spool remembers"), msgspec.Meta(ge=0)
    ] = 100_000
    stop_timeout_seconds: Annotated[float, _setting("seconds", "how long an orderly stop may take"), _SOME_TIME] = 8.0

    @property
    def inbox_dir(self) -> str:
        """Where saves go while no daemon answers."""
        return os.path.join(self.state_dir, "inbox")


SOCKET_NAME = "daemon.sock"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; raises SettingsError for unknown keys, wrong types and values out of range."""
    env = os.environ if environ is None else environ
    explicit = env.get(_CONFIG)
    path = explicit or os.path.join(_xdg(env, "XDG_CONFIG_HOME", ".config"), "dropoff", "config.toml")
    values = _from_file(path, required=bool(explicit))
    _check_keys(values, path)
    values |= _from_environment(env)
    for key in values.keys() & {"store", "state_dir", "runtime_dir", "cache_dir", "link_dir"}:
        values[key] = _expand(key, values[key])
    try:
        settings = msgspec.convert(_with_bytes(values), Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"unable to read the settings: {error}", hint=f"see the README's table of settings; file: {path}"
        ) from None
    return msgspec.structs.replace(settings, **_default_paths(env, settings))


def _from_file(path: str, *, required: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
    except FileNotFoundError:
        if required:
            raise SettingsError(
                f"unable to read {path}: no such file", hint=f"unset {_CONFIG} or create the file"
            ) from None
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"unable to read {path}: {error}", hint="it must be a readable TOML file") from None
    import tomllib  # noqa: PLC0415  # 6 ms of every import of the SDK, needed only with a file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"unable to read {path}: {error}", hint="it must be a TOML file") from None


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    named = {
        key.removeprefix(_PREFIX).lower(): value
        for key, value in env.items()
        if key.startswith(_PREFIX) and key != _CONFIG
    }
    _check_keys(named, "the environment", prefix=_PREFIX)
    return named


def _check_keys(values: Mapping[str, Any], place: str, prefix: str = "") -> None:
    unknown = sorted(values.keys() - set(Settings.__struct_fields__))
    if not unknown:
        return
    import difflib  # noqa: PLC0415  # needed only to word this error

    near = difflib.get_close_matches(unknown[0], Settings.__struct_fields__, n=1)
    shown = [prefix + key.upper() if prefix else key for key in (unknown[0], *near)]
    raise SettingsError(
        f"unable to use setting {shown[0]!r} in {place}: there is no such setting",
        hint=f"did you mean {shown[1]!r}?" if near else "see the README's table of settings",
    )


def _with_bytes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: parse_bytes(value) if key.endswith("_bytes") and isinstance(value, str) else value
        for key, value in values.items()
    }


def parse_bytes(text: str) -> int:
    """Return the number of bytes that `text` names, such as "50 GiB", "8MB" or "1024"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _BYTE_UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise SettingsError(
            f"unable to read {text!r} as a size", hint='write it as "50GiB", "8MB" or a number of bytes'
        )
    try:
        return int((float(match[1]) if "." in match[1] else int(match[1])) * unit)
    except (OverflowError, ValueError):  # infinity, or more digits than Python converts
        raise SettingsError(
            f"unable to use {text!r} as a size: it is too large", hint="write a smaller one"
        ) from None


def directory_url(path: str) -> str:
    """Return the URL of a directory as a store."""
    return "file://" + quote(path)


def store_url(store: str) -> str:
    """Return a store as a URL: as it is, or that of a directory."""
    return store if "://" in store else directory_url(os.path.abspath(os.path.expanduser(store)))


def _expand(key: str, value: Any) -> Any:
    if not isinstance(value, str) or not value or (key == "store" and "://" in value):
        return value
    return os.path.abspath(os.path.expanduser(value))


def _default_paths(env: Mapping[str, str], settings: Settings) -> dict[str, str]:
    runtime = env.get("XDG_RUNTIME_DIR")
    data = os.path.join(_xdg(env, "XDG_DATA_HOME", ".local/share"), "dropoff", "store")
    return {
        "store": settings.store or directory_url(data),
        "state_dir": settings.state_dir or os.path.join(_xdg(env, "XDG_STATE_HOME", ".local/state"), "dropoff"),
        # Batch jobs often have no XDG_RUNTIME_DIR; a directory of one's own in /tmp, checked before each
        # use, is what is left.
        "runtime_dir": settings.runtime_dir
        or (os.path.join(runtime, "dropoff") if runtime else f"/tmp/dropoff-{os.geteuid()}"),  # noqa: S108
        "cache_dir": settings.cache_dir or os.path.join(_xdg(env, "XDG_CACHE_HOME", ".cache"), "dropoff"),
    }


def _xdg(env: Mapping[str, str], variable: str, fallback: str) -> str:
    return env.get(variable) or os.path.join(env.get("HOME") or os.path.expanduser("~"), fallback)
