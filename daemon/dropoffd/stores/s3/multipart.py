"""Large objects in parts.

Each part carries its checksum and is confirmed by the store before it counts. The object appears when all are put
together, and only if the store agrees on the checksum of the whole, where it can. An answer to that last request that
was lost is settled by looking at the object.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime

import anyio.to_thread

from dropoffd import crc
from dropoffd.stores.base import (
    AlreadyExistsError,
    Body,
    CorruptError,
    Create,
    Mode,
    NoSuchUploadError,
    Part,
    PreconditionFailedError,
    Progress,
    Stat,
    StoreError,
    UnavailableError,
    Upload,
)
from dropoffd.stores.s3 import answers, checksums, uploads
from dropoffd.stores.s3.checksums import Algorithm, Sums
from dropoffd.stores.s3.client import Client
from dropoffd.stores.s3.headers import condition, metadata
from dropoffd.stores.s3.probe import Capabilities
from dropoffd.stores.s3.sign import UNSIGNED

# Putting many parts together takes AWS up to minutes, during which it sends blanks.
_FINISH_SECONDS = 600.0

Look = Callable[[str], Awaitable[Stat]]
ReadBack = Callable[[str, int, str], Awaitable[None]]


class S3Multipart:
    """Uploads to one bucket; `look` is the store's `stat`, `read_back` compares where the store verifies nothing."""

    def __init__(self, client: Client, can: Capabilities, look: Look, read_back: ReadBack) -> None:
        self._client = client
        self._can = can
        self._look = look
        self._read_back = read_back

    async def begin(self, key: str, sha256: str) -> str:
        """Begin an upload and return its id."""
        return await uploads.begin(self._client, key, metadata(key, sha256), self._can.verifies)

    async def put_part(self, key: str, upload: str, number: int, body: Body, progress: Progress) -> Part:
        """Store part `number`."""
        algorithm = self._algorithm()
        sums: Sums = await anyio.to_thread.run_sync(checksums.of_body, algorithm, body)
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
            await self._complete(key, upload, parts, size, mode)
        except PreconditionFailedError as error:
            found = await self._as_wanted(key, size, sha256)
            if found is not None:
                return found
            if isinstance(mode, Create):
                raise AlreadyExistsError(f"unable to create {key}: it exists") from error
            raise
        except (NoSuchUploadError, UnavailableError):
            # Perhaps it was done before, and only the answer was lost (RGW says 500 to a second try, AWS 404).
            found = await self._as_wanted(key, size, sha256)
            if found is None:
                raise
            return found
        if self._can.verifies is Algorithm.READING:
            await self._read_back(key, size, sha256)
        found = await self._look(key)
        if found.size_bytes != size:
            raise CorruptError(f"unable to finish {key}: the store has {found.size_bytes} of {size} bytes")
        return found

    async def _complete(self, key: str, upload: str, parts: Sequence[Part], size: int, mode: Mode) -> None:
        headers = condition(mode, self._can) if self._can.finishes_conditionally else {}
        verifies = self._can.verifies
        if verifies is Algorithm.CRC64NVME:
            headers |= {
                "x-amz-checksum-crc64nvme": crc.combined((part.crc64nvme, part.size_bytes) for part in parts),
                "x-amz-checksum-type": "FULL_OBJECT",
                "x-amz-mp-object-size": str(size),
            }
        body = answers.completion(
            (part.number, part.etag, f"Checksum{verifies.upper()}" if part.checksum else "", part.checksum)
            for part in parts
        )
        await self._client.call(
            f"finish {key}", "POST", key, (("uploadId", upload),), headers, *uploads.signed(body),
            answer_seconds=_FINISH_SECONDS,
        )  # fmt: skip

    async def _as_wanted(self, key: str, size: int, sha256: str) -> Stat | None:
        try:
            found = await self._look(key)
        except StoreError:  # what brought us here is told instead
            return None
        return found if (found.size_bytes, found.sha256) == (size, sha256) else None

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
                yield Upload(
                    answers.raw_text(item, "Key").removeprefix(root),
                    answers.text(item, "UploadId"),
                    datetime.fromisoformat(answers.text(item, "Initiated")).timestamp(),
                )
            markers = [
                ("key-marker", answers.raw_text(page, "NextKeyMarker")),
                ("upload-id-marker", answers.text(page, "NextUploadIdMarker")),
            ]
            if answers.text(page, "IsTruncated") != "true" or not markers[0][1]:
                return
