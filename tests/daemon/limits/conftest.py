"""Fixtures for limits: time is virtual."""

from typing import Any

import pytest

from daemon.virtual import VirtualClock, VirtualLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on asyncio, as the daemon does, without waiting for timers."""
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def clock() -> VirtualClock:
    """Return the loop's time."""
    return VirtualClock()
