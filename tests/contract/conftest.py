"""Fixtures for the store conformance suite."""

import pytest

pytest.register_assert_rewrite("dropoffd.stores.conformance")


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the daemon does."""
    return "asyncio"
