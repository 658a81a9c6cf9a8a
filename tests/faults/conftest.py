"""Fixtures for the tests that break things."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_test_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `DROPOFF_TEST_*`, which are ours, from daemons and training processes: they refuse unknown settings."""
    for key in [key for key in os.environ if key.startswith("DROPOFF_TEST_")]:
        monkeypatch.delenv(key)
