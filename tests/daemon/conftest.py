"""Fixtures for the daemon's parts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.making import Spools


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the daemon does."""
    return "asyncio"


@pytest.fixture
async def spools(tmp_path: Path) -> AsyncIterator[Spools]:
    """Return an opener of spools on one state directory; what is open at the end is closed."""
    opener = Spools(tmp_path / "state")
    yield opener
    await opener.aclose()
