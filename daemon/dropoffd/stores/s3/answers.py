"""What an S3 store answers: its XML, and its errors as the closed set.

The codes are those of "Error responses" in the Amazon S3 API reference, and what other servers were seen to say.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from xml.etree import ElementTree as ET

import msgspec

from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    DeniedError,
    NoSuchUploadError,
    NotFoundError,
    PreconditionFailedError,
    RefusedError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from dropoffd.stores.http import Answer

Element = ET.Element

_CORRUPT = frozenset(
    {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "ChecksumMismatch", "InvalidDigest"}
)
_THROTTLED = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException", "RequestLimitExceeded",
     "TooManyRequests", "BandwidthLimitExceeded", "ServiceUnavailable", "503"}
)  # fmt: skip
_AGAIN = frozenset(
    {"InternalError", "RequestTimeout", "IncompleteBody", "OperationAborted", "ConditionalRequestConflict",
     "TemporaryRedirect", "XMinioServerNotInitialized"}
)  # fmt: skip
_LOST_UPLOAD = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})
# Whoever makes new keys takes the old ones away.
_REPLACED = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch"})
SKEWED = "RequestTimeTooSkewed"
# Possessive: an answer of nothing but blanks is looked at once.
_FAILED = re.compile(rb"\s*+(?:<\?xml[^>]*+>)?+\s*+<Error[\s>/]")

_FIXES = {
    "AccessDenied": "allow s3:PutObject, s3:GetObject, s3:ListBucket and s3:AbortMultipartUpload below the prefix; "
    "`dropoff doctor` names what is missing",
    "NoSuchBucket": "create the bucket, or correct its name in the store's URL",
    "InvalidBucketName": "correct the bucket's name in the store's URL",
    "InvalidAccessKeyId": "correct the access key: see `aws configure`, or the daemon's environment",
    "SignatureDoesNotMatch": "correct the secret key, or the endpoint and style in the store's URL",
    "QuotaExceeded": "free space in the store, or raise its quota",
    "UserSuspended": "ask whoever runs the store",
    SKEWED: "set this machine's clock",
}
_EXPIRED_FIX = "renew the credentials: `aws sso login`, or new keys in the daemon's environment"


_BY_CODE: tuple[tuple[Collection[str], type[StoreError]], ...] = (
    (_CORRUPT, CorruptError),
    (_LOST_UPLOAD, NoSuchUploadError),
    (_THROTTLED, ThrottledError),
    (_AGAIN, UnavailableError),
    (_EXPIRED, DeniedError),
    (_FIXES, DeniedError),
)
_BY_STATUS: dict[int, type[StoreError]] = {
    301: DeniedError,
    302: DeniedError,
    307: UnavailableError,
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: AlreadyExistsError,
    412: PreconditionFailedError,
    429: ThrottledError,
    501: RefusedError,
    503: ThrottledError,
}


class Problem(msgspec.Struct, frozen=True):
    """What an answer says went wrong; `code` is the HTTP status where there is no other."""

    status: int
    code: str
    message: str

    @property
    def expired(self) -> bool:
        """Whether the credentials were good until now."""
        return self.code in _EXPIRED

    @property
    def stale(self) -> bool:
        """Whether other credentials may do."""
        return self.code in _EXPIRED or self.code in _REPLACED


def problem(method: str, answer: Answer) -> Problem | None:
    """Return what went wrong, or None.

    A write that is answered with 200 may have an error inside, among the blanks that AWS sends while it works
    (CompleteMultipartUpload). What a GET returns may be anything.
    """
    if answer.status < 300 and (method == "GET" or not _FAILED.match(answer.data)):
        return None
    code, message = answer.headers.get("x-amz-error-code", ""), answer.headers.get("x-amz-error-message", "")
    with contextlib.suppress(StoreError):
        root = parsed(answer.data) if answer.data else None
        if root is not None and root.tag == "Error":
            code, message = text(root, "Code") or code, text(root, "Message") or message
    return Problem(answer.status, code or str(answer.status), " ".join(message.split())[:300])


def error(found: Problem, what: str, answer: Answer) -> StoreError:
    """Return a problem as one of the closed set; `what` says what was tried, as in "put key"."""
    cause = f"unable to {what}: {found.code}" + (f" ({found.message})" if found.message else "")
    kind = _kind(found.code, found.status)
    if kind is ThrottledError:
        return ThrottledError(cause, after_seconds=_retry_after(answer))
    if kind is DeniedError:
        return DeniedError(cause, hint=_fix(found))
    return kind(cause)


def _kind(code: str, status: int) -> type[StoreError]:
    for codes, kind in _BY_CODE:
        if code in codes:
            return kind
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return UnavailableError if status < 300 or status >= 500 else RefusedError


def _fix(found: Problem) -> str:
    if found.expired:
        return _EXPIRED_FIX
    if 300 <= found.status < 400:
        return "correct the region or the endpoint in the store's URL"
    return _FIXES.get(found.code, _FIXES["AccessDenied"])


def parsed(data: bytes) -> ET.Element:
    """Return an XML answer without its namespaces; raises UnavailableError for what is none."""
    try:
        # Expat bounds what entities can grow to (since 2.4.1), and the answer's size is bounded before.
        root = ET.fromstring(data.lstrip())  # noqa: S314  # no blank may stand before a declaration
    except (ET.ParseError, LookupError, ValueError) as trouble:  # the last two for encodings that nobody reads
        raise UnavailableError(f"unable to read the store's answer: {trouble}") from trouble
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text(element: ET.Element, name: str) -> str:
    """Return the text of a child, empty where there is none."""
    return (element.findtext(name) or "").strip()


def raw_text(element: ET.Element, name: str) -> str:
    """Return the text of a child as it is: a key may begin or end with a space."""
    return element.findtext(name) or ""


def children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield the children of a name."""
    yield from element.iterfind(name)


