"""Settings: where they come from, which wins, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from dropoff import SettingsError
from dropoff.settings import OnUnavailable, Settings, WhenFull, load, parse_bytes


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment of one's own, with a config file to come."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def write(environment: dict[str, str], text: str) -> Path:
    """Write the config file."""
    path = Path(environment["XDG_CONFIG_HOME"]) / "dropoff" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_source_the_defaults_hold(environment: dict[str, str], tmp_path: Path) -> None:
    """Every path has a place below the home directory, everything else its default."""
    settings = load(environment)
    assert settings.store == f"file://{tmp_path}/.local/share/dropoff/store"
    assert settings.state_dir == f"{tmp_path}/.local/state/dropoff"
    assert settings.inbox_dir == f"{tmp_path}/.local/state/dropoff/inbox"
    assert settings.cache_dir == f"{tmp_path}/.cache/dropoff"
    assert settings.runtime_dir == f"/tmp/dropoff-{os.geteuid()}"
    assert (settings.answer_deadline_seconds, settings.when_full) == (0.1, WhenFull.REFUSE)


def test_the_xdg_variables_are_honoured(environment: dict[str, str]) -> None:
    """Each directory follows its XDG variable."""
    environment |= {
        "XDG_STATE_HOME": "/s", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/r",
    }  # fmt: skip
    settings = load(environment)
    found = (settings.state_dir, settings.store, settings.cache_dir, settings.runtime_dir)
    assert found == ("/s/dropoff", "file:///d/dropoff/store", "/c/dropoff", "/r/dropoff")


def test_the_environment_wins_over_the_file_over_the_default(environment: dict[str, str]) -> None:
    """A key is taken from the strongest source that has it."""
    write(environment, "transfers_max = 7\nleases_max = 5\n")
    environment["DROPOFF_TRANSFERS_MAX"] = "9"
    settings = load(environment)
    assert (settings.transfers_max, settings.leases_max, settings.history_jobs) == (9, 5, 100_000)


def test_a_named_file_takes_the_place_of_the_usual_one(environment: dict[str, str], tmp_path: Path) -> None:
    """`DROPOFF_CONFIG` names the only file that is read."""
    write(environment, "transfers_max = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("leases_max = 5\n")
    settings = load(environment | {"DROPOFF_CONFIG": str(other)})
    assert (settings.transfers_max, settings.leases_max) == (4, 5)


def test_every_key_can_come_from_either_source(environment: dict[str, str]) -> None:
    """Each setting is read alike from the file and from its variable."""
    values: dict[str, Any] = {
        "store": "/data", "state_dir": "/s", "allow_network_state": True, "allow_private_references": True,
        "runtime_dir": "/r", "cache_dir": "/c",
        "answer_deadline_seconds": 0.5, "on_unavailable": "link", "spool_quota_bytes": 1, "spool_floor_bytes": 2,
        "when_full": "wait", "when_full_timeout_seconds": 3.5, "copy_after_seconds": 4.5, "leases_max": 5,
        "link_dir": "/l", "cache_max_bytes": 13, "transfers_max": 6, "in_flight_max": 11, "bandwidth": "1MB/s",
            "requests_per_second": 12.5,         "retry_first_seconds": 7.5, "retry_most_seconds": 8.5,
        "unlogged_keep_seconds": 20.5, "retention": "*/*: all",
            "tidy_every_seconds": 21.5, "history_jobs": 9, "stop_timeout_seconds": 10.5,
    }  # fmt: skip
    assert set(values) == set(Settings.__struct_fields__)
    by_environment = load(environment | {f"DROPOFF_{key.upper()}": str(v) for key, v in values.items()} | {
        "DROPOFF_ALLOW_NETWORK_STATE": "true", "DROPOFF_ALLOW_PRIVATE_REFERENCES": "true",
    })  # fmt: skip
    lines = [f"{key} = {'true' if v is True else repr(v)}" for key, v in values.items()]
    write(environment, "\n".join(lines))
    assert load(environment) == by_environment
    assert (by_environment.on_unavailable, by_environment.retry_most_seconds) == (OnUnavailable.LINK, 8.5)


@pytest.mark.parametrize(
    ("text", "count"),
    [("50GiB", 50 << 30), ("50 GiB", 50 << 30), ("8MB", 8_000_000), ("1024", 1024), ("0", 0), ("1.5KiB", 1536),
     ("2tib", 2 << 40), (" 7 B ", 7), ("9007199254740993", 9007199254740993)],
)  # fmt: skip
def test_sizes_have_units(environment: dict[str, str], text: str, count: int) -> None:
    """A size is a number of bytes, with or without a decimal or binary unit, exactly."""
    assert parse_bytes(text) == count
    assert load(environment | {"DROPOFF_SPOOL_QUOTA_BYTES": text}).spool_quota_bytes == count
    write(environment, f'spool_quota_bytes = "{text}"\n')
    assert load(environment).spool_quota_bytes == count


@pytest.mark.parametrize("text", ["", "GiB", "-5", "5XB", "5 Gi B", "1e3", "0x10", "1,5GB", "five", "\u0665GB\u0665"])
def test_what_is_no_size_is_refused(environment: dict[str, str], text: str) -> None:
    """Anything else raises SettingsError that shows how to write it."""
    with pytest.raises(SettingsError, match="unable to read") as caught:
        load(environment | {"DROPOFF_SPOOL_FLOOR_BYTES": text})
    assert "50GiB" in caught.value.hint


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("spool_quota", "spool_quota_bytes"), ("transfer_max", "transfers_max"), ("storre", "store"),
     ("answer_deadline_second", "answer_deadline_seconds")],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_nearest(environment: dict[str, str], wrong: str, right: str) -> None:
    """A misspelt key raises SettingsError that names the right one, as it is written in that source."""
    with pytest.raises(SettingsError, match=f"unable to use setting 'DROPOFF_{wrong.upper()}' in the env") as caught:
        load(environment | {f"DROPOFF_{wrong.upper()}": "1"})
    assert caught.value.hint == f"did you mean 'DROPOFF_{right.upper()}'?"
    path = write(environment, f"{wrong} = 1\n")
    with pytest.raises(SettingsError, match=f"unable to use setting '{wrong}' in {path}") as caught:
        load(environment)
    assert caught.value.hint == f"did you mean '{right}'?"


def test_a_key_like_no_other_is_refused_all_the_same(environment: dict[str, str]) -> None:
    """A key without a near one, or a table of TOML, raises SettingsError that names the README."""
    for text in ("xyzzy = 1\n", "[xyzzy]\nstore = 'a'\n"):
        write(environment, text)
        with pytest.raises(SettingsError, match="'xyzzy'") as caught:
            load(environment)
        assert "README" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [("TRANSFERS_MAX", "many"), ("TRANSFERS_MAX", "1.5"), ("TRANSFERS_MAX", "0"), ("TRANSFERS_MAX", "-1"),
     ("ANSWER_DEADLINE_SECONDS", "0"), ("ANSWER_DEADLINE_SECONDS", "-1"), ("ANSWER_DEADLINE_SECONDS", "soon"),
     ("ANSWER_DEADLINE_SECONDS", "nan"), ("ANSWER_DEADLINE_SECONDS", "inf"), ("ANSWER_DEADLINE_SECONDS", "1e300"),
     ("RETRY_FIRST_SECONDS", "nan"), ("COPY_AFTER_SECONDS", "-0.1"), ("ON_UNAVAILABLE", "panic"),
     ("WHEN_FULL", "REFUSE"), ("ALLOW_NETWORK_STATE", "perhaps"), ("LEASES_MAX", "")],
)  # fmt: skip
def test_wrong_values_are_refused(environment: dict[str, str], key: str, value: str) -> None:
    """A value of another type, out of range, or that no clock can wait for raises SettingsError with a hint."""
    with pytest.raises(SettingsError, match="unable to read the settings") as caught:
        load(environment | {f"DROPOFF_{key}": value})
    assert "README" in caught.value.hint


@pytest.mark.parametrize("text", ["transfers_max = '", "= 1", "store = 5", "leases_max = [1]", "store = true"])
def test_a_file_that_is_wrong_is_refused(environment: dict[str, str], text: str) -> None:
    """A file that is no TOML, or has values of other types, raises SettingsError that names the file."""
    path = write(environment, text)
    with pytest.raises(SettingsError, match="unable to read") as caught:
        load(environment)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """A named file that is missing, a directory, or no text raises SettingsError with a hint."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "", "binary"):
        with pytest.raises(SettingsError, match="unable to read") as caught:
            load(environment | {"DROPOFF_CONFIG": str(tmp_path / name)})
        assert caught.value.hint


def test_paths_are_absolute_and_know_the_home(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are taken from the working directory, `~` is the home, URLs stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = load(environment | {
        "DROPOFF_STATE_DIR": "state", "DROPOFF_CACHE_DIR": "~/cache", "DROPOFF_STORE": "s3://bucket/prefix",
        "DROPOFF_RUNTIME_DIR": "./a/../run",
    })  # fmt: skip
    assert (settings.state_dir, settings.cache_dir) == (f"{tmp_path}/state", f"{tmp_path}/home/cache")
    assert (settings.store, settings.runtime_dir) == ("s3://bucket/prefix", f"{tmp_path}/run")


def test_an_empty_path_is_the_default(environment: dict[str, str]) -> None:
    """A variable that is set to nothing names no path."""
    assert load(environment | {"DROPOFF_STATE_DIR": ""}) == load(environment)
