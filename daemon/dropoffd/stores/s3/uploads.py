"""Requests about uploads in parts that the store and its probing share."""

import hashlib

from dropoffd.stores.base import NoSuchUploadError, NotFoundError, UnavailableError
from dropoffd.stores.s3 import answers, checksums
from dropoffd.stores.s3.checksums import Algorithm
from dropoffd.stores.s3.client import Client


async def begin(client: Client, key: str, headers: dict[str, str], algorithm: Algorithm) -> str:
    """Begin an upload whose parts are verified by `algorithm` and return its id."""
    sent = dict(headers)
    if algorithm in checksums.CRCS:
        sent["x-amz-checksum-algorithm"] = algorithm.upper()
    if algorithm is Algorithm.CRC64NVME:
        sent["x-amz-checksum-type"] = "FULL_OBJECT"
    answer = await client.call(f"begin the upload of {key}", "POST", key, (("uploads", ""),), sent)
    upload = answers.text(answers.parsed(answer.data), "UploadId")
    if not upload:
        raise UnavailableError(f"unable to begin the upload of {key}: the store gave it no id")
    return upload


async def abandon(client: Client, key: str, upload: str) -> None:
    """End an upload and drop its parts; none there is fine."""
    try:
        await client.call(f"abandon the upload of {key}", "DELETE", key, (("uploadId", upload),))
    except (NoSuchUploadError, NotFoundError):
        return


def signed(body: bytes) -> tuple[bytes, str]:
    """Return a small body and its digest, as `Client.call` takes them."""
    return body, hashlib.sha256(body).hexdigest()
