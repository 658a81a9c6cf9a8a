"""Tells from a request's line and headers which operation of S3 it is, path-style."""

import enum
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

import msgspec

from support.fault_server.errors import S3Error, invalid_argument, not_implemented

PARTS_MAX = 10_000


class Operation(enum.StrEnum):
    """What a request asks for; by these names faults are scripted and requests counted."""

    PUT = enum.auto()
    GET = enum.auto()
    HEAD = enum.auto()
    DELETE = enum.auto()
    LIST = enum.auto()  # ListObjectsV2
    CREATE = enum.auto()  # CreateMultipartUpload
    PART = enum.auto()  # UploadPart
    PARTS = enum.auto()  # ListParts
    COMPLETE = enum.auto()  # CompleteMultipartUpload
    ABORT = enum.auto()  # AbortMultipartUpload
    UPLOADS = enum.auto()  # ListMultipartUploads
    HEAD_BUCKET = enum.auto()
    CREATE_BUCKET = enum.auto()
    LOCATION = enum.auto()  # GetBucketLocation
    UNKNOWN = enum.auto()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request as S3 understands it; names of headers are in lower case."""

    method: str
    target: str
    operation: Operation
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def upload(self) -> str:
        """The upload that it is about, or nothing."""
        return self.query.get("uploadId", "")

    @property
    def part(self) -> int:
        """The number of the part that it stores; 0 for other operations."""
        return int(self.query["partNumber"]) if self.operation is Operation.PART else 0

    def number(self, name: str, otherwise: int) -> int:
        """Return a parameter that is a number of at least 0."""
        text = self.query.get(name, str(otherwise))
        if not text.isascii() or not text.isdecimal():
            raise invalid_argument(name, text, f"Provided {name} not an integer or within integer range")
        return int(text)


# By method, then by the parameter that decides; the empty one stands for none of the others.
_OF_KEY = {
    "PUT": {"partNumber": Operation.PART, "": Operation.PUT},
    "GET": {"uploadId": Operation.PARTS, "": Operation.GET},
    "HEAD": {"": Operation.HEAD},
    "DELETE": {"uploadId": Operation.ABORT, "": Operation.DELETE},
    "POST": {"uploads": Operation.CREATE, "uploadId": Operation.COMPLETE},
}
_OF_BUCKET = {
    "PUT": {"": Operation.CREATE_BUCKET},
    "GET": {"uploads": Operation.UPLOADS, "location": Operation.LOCATION, "list-type": Operation.LIST},
    "HEAD": {"": Operation.HEAD_BUCKET},
}
_NOT_SUPPORTED = ("x-amz-copy-source", "versionId")


def understood(method: str, target: str, headers: Mapping[str, str]) -> Call:
    """Return what a request asks for; `target` is as it stood in the request line."""
    path, _, query = target.partition("?")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    choices = (_OF_KEY if key else _OF_BUCKET if bucket else {}).get(method, {})
    found = next((choices[name] for name in choices if not name or name in parameters), Operation.UNKNOWN)
    return Call(
        method=method,
        target=target,
        operation=found,
        bucket=bucket,
        key=key,
        query=parameters,
        headers={name.lower(): value for name, value in headers.items()},
    )


def check(call: Call) -> None:
    """Raise the error for a request that this server could not answer truly."""
    if call.operation is Operation.UNKNOWN:
        raise S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
    for name in _NOT_SUPPORTED:
        if call.query.get(name) or name in call.headers:
            raise not_implemented(name)
    if call.operation is Operation.PART and not 1 <= call.number("partNumber", 0) <= PARTS_MAX:
        message = f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive"
        raise invalid_argument("partNumber", call.query["partNumber"], message)
