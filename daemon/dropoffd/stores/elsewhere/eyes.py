"""Look at what lies elsewhere: its size, its etag, its version, and at its bytes where somebody asks for them.

Each look takes seconds at most. What an answer says is text of somebody else's, and taken for no more than that.
"""

import os
import re
import stat
from collections.abc import Mapping
from functools import partial
from urllib.parse import urljoin, urlsplit

import anyio
import anyio.to_thread

from dropoff.walk import walk
from dropoffd.clock import Clock
from dropoffd.stores.base import NotFoundError, RefusedError
from dropoffd.stores.elsewhere.judge import check_public
from dropoffd.stores.elsewhere.place import Bucket, Local, Web, as_sent, place_of
from dropoffd.stores.elsewhere.seen import Below, Seen, TooManyError
from dropoffd.stores.http import Answer, Http
from dropoffd.stores.s3 import answers, credentials
from dropoffd.stores.s3.address import Address
from dropoffd.stores.s3.client import Client
from dropoffd.stores.s3.listing import listed

_LOOK_SECONDS, _LIST_SECONDS = 5.0, 30.0
_REDIRECTS_MOST = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ENDS_BEFORE = 416
_TEXT_MOST = 1024
_SIZE = re.compile(r"[0-9]{1,18}")
_VERSIONS = ("x-amz-version-id", "x-goog-generation", "x-ms-version-id")


class Eyes:
    """Looks at things for a version that goes to `store`; to be closed."""

    def __init__(self, store: str, clock: Clock, environment: Mapping[str, str], *, allow_private: bool) -> None:
        self._store = store
        self._clock = clock
        self._environment = environment
        self._judge = None if allow_private else check_public
        self._opening = anyio.Lock()
        self._web: Http | None = None
        self._s3: Http | None = None
        self._clients: dict[Address, Client] = {}

    async def look(self, uri: str) -> Seen:
        """Return what is known of one thing; raises StoreError, OSError, ValueError and TimeoutError."""
        place = place_of(uri, self._store, self._environment)
        with anyio.fail_after(_LOOK_SECONDS):
            if isinstance(place, Web):
                answer = await self._ask("HEAD", place.url, {})
                _check(answer)
            elif isinstance(place, Bucket):
                answer = await self._head_object(place)
            else:
                return await anyio.to_thread.run_sync(_look, uri, place.path)
        return Seen(uri=uri, size_bytes=_size(answer), etag=_etag(answer), version=_version(answer))

    async def below(self, uri: str, most: int) -> Below:
        """Return what is known of all below a prefix; raises TooManyError, and what `look` raises."""
        place = place_of(uri, self._store, self._environment)
        with anyio.fail_after(_LIST_SECONDS):
            if isinstance(place, Bucket):
                below = await self._list(place, most)
            elif isinstance(place, Local):
                below = await anyio.to_thread.run_sync(_walk, place, most)
            else:
                raise RefusedError("only a bucket or a directory has anything below it")
        if len(below.found) > most:
            raise TooManyError(
                f"unable to refer to {uri}: more than {most} objects lie below it",
                hint="`dropoff cancel` drops this version; add fewer, or raise max_objects",
            )
        return below

    async def read(self, uri: str, start: int, buffer: memoryview) -> tuple[int, str]:
        """Fill a buffer with bytes from `start` on; return how many there were, and the etag, where that is told."""
        place = place_of(uri, self._store, self._environment)
        if isinstance(place, Local):
            return await anyio.to_thread.run_sync(_read, place.path, start, buffer)
        span = {"range": f"bytes={start}-{start + len(buffer) - 1}"}
        if isinstance(place, Web):
            answer = await self._ask("GET", place.url, span, buffer)
            if answer.status == _ENDS_BEFORE:
                return 0, _etag(answer)
            _check(answer)
        else:
            client = await self._client(place.address)
            answer = await client.call(f"get {place.key}", "GET", place.key, _query(place), span, into=buffer)
        if not answer.data:
            return answer.into_bytes, _etag(answer)
        piece = answer.data[start : start + len(buffer)]  # a server that does not know ranges
        buffer[: len(piece)] = piece
        return len(piece), _etag(answer)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], into: memoryview | None = None) -> Answer:
        async with self._opening:
            if self._web is None:
                self._web = await anyio.to_thread.run_sync(partial(Http, judge=self._judge))
        for _ in range(_REDIRECTS_MOST + 1):
            answer = await self._web.request(method, url, headers, into=into)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            url = as_sent(urljoin(url, answer.headers["location"]))
            if urlsplit(url).scheme not in {"http", "https"}:
                raise RefusedError("it is redirected to where nobody here goes")
        raise RefusedError(f"it is redirected more than {_REDIRECTS_MOST} times")

    async def _head_object(self, place: Bucket) -> Answer:
        if not place.key:
            raise RefusedError("it names a bucket, and nothing in it")
        client = await self._client(place.address)
        return await client.call(f"look at {place.key}", "HEAD", place.key, _query(place))

    async def _list(self, place: Bucket, most: int) -> Below:
        below = Below([], [])
        async for key, item in listed(await self._client(place.address), place.key, "Contents", "Key"):
            if key.endswith("/"):  # consoles make such objects to show folders
                continue
            if not key.isprintable():
                below.skipped.append(f"{key!r}: no URI can name it")
                continue
            etag, size = answers.text(item, "ETag").strip('"'), answers.number(item, "Size")
            name = key.removeprefix(place.key).encode()
            below.found.append(Seen(uri=place.uri(key), size_bytes=size, etag=etag, name=name))
            if len(below.found) > most:
                break
        return below

    async def _client(self, address: Address) -> Client:
        async with self._opening:
            if self._s3 is None:
                ca_file = self._environment.get("AWS_CA_BUNDLE", "")
                self._s3 = await anyio.to_thread.run_sync(Http, ca_file)
            if address not in self._clients:
                source = credentials.source(address.credentials)
                self._clients[address] = Client(address, self._s3, source, self._clock)
        return self._clients[address]

    async def aclose(self) -> None:
        """Close every connection."""
        for http in (self._web, self._s3):
            if http is not None:
                await http.aclose()


