"""A server that speaks the few words of S3 that an upload needs, and forgets the bytes: `sink.py HOST PORT [PACE]`.

It has to cost next to nothing, so that what is measured is the client: large bodies are thrown away inside the
kernel (MSG_TRUNC, tcp(7)). Small ones are verified as on AWS, so that whoever finds out by trying finds such a store;
large ones are believed. Of an object it keeps the size and the headers. It asks nobody who he is.

With a pace, in bytes per second, no connection is faster than that, so that many bring more than few. Asked for `/`,
it tells how many bodies were on their way at most.
"""

import base64
import hashlib
import itertools
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from dropoffd import crc

_HEAD_BYTES = 64 << 10
_THROWN_AWAY_BYTES = 4 << 20
_PACED_BYTES = 128 << 10
# Nothing is ever written to it.
_NOWHERE = bytearray(_THROWN_AWAY_BYTES)
# Verified, and with their MD5 for an etag, as on AWS.
_SMALL_BYTES = 64 << 10
_ENOUGH_CONNECTIONS = 256
_DIGEST = re.compile("[0-9a-f]{64}")
_WHEN = "last-modified: Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(frozen=True)
class Request:
    """What a client asks; `data` is its body if that is small."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    size: int
    data: bytes | None

    @property
    def etag(self) -> str:
        """The MD5 of a small body; what large ones have looks like that of an upload in parts."""
        if self.data is None:
            return f"{self.size:032x}-1"
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Stored:
    """What is kept of an object."""

    size: int
    etag: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Upload:
    """What is kept of an upload in parts."""

    headers: Mapping[str, str]
    parts: dict[int, int] = field(default_factory=dict)


class Bucket:
    """Answers requests, of which many may come at once."""

    def __init__(self) -> None:
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, Upload] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._bodies = self._bodies_most = 0

    def body_begins(self) -> None:
        """Count a body that is on its way."""
        with self._lock:
            self._bodies += 1
            self._bodies_most = max(self._bodies, self._bodies_most)

    def body_ends(self) -> None:
        """Count it no more."""
        with self._lock:
            self._bodies -= 1

    def answer(self, request: Request) -> bytes:
        """Do what is asked and return the answer."""
        upload = request.query.get("uploadId", "")
        if upload and upload not in self._uploads:
            return refusal(404, "NoSuchUpload")
        if request.method == "PUT":
            return self._take(request, upload)
        if request.method == "POST":
            return self._finish(request, self._uploads[upload]) if upload else self._begin(request)
        if request.method == "DELETE":
            self._uploads.pop(upload, None) if upload else self._objects.pop(request.key, None)
            return answer(204)
        return self._look(request)

    def _take(self, request: Request, upload: str) -> bytes:
        if not verified(request):
            return refusal(400, "BadDigest")
        if upload:
            self._uploads[upload].parts[int(request.query["partNumber"])] = request.size
        elif not self._store(request, Stored(request.size, request.etag, request.headers)):
            return refusal(412, "PreconditionFailed")
        return answer(200, b"", _etag(request.etag))

    def _look(self, request: Request) -> bytes:
        if "list-type" in request.query:
            return answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        if not request.key:
            return answer(200, str(self._bodies_most).encode())
        found = self._objects.get(request.key)
        if found is None:
            return refusal(404, "NoSuchKey") if request.method == "GET" else answer(404)
        kept = [f"{name}: {value}" for name, value in found.headers.items() if name.startswith("x-amz-meta-")]
        return answer(200, b"", _etag(found.etag), _WHEN, *kept, length=found.size)

    def _begin(self, request: Request) -> bytes:
        upload = f"upload-{next(self._numbers)}"
        self._uploads[upload] = Upload(request.headers)
        text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        return answer(200, text.encode())

    def _finish(self, request: Request, upload: Upload) -> bytes:
        count = len(upload.parts)
        new = Stored(sum(upload.parts.values()), f"{count:032x}-{count}", upload.headers)
        if not self._store(request, new):
            return refusal(412, "PreconditionFailed")
        text = f"<CompleteMultipartUploadResult><ETag>{new.etag}</ETag></CompleteMultipartUploadResult>"
        return answer(200, text.encode())

    def _store(self, request: Request, new: Stored) -> bool:
        """Keep an object, if that is what the request's conditions allow."""
        wanted = request.headers.get("if-match", "").strip('"')
        with self._lock:
            found = self._objects.get(request.key)
            if found and "if-none-match" in request.headers:
                return False
            if wanted and (found is None or found.etag != wanted):
                return False
            self._objects[request.key] = new
        return True


