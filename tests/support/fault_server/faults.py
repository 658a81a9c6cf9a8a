"""What can go wrong with one request, and at which moment of it: plain data, which `exchange.py` carries out.

A request passes its stages in this order: its body arrives, is received, is applied, and the answer goes out. Losing
an answer is `Reset(Stage.APPLIED)`, cutting one off `Close(Stage.ANSWER, after_bytes)`, an error that comes with
status 200 a `Refuse(status=200, ...)`. Of several faults for one request all happen, in the order of their stages.
"""

import enum

import msgspec


class Stage(enum.Enum):
    """A moment of a request."""

    BODY = enum.auto()  # after so many bytes of its body were read; 0: before the first
    RECEIVED = enum.auto()  # all of the body was read, nothing was done with it
    APPLIED = enum.auto()  # done, and not a byte of the answer sent
    ANSWER = enum.auto()  # after headers and so many bytes of the answer's body were sent


class Fault(msgspec.Struct, frozen=True):
    """Base of what can go wrong."""


class Staged(Fault, frozen=True):
    """A fault that happens at one moment."""

    stage: Stage = Stage.RECEIVED
    after_bytes: int = 0


class Reset(Staged, frozen=True):
    """The connection is reset: the client gets an RST."""


class Close(Staged, frozen=True):
    """The connection is closed without a word more."""


class Silence(Staged, frozen=True):
    """Nothing more is read or said; the connection stays."""


class Delay(Staged, frozen=True, kw_only=True):
    """Nothing happens for a while, then all goes on."""

    seconds: float


class Garbage(Staged, frozen=True, kw_only=True):
    """Something that is not HTTP is sent, and the connection closed."""

    data: bytes = b"\x16\x03\x01\x00\xff this is no answer\r\n\r\n"


class Refuse(Staged, frozen=True, kw_only=True):
    """An error is answered; at a moment after APPLIED although the operation was carried out."""

    status: int
    code: str
    message: str = "A scripted fault"
    retry_after: str = ""


class Slow(Fault, frozen=True):
    """The body is read, and the answer's sent, at this speed."""

    bytes_per_second: int


class FlipBit(Fault, frozen=True):
    """A bit of this byte of the body is another one by the time it arrives."""

    at_byte: int = 0


class KeepShort(Fault, frozen=True):
    """Only so many bytes of the body are taken in, as if it ended there; all else is as always."""

    size_bytes: int


class WrongEtag(Fault, frozen=True):
    """The answer names another etag, or an empty one, as Ceph's gateway does on completing."""

    etag: str = "0123456789abcdef0123456789abcdef"


class WrongChecksum(Fault, frozen=True):
    """The answer names another checksum."""


class MalformedXml(Fault, frozen=True):
    """The answer's XML ends in the midst of an element."""


def slow_down(retry_after: str = "", status: int = 503) -> Refuse:
    """Return the store's wish for fewer requests."""
    message = "Please reduce your request rate."
    return Refuse(status=status, code="SlowDown", message=message, retry_after=retry_after)


def expired_token(status: int = 400) -> Refuse:
    """Return the refusal of credentials that were good until now."""
    return Refuse(status=status, code="ExpiredToken", message="The provided token has expired.")


INTERNAL_ERROR = Refuse(status=500, code="InternalError", message="We encountered an internal error.")
TOO_MANY_REQUESTS = Refuse(status=429, code="TooManyRequests", message="Too many requests.")
ACCESS_DENIED = Refuse(status=403, code="AccessDenied", message="Access Denied")
NO_SUCH_BUCKET = Refuse(status=404, code="NoSuchBucket", message="The specified bucket does not exist")
NO_SUCH_UPLOAD = Refuse(status=404, code="NoSuchUpload", message="The specified upload does not exist.")
CONFLICT = Refuse(status=409, code="ConditionalRequestConflict", message="Please retry.")
IN_PROGRESS = Refuse(status=500, code="InternalError", message="This multipart completion is already in progress")
ERROR_INSIDE_200 = Refuse(status=200, code="InternalError", message="We encountered an internal error.")
LOST_ANSWER = Reset(Stage.APPLIED)
