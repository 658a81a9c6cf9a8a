"""The checksums of S3: computed as bytes come in, and held against what the request says of them.

The rules: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html.
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from awscrt import checksums

from support.fault_server.behaviour import Verified
from support.fault_server.errors import S3Error

CHECKSUM_HEADERS = {
    Verified.CRC64NVME: "x-amz-checksum-crc64nvme",
    Verified.CRC32C: "x-amz-checksum-crc32c",
    Verified.CRC32: "x-amz-checksum-crc32",
    Verified.SHA256: "x-amz-checksum-sha256",
}
FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
_DIGEST_BYTES = {Verified.CRC64NVME: 8, Verified.CRC32C: 4, Verified.CRC32: 4, Verified.SHA256: 32, Verified.MD5: 16}


class Running(Protocol):
    """A checksum that takes its bytes piece by piece."""

    def update(self, piece: bytes, /) -> None:
        """Take the next piece."""

    def digest(self) -> bytes:
        """Return the checksum of all that was taken."""


class _Crc:
    def __init__(self, function: Callable[[bytes, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, piece: bytes) -> None:
        self._value = self._function(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def running(kind: Verified) -> Running:
    """Return a checksum of nothing yet."""
    match kind:
        case Verified.CRC64NVME:
            return _Crc(checksums.crc64nvme, 8)
        case Verified.CRC32C:
            return _Crc(checksums.crc32c, 4)
        case Verified.CRC32:
            return _Crc(zlib.crc32, 4)
        case Verified.SHA256 | Verified.PAYLOAD:
            return hashlib.sha256()
        case Verified.MD5:
            return hashlib.md5(usedforsecurity=False)


def of_pieces(kind: Verified, pieces: Iterable[bytes]) -> str:
    """Return the checksum of all pieces together, in base64."""
    one = running(kind)
    for piece in pieces:
        one.update(piece)
    return written(one.digest())


def composite(kind: Verified, of_parts: Iterable[str]) -> str:
    """Return the checksum of the parts' checksums, with their number behind it."""
    digests = [base64.b64decode(text) for text in of_parts]
    return f"{of_pieces(kind, digests)}-{len(digests)}"


def written(digest: bytes) -> str:
    """Return a digest as it stands in headers and XML."""
    return base64.b64encode(digest).decode()


def chosen(headers: Mapping[str, str], verifies: frozenset[Verified]) -> Verified | None:
    """Return the checksum that a request carries, of those that the store knows."""
    return next((kind for kind, name in CHECKSUM_HEADERS.items() if name in headers and kind in verifies), None)


class Intake:
    """The checksums of one body as it comes in: its MD5, and whatever its headers state."""

    def __init__(self, headers: Mapping[str, str], verifies: frozenset[Verified], kept: Verified | None) -> None:
        """Choose what to compute; `kept` is the checksum that the store keeps with the bytes."""
        self._stated = _stated(headers, verifies)
        self._kept = kept
        kinds = {Verified.MD5, *self._stated} | ({kept} if kept else set())
        self._running = {kind: running(kind) for kind in kinds}

    def update(self, piece: bytes) -> None:
        """Take the next piece."""
        for one in self._running.values():
            one.update(piece)

    @property
    def md5(self) -> str:
        """The MD5 in hex: the etag."""
        return self._running[Verified.MD5].digest().hex()

    @property
    def checksum(self) -> str:
        """The checksum that is kept; empty if none is."""
        return written(self._running[self._kept].digest()) if self._kept else ""

    def verify(self) -> None:
        """Raise the error of the first statement that is not true."""
        for kind, stated in self._stated.items():
            if self._running[kind].digest() != stated:
                raise _mismatch(kind)


def _stated(headers: Mapping[str, str], verifies: frozenset[Verified]) -> dict[Verified, bytes]:
    names = CHECKSUM_HEADERS | {Verified.MD5: "content-md5"}
    found = {
        kind: _decoded(kind, name, headers[name])
        for kind, name in names.items()
        if name in headers and kind in verifies
    }
    payload = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if Verified.PAYLOAD in verifies and payload != "UNSIGNED-PAYLOAD":
        try:
            found[Verified.PAYLOAD] = bytes.fromhex(payload)
        except ValueError as error:
            message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a valid sha256 value."
            raise S3Error(400, "InvalidArgument", message) from error
    return found


def _decoded(kind: Verified, name: str, text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != _DIGEST_BYTES[kind]:
        if kind is Verified.MD5:
            raise S3Error(400, "InvalidDigest", "The Content-MD5 you specified was invalid.")
        raise S3Error(400, "InvalidRequest", f"Value for {name} header is invalid.")
    return digest


def _mismatch(kind: Verified) -> S3Error:
    if kind is Verified.PAYLOAD:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        return S3Error(400, "XAmzContentSHA256Mismatch", message)
    name = "Content-MD5" if kind is Verified.MD5 else kind.upper()
    return S3Error(400, "BadDigest", f"The {name} you specified did not match the calculated checksum.")
