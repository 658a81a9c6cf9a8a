"""An S3 bucket, or a prefix of one, as a store.

The digest of a single object is signed with its request where the store verifies that, and kept as metadata, so that
one HEAD tells later what is there. Nothing counts as stored before the store has confirmed it: by an etag that is the
MD5 of the content, or by what it says of the object afterwards. Where a store verifies nothing, it is read back.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
import anyio.to_thread
import msgspec

from dropoffd import crc
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    Bytes,
    CorruptError,
    Create,
    Folder,
    Limits,
    Mode,
    NotFoundError,
    PreconditionFailedError,
    Progress,
    RefusedError,
    Replace,
    Stat,
    check_key,
)
from dropoffd.stores.http import Answer
from dropoffd.stores.s3 import answers, checksums
from dropoffd.stores.s3.checksums import Algorithm
from dropoffd.stores.s3.client import Client
from dropoffd.stores.s3.conditions import condition, look_first
from dropoffd.stores.s3.headers import SHA256, metadata
from dropoffd.stores.s3.listing import listed
from dropoffd.stores.s3.multipart import S3Multipart
from dropoffd.stores.s3.probe import Capabilities, probe
from dropoffd.stores.s3.sign import UNSIGNED

# "Amazon S3 multipart upload limits" in its user guide.
PART_MIN_BYTES, PART_MAX_BYTES, PARTS_MAX = 5 << 20, 5 << 30, 10_000
KEY_MAX_BYTES = 1024
# Larger objects go in parts: what a broken connection costs is then one part.
SINGLE_MAX_BYTES = 16 << 20
# Held in memory as a whole; their MD5 costs less than asking afterwards what arrived.
_SMALL_BYTES = 256 << 10
_READ_BACK_BYTES = 8 << 20

_META = "capabilities"
_PROBE_AGAIN_SECONDS = 7 * 86400.0
_capabilities = msgspec.json.Decoder(Capabilities).decode

Recall = Callable[[str], Awaitable[str | None]]
Remember = Callable[[str, str], Awaitable[None]]


class S3Store:
    """Objects below a prefix of a bucket; `recall` and `remember` keep what probing found, by URL."""

    def __init__(self, url: str, client: Client, recall: Recall, remember: Remember) -> None:
        self.url = url
        self._client = client
        self._recall = recall
        self._remember = remember
        self._lock = anyio.Lock()
        self.capabilities: Capabilities | None = None
        self.limits = Limits(
            object_max_bytes=PART_MAX_BYTES * PARTS_MAX,
            key_max_bytes=KEY_MAX_BYTES - len(client.address.prefix.encode()) - 1,
            component_max_bytes=255,  # servers that keep objects as files
            creates_atomically=False,
            replaces_atomically=False,
            verifies="",
            single_max_bytes=SINGLE_MAX_BYTES,
            part_min_bytes=PART_MIN_BYTES,
            part_max_bytes=PART_MAX_BYTES,
            parts_max=PARTS_MAX,
        )
        self.multipart: S3Multipart | None = None

    async def prepare(self) -> None:
        """Find out what the store can do, unless that is known."""
        if self.capabilities is not None:
            return
        async with self._lock:
            if self.capabilities is not None:
                return
            known = _known(await self._recall(f"{_META} {self.url}"))
            if known is None or not 0 <= self._client.now() - known.probed_at < _PROBE_AGAIN_SECONDS:
                known = await probe(self._client)
                await self._remember(f"{_META} {self.url}", msgspec.json.encode(known).decode())
            self._use(known)

    def _use(self, found: Capabilities) -> None:
        self.limits = msgspec.structs.replace(
            self.limits,
            creates_atomically=found.creates,
            replaces_atomically=found.replaces,
            verifies=found.verifies if found.verifies not in {Algorithm.ETAG, Algorithm.READING} else "",
        )
        self.multipart = S3Multipart(self._client, found, self.limits, self)
        self.capabilities = found

    @property
    def _can(self) -> Capabilities:
        if self.capabilities is None:
            raise RuntimeError("prepare() was not awaited")
        return self.capabilities

    async def put(self, key: str, body: Body, mode: Mode, progress: Progress) -> Stat:
        """Store `body` under `key` by one request."""
        check_key(key, self.limits)
        if body.size_bytes > self.limits.single_max_bytes:
            raise RefusedError(f"unable to put {key} at once: it has {body.size_bytes} bytes")
        can = self._can
        await self._look_first(key, mode)
        algorithm = Algorithm.SHA256 if can.signed_payloads else can.verifies
        small = await _in_memory(body) if body.size_bytes <= _SMALL_BYTES else None
        checksum = await self._checksum(key, body if small is None else Bytes(small, body.sha256), algorithm)
        headers = {
            **metadata(key, body.sha256),
            **condition(mode, can),
            **checksums.headers(algorithm, checksum),
        }
        payload = body.sha256 if can.signed_payloads or not self._client.address.shielded else UNSIGNED
        try:
            answer = await self._client.call(
                f"put {key}", "PUT", key, (), headers, body if small is None else small, payload, progress
            )
        except PreconditionFailedError as error:
            if isinstance(mode, Create):
                raise AlreadyExistsError(f"unable to create {key}: it exists") from error
            raise
        except NotFoundError as error:  # If-Match where nothing is
            raise PreconditionFailedError(f"unable to replace {key}: it is not there") from error
        return await self._confirmed(key, body, small, answer)

    async def _checksum(self, key: str, body: Body, algorithm: Algorithm) -> str:
        """Return the algorithm's checksum of the body; raises CorruptError if the body is not what it says."""
        if algorithm is Algorithm.SHA256:
            return body.sha256
        digest, sums = await anyio.to_thread.run_sync(
            lambda: (checksums.of_body(Algorithm.SHA256, body).checksum, checksums.of_body(algorithm, body))
        )
        if digest != body.sha256:
            raise CorruptError(f"unable to put {key}: its content differs from the digest taken before")
        return sums.checksum

    async def _look_first(self, key: str, mode: Mode) -> None:
        create = isinstance(mode, Create) and not self._can.creates
        replace = isinstance(mode, Replace) and not self._can.replaces
        if create or replace:
            await look_first(self.head, key, mode)

    async def _confirmed(self, key: str, body: Body, small: bytes | None, answer: Answer) -> Stat:
        etag = answers.etag(answer)
        try:
            checksums.confirm(f"put {key}", answer, body.crc64nvme if small is None else _crc64nvme(small))
        except CorruptError:
            await self.delete(key)
            raise
        if self._can.verifies is Algorithm.READING:
            await self.read_back(key, body.size_bytes, body.sha256)
        elif small is not None and etag == hashlib.md5(small, usedforsecurity=False).hexdigest():
            return Stat(key=key, size_bytes=body.size_bytes, etag=etag, sha256=body.sha256)
        elif self._can.verifies is Algorithm.ETAG and not self._can.signed_payloads:
            wanted = (await anyio.to_thread.run_sync(checksums.of_body, Algorithm.ETAG, body)).checksum
            if etag != wanted:
                await self.delete(key)
                raise CorruptError(f"unable to put {key}: the store's etag is {etag}, not {wanted}")
        found = await self.head(key)
        if found.size_bytes != body.size_bytes:
            raise CorruptError(f"unable to put {key}: the store has {found.size_bytes} of {body.size_bytes} bytes")
        return found

    async def read_back(self, key: str, size: int, sha256: str) -> None:
        """Raise CorruptError, and remove the object, if what the store gives back is not what it should be."""
        if await self._digest(key, size) != sha256:
            await self.delete(key)
            raise CorruptError(f"unable to put {key}: the store gives back other bytes")

    async def _digest(self, key: str, size: int) -> str:
        digest = hashlib.sha256()
        for start in range(0, size, _READ_BACK_BYTES):
            piece = await self.get(key, start, min(start + _READ_BACK_BYTES, size))
            await anyio.to_thread.run_sync(digest.update, piece)
        return digest.hexdigest()

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Return some of an object's bytes."""
        check_key(key, self.limits)
        if end is not None and end <= start:
            return b""
        span = {} if start == 0 and end is None else {"range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            answer = await self._client.call(f"get {key}", "GET", key, (), span)
        except RefusedError as error:
            if "InvalidRange" in error.message or "416" in error.message:  # the object ends before
                return b""
            raise
        # Some servers answer a range with all of the object, and rclone a range with 200.
        partial = not span or answer.status == 206 or "content-range" in answer.headers
        return answer.data if partial else answer.data[start:end]

    async def read(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill a buffer with an object's bytes."""
        check_key(key, self.limits)
        if not buffer:
            return 0
        span = {"range": f"bytes={start}-{start + len(buffer) - 1}"}
        try:
            answer = await self._client.call(f"get {key}", "GET", key, (), span, into=buffer)
        except RefusedError as error:
            if "InvalidRange" in error.message or "416" in error.message:  # the object ends before
                return 0
            raise
        if not answer.data:
            return answer.into_bytes
        # A server that answers a range with all of the object.
        piece = answer.data[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`.

        The digest is metadata: what the store was told. Where it verified nothing, that may be of other bytes (we may
        have died before we compared), and it is read.
        """
        found = await self.head(key)
        if not found.sha256 or self.limits.verifies:
            return found
        return msgspec.structs.replace(found, sha256=await self._digest(key, found.size_bytes))

    async def head(self, key: str) -> Stat:
        """Return what the store says of the object under `key`."""
        check_key(key, self.limits)
        answer = await self._client.call(f"look at {key}", "HEAD", key)
        return Stat(
            key=key,
            size_bytes=int(answer.headers.get("content-length", "0")),
            etag=answers.etag(answer),
            sha256=answer.headers.get(SHA256, ""),
            modified_at=answers.modified_at(answer),
        )

    async def list(self, prefix: str) -> AsyncIterator[Stat]:
        """Yield the objects below a prefix."""
        async for key, item in listed(self._client, prefix, "Contents", "Key"):
            yield Stat(
                key=key,
                size_bytes=answers.number(item, "Size"),
                etag=answers.text(item, "ETag").strip('"'),
                modified_at=answers.moment(answers.text(item, "LastModified")),
            )

    async def folders(self, prefix: str) -> AsyncIterator[str]:
        """Yield what comes next in keys."""
        async for folder, _ in listed(self._client, prefix, "CommonPrefixes", "Prefix", ("delimiter", "/")):
            yield folder

    async def changes(self, prefix: str, known: Mapping[str, str]) -> AsyncIterator[Folder]:  # noqa: ARG002  # the interface's
        """Yield all folders with all objects: a bucket does not tell what changed."""
        found: dict[str, list[Stat]] = {}
        async for stat in self.list(prefix):
            found.setdefault(stat.key.rpartition("/")[0] + "/", []).append(stat)
        for folder, objects in found.items():
            yield Folder(prefix=folder, etag="", objects=objects)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        check_key(key, self.limits)
        try:
            await self._client.call(f"delete {key}", "DELETE", key)
        except NotFoundError:
            return

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _known(text: str | None) -> Capabilities | None:
    try:
        return _capabilities(text) if text else None
    except msgspec.DecodeError:  # written by another version
        return None


def _crc64nvme(data: bytes) -> str:
    taker = crc.crc64nvme()
    taker.update(data)
    return taker.written()


async def _in_memory(body: Body) -> bytes:
    await body.admit(body.size_bytes)
    buffer = memoryview(bytearray(body.size_bytes))
    if body.read_cached(buffer, 0) == body.size_bytes:
        return bytes(buffer)
    return await anyio.to_thread.run_sync(body.read, body.size_bytes, 0)