def answer(status: int, data: bytes = b"", *lines: str, length: int | None = None) -> bytes:
    """Return an answer as it is sent; `length` is for one to HEAD, which tells of a body and has none."""
    first = (f"HTTP/1.1 {status} -", f"content-length: {len(data) if length is None else length}")
    return "\r\n".join((*first, *lines, "", "")).encode() + data


def _etag(etag: str) -> str:
    return f'etag: "{etag}"'


def refusal(status: int, code: str) -> bytes:
    """Return an answer that says what is wrong."""
    return answer(status, f"<Error><Code>{code}</Code></Error>".encode())


def verified(request: Request) -> bool:
    """Tell whether a small body is what the request says of it."""
    data, headers = request.data, request.headers
    if data is None:
        return True
    payload = headers.get("x-amz-content-sha256", "")
    if _DIGEST.fullmatch(payload) and payload != hashlib.sha256(data).hexdigest():
        return False
    if "x-amz-checksum-crc64nvme" in headers:
        taker = crc.crc64nvme()
        taker.update(data)
        return taker.written() == headers["x-amz-checksum-crc64nvme"]
    digest = hashlib.md5(data, usedforsecurity=False).digest() if "content-md5" in headers else b""
    return not digest or base64.b64encode(digest).decode() == headers["content-md5"]


class Client:
    """One client's connection."""

    def __init__(self, connection: socket.socket, bucket: Bucket, pace: float) -> None:
        self._connection = connection
        self._bucket = bucket
        self._pace = pace
        self._received = b""

    def serve(self) -> None:
        """Answer until he leaves, which is his right at any time."""
        try:
            with self._connection:
                while (head := self._head()) is not None:
                    self._connection.sendall(self._bucket.answer(self._request(head)))
        except ConnectionError:
            return

    def _head(self) -> str | None:
        while b"\r\n\r\n" not in self._received:
            data = self._connection.recv(_HEAD_BYTES)
            if not data:
                return None
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode()

    def _request(self, head: str) -> Request:
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ", 2)
        path, _, query = target.partition("?")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "expect" in headers:
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        size = int(headers.get("content-length", "0"))
        self._bucket.body_begins()
        data = self._body(size)
        self._bucket.body_ends()
        if "x-amz-decoded-content-length" in headers:  # framed by its client, with a checksum behind it
            size, data = int(headers["x-amz-decoded-content-length"]), None
        key = path.lstrip("/").partition("/")[2]
        return Request(method, key, dict(parse_qsl(query, keep_blank_values=True)), headers, size, data)

    def _body(self, size: int) -> bytes | None:
        if size > _SMALL_BYTES:
            self._throw_away(size - len(self._received))
            self._received = b""
            return None
        while len(self._received) < size:
            self._received += self._more(_HEAD_BYTES)
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _more(self, most: int) -> bytes:
        data = self._connection.recv(most)
        if not data:
            raise ConnectionResetError
        return data

    def _throw_away(self, left: int) -> None:
        piece = _PACED_BYTES if self._pace else _THROWN_AWAY_BYTES
        while left > 0:
            wanted = min(piece, left)
            count = self._connection.recv_into(_NOWHERE, wanted, socket.MSG_TRUNC | socket.MSG_WAITALL)
            if not count:
                raise ConnectionResetError
            left -= count
            if self._pace:
                time.sleep(count / self._pace)


def serve(host: str, port: int, pace: float) -> None:
    """Serve whoever comes."""
    bucket = Bucket()
    with socket.create_server((host, port), backlog=_ENOUGH_CONNECTIONS) as listener:
        if pace:  # what waits in buffers would be sent at once
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PACED_BYTES)
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=Client(accepted, bucket, pace).serve, daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.0)
