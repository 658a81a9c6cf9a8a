"""Who the daemon is to a store: the chain of AWS's own library, held against files, commands and the environment."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dropoffd.stores.base import DeniedError
from dropoffd.stores.s3 import credentials
from dropoffd.stores.s3.credentials import Chain
from dropoffd.stores.s3.sign import Credentials

pytestmark = pytest.mark.anyio

Give = Callable[..., Credentials]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home with nothing in it, in an environment that names nobody and asks no machine."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "DEFAULT_PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("WEB_IDENTITY_TOKEN_FILE", "CONTAINER_CREDENTIALS_RELATIVE_URI", "CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.fixture
def give(home: Path) -> Give:
    """Return what lets profile `lab` have other keys from now on, good for so many seconds (None: for ever)."""
    given = home / "given.json"
    (home / "config").write_text(f"[profile lab]\ncredential_process = cat {given}\n")

    def made(name: str, seconds: float | None = None) -> Credentials:
        keys = {"Version": 1, "AccessKeyId": f"KEY{name}", "SecretAccessKey": f"secret {name}", "SessionToken": name}
        end = None
        if seconds is not None:
            end = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)
            keys["Expiration"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
        given.write_text(json.dumps(keys))
        return Credentials(f"KEY{name}", f"secret {name}", name, end.timestamp() if end else None)

    return made


async def test_keys_in_the_environment_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual chain takes keys and token from the environment first."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert await credentials.source("").get() == Credentials("KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert await credentials.source("").get() == Credentials("KEY", "secret", "token")


async def test_keys_of_a_profile_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that the store's URL names is taken although the environment and the default name others."""
    (home / "credentials").write_text(
        "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = one\n"
        "[lab]\naws_access_key_id = LAB\naws_secret_access_key = two\naws_session_token = token\n"
    )
    assert await credentials.source("").get() == Credentials("DEFAULT", "one")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert await credentials.source("lab").get() == Credentials("LAB", "two", "token")


async def test_keys_are_kept_until_they_are_no_good(give: Give) -> None:
    """Credentials without an end are asked for once, and anew when a store has refused them."""
    source = Chain("lab")
    first = give("first")
    assert await source.get() == first
    second = give("second")
    assert await source.get() == first
    source.refresh()
    assert await source.get() == second


async def test_keys_that_end_are_replaced_in_time(give: Give) -> None:
    """Temporary credentials are asked for again shortly before they end, and not before."""
    source = Chain("lab")
    lasting = give("lasting", 3600)
    assert await source.get() == lasting
    ending = give("ending", 30)
    assert await source.get() == lasting
    source.refresh()
    assert await source.get() == ending
    after = give("after", 3600)
    assert await source.get() == after


@pytest.mark.parametrize("named", ["", "lab"])
async def test_without_any_a_person_is_told_what_to_do(named: str) -> None:
    """Where no credentials are the store is denied, and the hint says where they are looked for."""
    with pytest.raises(DeniedError, match="unable to find credentials") as denied:
        await credentials.source(named).get()
    assert named in denied.value.message
    assert all(way in denied.value.hint for way in ("aws configure", "AWS_ACCESS_KEY_ID", "credentials=anonymous"))


async def test_a_chain_that_had_none_is_asked_again(home: Path) -> None:
    """Credentials that a person adds later are found without a new daemon."""
    source = Chain("")
    with pytest.raises(DeniedError):
        await source.get()
    (home / "credentials").write_text("[default]\naws_access_key_id = KEY\naws_secret_access_key = secret\n")
    assert await source.get() == Credentials("KEY", "secret")


async def test_a_command_that_fails_is_told_of(home: Path) -> None:
    """A profile whose command does not give credentials denies the store, by its name."""
    (home / "config").write_text("[profile lab]\ncredential_process = false\n")
    with pytest.raises(DeniedError, match="of profile 'lab'"):
        await Chain("lab").get()


async def test_nobody_signs_nothing() -> None:
    """`anonymous` finds nobody, whoever the environment names, also when it is to look again."""
    source = credentials.source("anonymous")
    assert await source.get() is None
    source.refresh()
    assert await source.get() is None