def number(element: ET.Element, name: str) -> int:
    """Return the number in a child; raises UnavailableError where there is none."""
    found = text(element, name)
    try:
        return int(found)
    except ValueError:
        raise UnavailableError(f"unable to read the store's answer: {name} is {found!r}") from None


def _retry_after(answer: Answer) -> float:
    # The other form, a date, depends on two clocks; nobody was seen to send it for this.
    found = answer.headers.get("retry-after", "")
    return min(float(found), 3600.0) if found.isdecimal() else 0.0


def moment(text: str) -> float:
    """Return a time as listings tell it (ISO 8601; of UTC, unless it says else) in seconds; 0 for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def modified_at(answer: Answer) -> float:
    """Return when an object was stored, as a header tells it (RFC 9110, 8.8.2); 0 where none does."""
    try:
        return parsedate_to_datetime(answer.headers.get("last-modified", "")).timestamp()
    except ValueError:
        return 0.0


def etag(answer: Answer) -> str:
    """Return the etag in an answer's headers, without quotes; empty where there is none."""
    return answer.headers.get("etag", "").strip('"')


def checksum(answer: Answer, name: str) -> str:
    """Return a checksum that an answer tells of what was stored, in a header or its XML; empty for none."""
    found = answer.headers.get(f"x-amz-checksum-{name}", "")
    if not found and answer.data:
        with contextlib.suppress(UnavailableError):
            found = text(parsed(answer.data), f"Checksum{name.upper()}")
    # One of several parts' checksums has their number behind it, and says nothing of the whole.
    return "" if "-" in found else found


def completion(parts: Iterable[tuple[int, str, str, str]]) -> bytes:
    """Return the body of CompleteMultipartUpload for parts as (number, etag, checksum's element, checksum)."""
    root = ET.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
    for number_, etag_, element, checksum in parts:
        part = ET.SubElement(root, "Part")
        ET.SubElement(part, "PartNumber").text = str(number_)
        ET.SubElement(part, "ETag").text = f'"{etag_}"'
        if element:
            ET.SubElement(part, element).text = checksum
    return ET.tostring(root)
