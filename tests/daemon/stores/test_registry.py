"""Which URL is which store."""

import pytest

from daemon.making import FakeClock, forget, nothing_known
from dropoffd.limits.bandwidth import Bandwidth
from dropoffd.stores.base import RefusedError
from dropoffd.stores.directory.store import DirectoryStore
from dropoffd.stores.registry import Stores, provider
from dropoffd.stores.retry import RetryingStore

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///data/artifacts", "/data/artifacts"),
        ("file:///data/artifacts/", "/data/artifacts"),
        ("file://localhost/data", "/data"),
        ("file:///data/../data/x", "/data/x"),
        ("file:///with%20space", "/with space"),
    ],
)
async def test_a_file_url_is_a_directory(url: str, root: str) -> None:
    """A file URL names an absolute directory, percent-encoding undone."""
    store = await provider(url, FakeClock(), nothing_known, forget)
    assert isinstance(store, DirectoryStore)
    assert store._root == root


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3:bucket",
        "s3://",
        "s3://user:secret@bucket",
        "s3://bucket?colour=red",
        "file://data/artifacts",
        "file:relative",
        "/bare",
        "gibberish",
        "file://[x",
        "file://",
    ],
)
async def test_what_nothing_serves_is_refused_with_a_hint(url: str) -> None:
    """Any other URL raises RefusedError that shows a right one."""
    with pytest.raises(RefusedError, match="unable to use") as caught:
        await provider(url, FakeClock(), nothing_known, forget)
    assert "s3://bucket/prefix" in caught.value.hint


async def test_a_store_is_opened_once() -> None:
    """The same URL is the same store, one that tries again."""
    clock = FakeClock()
    bandwidth = Bandwidth(clock, "unlimited", nothing_known, forget)
    stores = Stores(clock, nothing_known, forget, bandwidth, requests_per_second=0, in_flight_max=4)
    store = await stores.open("file:///data")
    assert isinstance(store, RetryingStore)
    assert await stores.open("file:///data") is store
    assert await stores.open("file:///other") is not store
    await stores.aclose()
