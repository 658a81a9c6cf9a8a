"""Large objects in parts.

Each part carries its checksum and is confirmed by the store before it counts. The object appears when all are put
together, and only if the store agrees on the checksum of the whole, where it can. An answer to that last request that
was lost is settled by looking at the object.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

import anyio.to_thread

from dropoffd import crc
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    CorruptError,
    Create,
    Limits,
    Mode,
    NoSuchUploadError,
    NotFoundError,
    Part,
    PreconditionFailedError,
    Progress,
    Replace,
    Stat,
    StoreError,
    UnavailableError,
    UnreachableError,
    Upload,
    check_key,
)
from dropoffd.stores.http import Answer
from dropoffd.stores.s3 import answers, checksums, uploads
from dropoffd.stores.s3.checksums import Algorithm, Sums
from dropoffd.stores.s3.client import Client
from dropoffd.stores.s3.conditions import condition, look_first
from dropoffd.stores.s3.headers import metadata
from dropoffd.stores.s3.probe import Capabilities
from dropoffd.stores.s3.sign import UNSIGNED

# Putting many parts together takes AWS up to minutes, during which it sends blanks.
_FINISH_SECONDS = 600.0


class Objects(Protocol):
    """What uploads have to know of the objects that they become."""

    async def stat(self, key: str) -> Stat:
        """Return what is under `key`; raises NotFoundError."""

    async def head(self, key: str) -> Stat:
        """Return what the store says of it."""

    async def delete(self, key: str) -> None:
        """Remove it."""

    async def read_back(self, key: str, size: int, sha256: str) -> None:
        """Raise CorruptError, and remove the object, if it is not what it should be."""


class S3Multipart:
    """Uploads to one bucket."""

    def __init__(self, client: Client, can: Capabilities, limits: Limits, objects: Objects) -> None:
        self._client = client
        self._can = can
        self._limits = limits
        self._objects = objects

    async def begin(self, key: str, sha256: str) -> str:
        """Begin an upload and return its id."""
        check_key(key, self._limits)
        # A whole object's checksum needs none of its parts; any other has to come with each of them.
        whole = self._can.verifies is Algorithm.CRC64NVME
        algorithm = Algorithm.CRC64NVME if whole else self._algorithm()
        return await uploads.begin(self._client, key, metadata(key, sha256), algorithm)

    async def put_part(self, key: str, upload: str, number: int, body: Body, progress: Progress) -> Part:
        """Store part `number`."""
        algorithm = self._algorithm()
        if algorithm is Algorithm.CRC64NVME and body.crc64nvme:
            # Taken with the digest: the store refuses the part if these are not its bytes any more.
            sums = Sums(body.crc64nvme, body.crc64nvme)
        else:
            sums = await anyio.to_thread.run_sync(checksums.of_body, algorithm, body)
        with _known_upload():
            answer = await self._client.call(
                f"put part {number} of {key}",
                "PUT",
                key,
                (("partNumber", str(number)), ("uploadId", upload)),
                checksums.headers(algorithm, sums.checksum),
                body,
                sums.checksum if algorithm is Algorithm.SHA256 else UNSIGNED,
                progress,
            )
        checksums.confirm(f"put part {number} of {key}", answer, sums.crc64nvme)
        etag = answers.etag(answer)
        if algorithm is Algorithm.ETAG and etag != sums.checksum:
            raise CorruptError(f"unable to put part {number} of {key}: its etag is {etag}, not {sums.checksum}")
        return Part(
            number=number,
            size_bytes=body.size_bytes,
            etag=etag,
            crc64nvme=sums.crc64nvme,
            checksum=sums.checksum if algorithm in checksums.CRCS else "",
        )

    def _algorithm(self) -> Algorithm:
        # Whoever can change bytes on their way can change a CRC to match; the signature he cannot.
        if not self._client.address.shielded and self._can.signed_payloads:
            return Algorithm.SHA256
        return self._can.verifies

    async def parts(self, key: str, upload: str) -> list[Part]:
        """Return the parts that the store has."""
        found: list[Part] = []
        marker = ""
        while True:
            query = [("uploadId", upload), *([("part-number-marker", marker)] if marker else [])]
            with _known_upload():
                answer = await self._client.call(f"list the parts of {key}", "GET", key, query)
            page = answers.parsed(answer.data)
            found += [
                Part(
                    number=answers.number(item, "PartNumber"),
                    size_bytes=answers.number(item, "Size"),
                    etag=answers.text(item, "ETag").strip('"'),
                )
                for item in answers.children(page, "Part")
            ]
            marker = answers.text(page, "NextPartNumberMarker")
            if answers.text(page, "IsTruncated") != "true" or not marker:
                return found

    async def finish(self, key: str, upload: str, parts: Sequence[Part], sha256: str, mode: Mode) -> Stat:
        """Make the object of its parts."""
        size = sum(part.size_bytes for part in parts)
        try:
            await self._look_first(key, mode)
            answer = await self._complete(key, upload, parts, size, mode)
        except (AlreadyExistsError, PreconditionFailedError, NoSuchUploadError, UnavailableError) as error:
            found = await self._done_before(key, upload, size, sha256, error)
            if found is None:
                raise
            return found
        return await self._confirmed(key, size, parts, sha256, answer)

    async def _confirmed(self, key: str, size: int, parts: Sequence[Part], sha256: str, answer: Answer) -> Stat:
        try:
            checksums.confirm(f"finish {key}", answer, _whole(parts))
        except CorruptError:
            await self._objects.delete(key)
            raise
        if self._can.verifies is Algorithm.READING:
            await self._objects.read_back(key, size, sha256)
        try:
            found = await self._objects.head(key)
        except NotFoundError as error:
            raise UnavailableError(f"unable to finish {key}: the store said that it did, and has none") from error
        if found.size_bytes != size:
            raise CorruptError(f"unable to finish {key}: the store has {found.size_bytes} of {size} bytes")
        return found

    async def _look_first(self, key: str, mode: Mode) -> None:
        # Whether a store honours If-Match here nobody tried: moto ignores it.
        if isinstance(mode, Replace) or not self._creates:
            await look_first(self._objects.head, key, mode)

    @property
    def _creates(self) -> bool:
        return self._can.creates and self._can.finishes_conditionally

    async def _done_before(self, key: str, upload: str, size: int, sha256: str, error: StoreError) -> Stat | None:
        """Return the object if it is there as it should be; raises NoSuchUploadError if the upload is gone instead.

        Perhaps it was finished before, and only the answer was lost: then AWS says 404, RGW 500, and a condition that
        held does not hold any more. Or somebody else was faster with the same content.
        """
        if isinstance(error, UnreachableError):
            return None
        gone = await self._gone(key, upload) if isinstance(error, UnavailableError) else None
        try:
            found = await self._objects.stat(key)
        except StoreError:  # what brought us here is told instead
            found = None
        if found is None or (found.size_bytes, found.sha256) != (size, sha256):
            if gone is not None:
                raise gone
            return None
        await self.abandon(key, upload)
        return found

    async def _gone(self, key: str, upload: str) -> NoSuchUploadError | None:
        try:
            await self.parts(key, upload)
        except NoSuchUploadError as error:
            return error
        except StoreError:  # what brought us here is told instead
            return None
        return None

    async def _complete(self, key: str, upload: str, parts: Sequence[Part], size: int, mode: Mode) -> Answer:
        headers = condition(mode, self._can) if self._can.finishes_conditionally else {}
        verifies = self._can.verifies
        if verifies is Algorithm.CRC64NVME:
            headers |= {
                "x-amz-checksum-crc64nvme": _whole(parts),
                "x-amz-checksum-type": "FULL_OBJECT",
                "x-amz-mp-object-size": str(size),
            }
        body = answers.completion(
            (part.number, part.etag, f"Checksum{verifies.upper()}" if part.checksum else "", part.checksum)
            for part in parts
        )
        try:
            with _known_upload():
                return await self._client.call(
                    f"finish {key}", "POST", key, (("uploadId", upload),), headers, *uploads.signed(body),
                    answer_seconds=_FINISH_SECONDS,
                )  # fmt: skip
        except PreconditionFailedError as error:
            if isinstance(mode, Create):
                raise AlreadyExistsError(f"unable to create {key}: it exists") from error
            raise

    async def abandon(self, key: str, upload: str) -> None:
        """End an upload and drop its parts."""
        await uploads.abandon(self._client, key, upload)

    async def uploads(self, prefix: str) -> AsyncIterator[Upload]:
        """Yield the unfinished uploads below a prefix."""
        root = f"{self._client.address.prefix}/" if self._client.address.prefix else ""
        markers: list[tuple[str, str]] = []
        while True:
            query = [("uploads", ""), ("prefix", root + prefix), *markers]
            answer = await self._client.call("list uploads", "GET", None, query)
            page = answers.parsed(answer.data)
            for item in answers.children(page, "Upload"):
                key = answers.raw_text(item, "Key")
                if key.startswith(root + prefix):  # moto lists all that the bucket has
                    yield Upload(
                        key.removeprefix(root),
                        answers.text(item, "UploadId"),
                        datetime.fromisoformat(answers.text(item, "Initiated")).timestamp(),
                    )
            markers = [
                ("key-marker", answers.raw_text(page, "NextKeyMarker")),
                ("upload-id-marker", answers.text(page, "NextUploadIdMarker")),
            ]
            if answers.text(page, "IsTruncated") != "true" or not markers[0][1]:
                return


def _whole(parts: Sequence[Part]) -> str:
    return crc.combined((part.crc64nvme, part.size_bytes) for part in parts)


@contextmanager
def _known_upload() -> Iterator[None]:
    """Take 404 for what it means of an upload: RGW calls one that it does not know NoSuchKey."""
    try:
        yield
    except NotFoundError as error:
        raise NoSuchUploadError(error.message) from error