def _check(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        raise RefusedError(f"its server answers {answer.status}")


def _query(place: Bucket) -> tuple[tuple[str, str], ...]:
    return (("versionId", place.version),) if place.version else ()


def _size(answer: Answer) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if _SIZE.fullmatch(text) and text.isascii() else None


def _etag(answer: Answer) -> str:
    """Return the etag, or, of a server that has none, when the thing was changed."""
    etag = _text(answer, "etag")
    return etag.strip('"') if etag.startswith('"') else etag or _text(answer, "last-modified")


def _version(answer: Answer) -> str:
    found = next((text for text in (_text(answer, name) for name in _VERSIONS) if text), "")
    return "" if found == "null" else found  # S3's word for objects from before it kept versions


def _text(answer: Answer, name: str) -> str:
    text = answer.headers.get(name, "")
    return text if len(text) <= _TEXT_MOST and text.isascii() and text.isprintable() else ""


def _look(uri: str, path: bytes) -> Seen:
    try:
        found = os.stat(path)
    except FileNotFoundError as error:
        raise NotFoundError("there is no such file") from error
    if not stat.S_ISREG(found.st_mode):
        raise RefusedError("it is no regular file")
    return Seen(uri=uri, size_bytes=found.st_size, etag=_etag_of_file(found))


def _read(path: bytes, start: int, buffer: memoryview) -> tuple[int, str]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise RefusedError("it is no regular file")
        return os.preadv(fd, [buffer], start), _etag_of_file(found)
    finally:
        os.close(fd)


def _walk(place: Local, most: int) -> Below:
    below = Below([], [])
    root = os.open(place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, fd in walk(root, below.skipped.append):
            found = os.fstat(fd)
            etag = _etag_of_file(found)
            below.found.append(Seen(uri=place.uri(path), size_bytes=found.st_size, etag=etag, name=path))
            if len(below.found) > most:
                break
    finally:
        os.close(root)
    return below


def _etag_of_file(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"
