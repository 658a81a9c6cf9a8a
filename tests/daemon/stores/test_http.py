"""The door to HTTP: what it takes from the environment, and what not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dropoffd.stores.http import Http

pytestmark = pytest.mark.anyio


class Listener:
    """Answers everything, and keeps the head of the last request."""

    def __init__(self) -> None:
        self.head: list[str] = []
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            while True:
                self.head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """Return a server on a port of its own."""
    listening = Listener()
    server = await asyncio.start_server(listening.accept, "127.0.0.1", 0)
    listening.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listening


@pytest.fixture
async def http(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Http]:
    """Return a client whose environment names no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    opened = Http()
    yield opened
    await opened.aclose()


async def test_requests_go_through_the_proxy_that_the_environment_names(
    listener: Listener, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy is asked for the whole URL, under the name and password that its own URL has."""
    monkeypatch.setenv("HTTP_PROXY", f"http://name:word@127.0.0.1:{listener.port}")
    assert (await http.request("GET", "http://store.invalid/key", {})).status == 200
    assert listener.head[0] == "GET http://store.invalid/key HTTP/1.1"
    assert "Proxy-Authorization: Basic bmFtZTp3b3Jk" in listener.head


async def test_no_proxy_is_passed_by(listener: Listener, http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that NO_PROXY names is asked directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert (await http.request("GET", f"http://127.0.0.1:{listener.port}/key", {})).status == 200
    assert listener.head[0] == "GET /key HTTP/1.1"


@pytest.mark.parametrize("ours", [{}, {"authorization": "AWS4-HMAC-SHA256 of ours"}])
async def test_a_netrc_says_nothing_to_a_store(
    listener: Listener, http: Http, ours: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a netrc has for everybody neither takes the place of a signature nor names who wants to be nobody."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login name password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    await http.request("GET", f"http://127.0.0.1:{listener.port}/key", ours)
    sent = [line for line in listener.head if line.lower().startswith("authorization")]
    assert sent == [f"{name}: {value}" for name, value in ours.items()]
