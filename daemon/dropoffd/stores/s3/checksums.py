"""What proves to an S3 store that the bytes it got are the bytes that were sent.

A store verifies some of these and ignores others without a word, so which one is used is found by trying wrong values
(`probe.py`). Listed from the best to the last resort.
"""

import base64
import enum
import hashlib

import msgspec

from dropoffd import crc
from dropoffd.pieces import pieces
from dropoffd.stores.base import Body, CorruptError
from dropoffd.stores.http import Answer
from dropoffd.stores.s3 import answers
from dropoffd.threads import give_way


class Algorithm(enum.StrEnum):
    """A way to verify what was stored."""

    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    SHA256 = "sha256"  # the payload's digest is part of what is signed
    MD5 = "md5"  # the Content-MD5 header
    ETAG = "etag"  # the store verifies nothing, but its etag is the MD5 of what it got
    READING = "reading"  # nor that: what was stored is read back


CRCS = (Algorithm.CRC64NVME, Algorithm.CRC32C)


class Sums(msgspec.Struct, frozen=True):
    """The checksums of a body: `checksum` is the algorithm's, as a header has it (sha256 and etags in hex)."""

    crc64nvme: str
    checksum: str


def of_body(algorithm: Algorithm, body: Body) -> Sums:
    """Return a body's checksums; blocks.

    It reads all of the body, so that what is sent right after comes from memory.
    """
    give_way()
    ours, theirs = crc.crc64nvme(), _taker(algorithm)
    taken_bytes = 0
    for piece in pieces(body):
        ours.update(piece)
        if theirs is not None:
            theirs.update(piece)
        taken_bytes += len(piece)
    if taken_bytes != body.size_bytes:
        raise CorruptError(f"unable to read all of the content: it ends after {taken_bytes} bytes")
    if algorithm is Algorithm.CRC64NVME:
        return Sums(ours.written(), ours.written())
    return Sums(ours.written(), _written(algorithm, theirs))


def _taker(algorithm: Algorithm) -> "crc.Crc | hashlib._Hash | None":
    if algorithm is Algorithm.CRC32C:
        return crc.crc32c()
    if algorithm is Algorithm.SHA256:
        return hashlib.sha256()
    if algorithm in {Algorithm.MD5, Algorithm.ETAG}:
        return hashlib.md5(usedforsecurity=False)
    return None


def _written(algorithm: Algorithm, taker: "crc.Crc | hashlib._Hash | None") -> str:
    if taker is None:
        return ""
    if isinstance(taker, crc.Crc):
        return taker.written()
    return base64.b64encode(taker.digest()).decode() if algorithm is Algorithm.MD5 else taker.hexdigest()


def confirm(what: str, answer: Answer, crc64nvme: str) -> None:
    """Raise CorruptError if the store tells another checksum of what it stored than ours, where both are known."""
    theirs = answers.checksum(answer, Algorithm.CRC64NVME)
    if theirs and crc64nvme and theirs != crc64nvme:
        raise CorruptError(f"unable to {what}: the store has a CRC-64/NVME of {theirs}, not {crc64nvme}")


def headers(algorithm: Algorithm, checksum: str) -> dict[str, str]:
    """Return the headers that carry a checksum; a payload's digest travels in the signature."""
    if algorithm in CRCS:
        # Some servers verify the value only if the algorithm is named besides.
        return {f"x-amz-checksum-{algorithm}": checksum, "x-amz-sdk-checksum-algorithm": algorithm.upper()}
    return {"content-md5": checksum} if algorithm is Algorithm.MD5 else {}
