"""Answers one request at a time as S3 would: who asks, may it, what came in, and what is to be done."""

import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.fault_server import answers, calls, multipart, objects, signature
from support.fault_server.answers import Answer
from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.bucket import Bucket, Piece
from support.fault_server.calls import Call, Operation
from support.fault_server.errors import S3Error, no_such_bucket, not_implemented
from support.fault_server.exchange import Exchange
from support.fault_server.faults import Stage
from support.fault_server.integrity import Intake, chosen
from support.fault_server.signature import Keys

_XML_MOST_BYTES = 2 << 20


class Service:
    """The buckets, whose keys open them, and where their bytes lie."""

    def __init__(self, home: Path, region: str) -> None:
        self.region = region
        self.behaviour = Behaviour()
        self.keys: dict[str, Keys] = {}
        self.buckets: dict[str, Bucket] = {}
        self._home = home

    @property
    def time(self) -> datetime:
        """The time as the server has it."""
        return datetime.now(UTC) + timedelta(seconds=self.behaviour.clock_ahead_seconds)

    async def answer(self, exchange: Exchange, call: Call) -> Answer:
        """Carry a request out; raises S3Error."""
        await exchange.reach(Stage.BODY, 0)
        calls.check(call)
        if self.behaviour.signatures:
            signature.verify(call, self.keys, self.region, self.time)
        if call.operation is Operation.CREATE_BUCKET:
            self.buckets.setdefault(call.bucket, Bucket())
        bucket = self.buckets.get(call.bucket)
        if bucket is None:
            raise no_such_bucket(call.bucket)
        if call.operation in {Operation.PUT, Operation.PART}:
            answer = await self._store(exchange, call, bucket)
        else:
            body = await self._small_body(exchange, call)
            answer = self._carry_out(bucket, call, body)
        await exchange.reach(Stage.APPLIED)
        return answer

    async def _store(self, exchange: Exchange, call: Call, bucket: Bucket) -> Answer:
        """Take a large body into a file, and only then look whether it may stay."""
        if "content-length" not in call.headers:
            raise S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if call.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise not_implemented("x-amz-content-sha256")
        kept = chosen(call.headers, self.behaviour.verifies)
        if kept is None and Verified.CRC64NVME in self.behaviour.verifies:
            kept = Verified.CRC64NVME
        if call.operation is Operation.PART:
            upload = multipart.of(bucket, call)
            multipart.check_part(upload, call, self.behaviour)
            kept = upload.algorithm
        intake = Intake(call.headers, self.behaviour.verifies, kept)
        piece = await self._taken_in(exchange, intake)
        etag = intake.md5 if self.behaviour.etags_are_md5 else secrets.token_hex(16)
        if call.operation is Operation.PART:
            return multipart.part(bucket, call, piece, etag, intake.checksum)
        stored = objects.new(call, piece, etag, intake.checksum, kept)
        return objects.put(bucket, call, self.behaviour, stored)

    async def _taken_in(self, exchange: Exchange, intake: Intake) -> Piece:
        path, size = self._home / secrets.token_hex(8), 0
        try:
            with path.open("xb", buffering=0) as file:
                async for piece in exchange.body():
                    intake.update(piece)
                    size += file.write(piece)
            intake.verify()
        except BaseException:
            os.unlink(path)
            raise
        return Piece(str(path), size)

    async def _small_body(self, exchange: Exchange, call: Call) -> bytes:
        body = bytearray()
        # The checksums that a request to complete states are the object's, not its own.
        headers = {name: value for name, value in call.headers.items() if not name.startswith("x-amz-checksum-")}
        intake = Intake(headers, self.behaviour.verifies, None)
        async for piece in exchange.body():
            body += piece
            if len(body) > _XML_MOST_BYTES:
                raise S3Error(400, "MalformedXML", "The XML you provided is too large.")
            intake.update(piece)
        intake.verify()
        return bytes(body)

    def _carry_out(self, bucket: Bucket, call: Call, body: bytes) -> Answer:
        work: dict[Operation, Callable[[], Answer]] = {
            Operation.GET: lambda: objects.get(bucket, call),
            Operation.HEAD: lambda: objects.get(bucket, call),
            Operation.DELETE: lambda: objects.delete(bucket, call),
            Operation.LIST: lambda: objects.listing(bucket, call, self.behaviour),
            Operation.CREATE: lambda: multipart.create(bucket, call, self.behaviour),
            Operation.PARTS: lambda: multipart.parts(bucket, call, self.behaviour),
            Operation.COMPLETE: lambda: multipart.complete(bucket, call, self.behaviour, body),
            Operation.ABORT: lambda: multipart.abort(bucket, call),
            Operation.UPLOADS: lambda: multipart.uploads(bucket, call, self.behaviour),
            Operation.LOCATION: lambda: answers.document("LocationConstraint", self.region),
            Operation.HEAD_BUCKET: Answer,
            Operation.CREATE_BUCKET: Answer,
        }
        return work[call.operation]()

    def common_headers(self) -> dict[str, str]:
        """Return the headers of every answer."""
        return {
            "date": answers.http_date(self.time.replace(microsecond=0)),
            "server": "AmazonS3",
            "x-amz-request-id": secrets.token_hex(8).upper(),
            "x-amz-id-2": secrets.token_urlsafe(32),
        }
