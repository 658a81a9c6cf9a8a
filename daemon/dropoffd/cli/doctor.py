"""`dropoff doctor`: find out whether a store does what deliveries need.

Works in this process, without a daemon. What it stores for its checks is below a scratch prefix of its own, and is
removed again.
"""

import asyncio
import secrets
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from dropoff.errors import DropoffError, UsageError
from dropoffd.clock import SystemClock
from dropoffd.stores.base import (
    Bytes,
    DeniedError,
    Limits,
    NoSuchUploadError,
    NotFoundError,
    Overwrite,
    Store,
    StoreError,
    Upload,
    ignore_progress,
)
from dropoffd.stores.conformance import CHECKS, CHECKS_OF_PARTS, Check, body
from dropoffd.stores.registry import provider
from dropoffd.stores.retry import RetryingStore

_CHECK_SECONDS = 120.0
_LOOKS = 10
_SPEED_BYTES = 8 << 20
_SPEED_TIMES = 4
_LEFTOVERS_SHOWN = 20

Tell = Callable[[str], None]


class Finding(msgspec.Struct, frozen=True):
    """One claim of the interface, and what went wrong with it; empty if it holds."""

    claim: str
    trouble: str


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a store."""

    store: str
    limits: Limits
    missing_permissions: tuple[str, ...]
    findings: tuple[Finding, ...]
    latency_seconds: float
    bytes_per_second: float
    unfinished_uploads: tuple[Upload, ...]

    @property
    def healthy(self) -> bool:
        """Whether deliveries can rely on it."""
        return not self.missing_permissions and not any(finding.trouble for finding in self.findings)


async def examine(url: str, tell: Tell) -> Examination:
    """Examine the store at `url`, telling each step; raises StoreError where nothing can be stored at all."""
    if not __debug__:
        raise UsageError("unable to check anything: assertions are switched off", hint="run without -O")
    scratch = below(url, f"dropoff-doctor-{secrets.token_hex(4)}")
    async with _opened(url) as whole, _opened(scratch) as store:
        try:
            await store.prepare()
            tell(_capabilities(store.limits))
            missing = [name async for name in _missing(store)]
            for name in missing:
                tell(f"MISSING permission {name}")
            checks = [*CHECKS, *(CHECKS_OF_PARTS if store.multipart is not None else [])]
            findings = [] if missing else [await _checked(store, check, tell) for check in checks]
            latency, speed = await _latency_seconds(store), await _bytes_per_second(store)
            tell(f"a look takes {latency * 1000:.0f} ms; sending goes at {speed / 2**20:.0f} MiB/s, one at a time")
            leftovers = await _unfinished(whole)
            for upload in leftovers[:_LEFTOVERS_SHOWN]:
                begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(upload.begun_at))
                tell(f"unfinished upload since {begun}: {upload.key} ({upload.upload})")
        finally:
            await _clean(scratch, store)
    return Examination(
        store=url,
        limits=store.limits,
        missing_permissions=tuple(missing),
        findings=tuple(findings),
        latency_seconds=latency,
        bytes_per_second=speed,
        unfinished_uploads=tuple(leftovers),
    )


def below(url: str, name: str) -> str:
    """Return the URL of a store within a store."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Store]:
    found: dict[str, str] = {}

    async def recall(key: str) -> str | None:
        return found.get(key)

    async def remember(key: str, value: str) -> None:
        found[key] = value

    clock = SystemClock()
    store = RetryingStore(await provider(url, clock, recall, remember), clock)
    try:
        yield store
    finally:
        await store.aclose()


def _capabilities(limits: Limits) -> str:
    verified = f"verifies {limits.verifies}" if limits.verifies else "verifies nothing: each object is compared"
    atomic = {True: "atomic", False: "NOT atomic: let one host alone write to it"}
    return (
        f"it {verified}; creating is {atomic[limits.creates_atomically]}; "
        f"replacing is {atomic[limits.replaces_atomically]}"
    )


async def _missing(store: Store) -> AsyncIterator[str]:
    """Yield the permissions, by AWS's names, that are denied."""
    key = "permissions"
    tries: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("s3:PutObject", lambda: store.put(key, body(b"permitted"), Overwrite(), ignore_progress)),
        ("s3:GetObject", lambda: store.get(key)),
        ("s3:ListBucket", lambda: _first(store.list(""))),
        ("s3:DeleteObject", lambda: store.delete(key)),
    ]
    parts = store.multipart
    if parts is not None:
        tries += [
            ("s3:ListMultipartUploadParts", lambda: parts.parts(key, "0")),
            ("s3:AbortMultipartUpload", lambda: parts.abandon(key, "0")),
            ("s3:ListBucketMultipartUploads", lambda: _first(parts.uploads(""))),
        ]
    for name, attempt in tries:
        try:
            await attempt()
        except DeniedError:
            yield name
        except (NotFoundError, NoSuchUploadError):
            continue


async def _first(items: AsyncIterator[object]) -> None:
    async for _ in items:
        return


async def _checked(store: Store, check: Check, tell: Tell) -> Finding:
    claim = " ".join((check.__doc__ or check.__name__).split())
    trouble = ""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check(store)
    except AssertionError as error:
        trouble = str(error) or "it does not"
    except (DropoffError, TimeoutError, ExceptionGroup) as error:
        trouble = f"{type(error).__name__}: {error}"
    tell(f"{'FAILS' if trouble else 'ok   '} {claim}" + (f" -- {trouble}" if trouble else ""))
    return Finding(claim, trouble)


async def _latency_seconds(store: Store) -> float:
    await store.put("latency", body(b"here"), Overwrite(), ignore_progress)
    taken = []
    for _ in range(_LOOKS):
        began = time.monotonic()
        await store.stat("latency")
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


async def _bytes_per_second(store: Store) -> float:
    data: Bytes = body(secrets.token_bytes(_SPEED_BYTES))
    began = time.monotonic()
    for number in range(_SPEED_TIMES):
        await store.put(f"speed/{number}", data, Overwrite(), ignore_progress)
    return _SPEED_TIMES * _SPEED_BYTES / (time.monotonic() - began)


async def _unfinished(store: Store) -> list[Upload]:
    """Return uploads in parts that are not finished; those of deliveries under way are among them."""
    await store.prepare()
    if store.multipart is None:
        return []
    return [upload async for upload in store.multipart.uploads("")]


async def _clean(url: str, store: Store) -> None:
    parts = urlsplit(url)
    if parts.scheme == "file":
        shutil.rmtree(unquote(parts.path), ignore_errors=True)
        return
    try:
        for found in [found async for found in store.list("")]:
            await store.delete(found.key)
        if store.multipart is not None:
            for upload in [upload async for upload in store.multipart.uploads("")]:
                await store.multipart.abandon(upload.key, upload.upload)
    except StoreError as error:
        raise DropoffError(
            f"unable to remove what the checks stored: {error.message}", hint=f"remove it by hand: {url}"
        ) from error


def run(url: str, tell: Tell) -> Examination:
    """Examine a store from a program without an event loop."""
    return asyncio.run(examine(url, tell))
