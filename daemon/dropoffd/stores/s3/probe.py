"""What an S3 store really does: found by trying, since servers accept what they ignore.

A header that a server does not know is no error: a wrong checksum is answered with 200, and a condition that is not
honoured overwrites. So each is tried with a value that must be refused, on objects of our own that are removed again.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Awaitable

import anyio
import msgspec

from dropoffd.stores.base import (
    AlreadyExistsError,
    Bytes,
    CorruptError,
    DeniedError,
    PreconditionFailedError,
    RefusedError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from dropoffd.stores.http import Answer
from dropoffd.stores.s3 import answers, checksums, uploads
from dropoffd.stores.s3.checksums import Algorithm
from dropoffd.stores.s3.client import Client

_BODY = b"dropoff tries here what this store verifies; this object may be deleted\n"
_OTHER = b"and something else, whose checksums are wrong ones for it\n"
_SHA256 = hashlib.sha256(_BODY).hexdigest()
_RACES, _RACERS = 4, 8
_TRIED = (Algorithm.CRC64NVME, Algorithm.CRC32C, Algorithm.SHA256, Algorithm.MD5)


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a store was seen to do; `verifies` is the best that holds for parts and single objects alike."""

    verifies: Algorithm
    signed_payloads: bool
    creates: bool
    finishes_conditionally: bool
    replaces: bool
    quotes_etags: bool
    deletes: bool
    lists: bool
    probed_at: float


async def probe(client: Client) -> Capabilities:
    """Try everything; raises StoreError if not even a plain object can be put."""
    key = f".dropoff-probe-{secrets.token_hex(8)}"
    etag = answers.etag(await _put(client, key))
    try:
        verified = [algorithm for algorithm in _TRIED if await _verifies(client, key, algorithm)]
        signed = await _refuses(_put(client, key, payload=hashlib.sha256(_OTHER).hexdigest()))
        creates = await _refuses(_put(client, key, {"if-none-match": "*"}))
        finishes_conditionally = await _finishes_conditionally(client, key)
        replaces, quotes = await _replaces(client, key)
        query = (("list-type", "2"), ("prefix", key), ("max-keys", "1"))
        lists = await _allowed(client.call("list objects", "GET", None, query))
    finally:
        with anyio.CancelScope(shield=True):
            deletes = await _allowed(client.call(f"delete {key}", "DELETE", key))
    return Capabilities(
        verifies=verified[0] if verified else Algorithm.ETAG if etag == _md5(_BODY) else Algorithm.READING,
        signed_payloads=signed,
        creates=creates,
        finishes_conditionally=finishes_conditionally,
        replaces=replaces,
        quotes_etags=quotes,
        deletes=deletes,
        lists=lists,
        probed_at=client.now(),
    )


async def _put(
    client: Client, key: str, headers: dict[str, str] | None = None, payload: str = _SHA256, body: bytes = _BODY
) -> Answer:
    return await client.call(f"put {key}", "PUT", key, (), headers, body, payload)


async def _verifies(client: Client, key: str, algorithm: Algorithm) -> bool:
    """Tell whether a part with a wrong checksum is refused and one with the right checksum taken."""
    wrong = checksums.of_body(algorithm, Bytes(_OTHER, "")).checksum
    right = checksums.of_body(algorithm, Bytes(_BODY, "")).checksum
    try:
        upload = await uploads.begin(client, key, {}, algorithm)
    except (RefusedError, CorruptError):
        return False
    try:
        return await _refuses(_put_part(client, key, upload, algorithm, wrong)) and not await _refuses(
            _put_part(client, key, upload, algorithm, right)
        )
    finally:
        await uploads.abandon(client, key, upload)


async def _put_part(client: Client, key: str, upload: str, algorithm: Algorithm, checksum: str) -> Answer:
    return await client.call(
        f"put part 1 of {key}",
        "PUT",
        key,
        (("partNumber", "1"), ("uploadId", upload)),
        checksums.headers(algorithm, checksum),
        _BODY,
        checksum if algorithm is Algorithm.SHA256 else _SHA256,
    )


async def _replaces(client: Client, key: str) -> tuple[bool, bool]:
    """Tell whether `If-Match` is honoured, also when several race, and whether with quotes (RGW 16: only without)."""
    if not await _refuses(_put(client, key, {"if-match": f'"{_md5(_OTHER)}"'})):
        return False, True
    etag = answers.etag(await _put(client, key))
    for quotes in (True, False):
        if not await _refuses(_put(client, key, {"if-match": f'"{etag}"' if quotes else etag})):
            return not await _lets_racers_win(client, key, quotes=quotes), quotes
    return False, True


async def _lets_racers_win(client: Client, key: str, *, quotes: bool) -> bool:
    """Tell whether of several that replace one etag at once more than one succeeds."""
    for turn in range(_RACES):
        etag = answers.etag(await _put(client, key))
        condition = {"if-match": f'"{etag}"' if quotes else etag}
        won: list[bool] = []

        async def racer(body: bytes, won: list[bool] = won, condition: dict[str, str] = condition) -> None:
            payload = hashlib.sha256(body).hexdigest()
            with contextlib.suppress(UnavailableError):  # what RGW says to some of the losers
                won.append(not await _refuses(_put(client, key, condition, payload, body)))

        async with anyio.create_task_group() as group:
            for number in range(_RACERS):
                group.start_soon(racer, _BODY + f"{turn} {number}".encode())
        if won.count(True) > 1:
            return True
    return False


async def _finishes_conditionally(client: Client, key: str) -> bool:
    upload = await uploads.begin(client, key, {}, Algorithm.MD5)
    part = answers.etag(
        await _put_part(
            client, key, upload, Algorithm.MD5, checksums.of_body(Algorithm.MD5, Bytes(_BODY, "")).checksum
        )
    )
    refused = await _refuses(
        client.call(
            f"finish {key}", "POST", key, (("uploadId", upload),), {"if-none-match": "*"},
            *uploads.signed(answers.completion([(1, part, "", "")])),
        )
    )  # fmt: skip
    if refused:
        await uploads.abandon(client, key, upload)
    return refused


async def _refuses(attempt: Awaitable[Answer]) -> bool:
    """Tell whether a request is refused for what it says; trouble of another kind is raised."""
    try:
        await attempt
    except (CorruptError, PreconditionFailedError, AlreadyExistsError, RefusedError):
        return True
    except (ThrottledError, UnavailableError, DeniedError):
        raise
    except StoreError:
        return True
    return False


async def _allowed(attempt: Awaitable[Answer]) -> bool:
    try:
        await attempt
    except DeniedError:
        return False
    return True


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
