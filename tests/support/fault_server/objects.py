"""Operations on objects: put, get, head, delete, list; each a decision on the bucket that is carried out at once."""

import base64
import re
from collections.abc import Sequence

from support.fault_server import answers
from support.fault_server.answers import Answer, Element
from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.bucket import Bucket, Object, Piece, now
from support.fault_server.calls import Call
from support.fault_server.errors import (
    S3Error,
    invalid_argument,
    no_such_key,
    not_implemented,
    precondition_failed,
)
from support.fault_server.integrity import CHECKSUM_HEADERS, FULL_OBJECT

_KEPT = ("content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "expires")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def kept_headers(call: Call) -> dict[str, str]:
    """Return the headers that stay with an object."""
    kept = {name: value for name, value in call.headers.items() if name in _KEPT or name.startswith("x-amz-meta-")}
    return {"content-type": "binary/octet-stream"} | kept


def check_condition(call: Call, present: Object | None) -> None:
    """Raise the error for a write whose If-None-Match or If-Match does not hold."""
    if (absent := call.headers.get("if-none-match")) is not None:
        if absent != "*":
            raise not_implemented("If-None-Match")
        if present is not None:
            raise precondition_failed("If-None-Match")
    if (wanted := call.headers.get("if-match")) is not None:
        if present is None:
            raise no_such_key(call.key)
        if wanted.strip('"') != present.etag:
            raise precondition_failed("If-Match")


def new(call: Call, piece: Piece, etag: str, checksum: str, kept: Verified | None) -> Object:
    """Return what came in as an object; `kept` is the algorithm of its checksum."""
    return Object(
        key=call.key,
        pieces=(piece,),
        etag=etag,
        headers=kept_headers(call),
        algorithm=kept,
        checksum=checksum,
        checksum_type=FULL_OBJECT if kept else "",
        modified=now(),
    )


def put(bucket: Bucket, call: Call, behaviour: Behaviour, stored: Object) -> Answer:
    """Store what came in, if its condition holds now."""
    if behaviour.put_conditions:
        check_condition(call, bucket.objects.get(call.key))
    bucket.objects[call.key] = stored
    return Answer(headers={"etag": answers.quoted(stored.etag)} | checksum_headers(stored))


def get(bucket: Bucket, call: Call) -> Answer:
    """Return an object, or a range of it; for HEAD the same, and its body is not sent."""
    found = bucket.objects.get(call.key)
    if found is None:
        raise no_such_key(call.key)
    if call.headers.get("if-match", found.etag).strip('"') not in {found.etag, "*"}:
        raise precondition_failed("If-Match")
    headers = found.headers | {
        "etag": answers.quoted(found.etag),
        "last-modified": answers.http_date(found.modified),
        "accept-ranges": "bytes",
    }
    start, end, status = 0, found.size_bytes, 200
    if (wanted := _RANGE.fullmatch(call.headers.get("range", ""))) and wanted[0] != "bytes=-":
        start, end = _span(wanted[1], wanted[2], found.size_bytes)
        headers["content-range"] = f"bytes {start}-{end - 1}/{found.size_bytes}"
        status = 206
    elif call.headers.get("x-amz-checksum-mode") == "ENABLED":
        headers |= checksum_headers(found)
    return Answer(status=status, headers=headers, pieces=found.pieces, start=start, end=end)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        details = {"ActualObjectSize": size}
        raise S3Error(416, "InvalidRange", "The requested range is not satisfiable", details)
    return start, end


def checksum_headers(found: Object) -> dict[str, str]:
    """Return the headers that tell an object's checksum."""
    if found.algorithm is None:
        return {}
    return {CHECKSUM_HEADERS[found.algorithm]: found.checksum, "x-amz-checksum-type": found.checksum_type}


def delete(bucket: Bucket, call: Call) -> Answer:
    """Remove an object; none there is fine."""
    bucket.objects.pop(call.key, None)
    return Answer(status=204)


def listing(bucket: Bucket, call: Call, behaviour: Behaviour) -> Answer:
    """Return a page of the objects below a prefix, in the order of their keys' bytes."""
    if call.query["list-type"] != "2":
        raise not_implemented("list-type")
    prefix, most = call.query.get("prefix", ""), min(call.number("max-keys", 1000), behaviour.page_items)
    token = call.query.get("continuation-token")
    after = _key_of(token) if token is not None else call.query.get("start-after", "")
    keys = sorted((key for key in bucket.objects if key.startswith(prefix)), key=str.encode)
    left = [key for key in keys if key.encode() > after.encode()]
    delimiter = call.query.get("delimiter", "")
    if delimiter:
        return _folders(call, prefix, delimiter, keys)
    page = left[:most]
    encoded = call.query.get("encoding-type") == "url"
    shown = answers.url_encoded if encoded else str
    head: list[Element] = [("Name", call.bucket), ("Prefix", shown(prefix)), ("KeyCount", len(page))]
    head += [("MaxKeys", most), ("IsTruncated", "true" if len(left) > len(page) > 0 else "false")]
    if encoded:
        head.append(("EncodingType", "url"))
    if token is not None:
        head.append(("ContinuationToken", token))
    if len(left) > len(page) > 0:
        head.append(("NextContinuationToken", base64.b64encode(page[-1].encode()).decode()))
    return answers.document("ListBucketResult", [*head, *(_listed(bucket.objects[key], shown(key)) for key in page)])


def _folders(call: Call, prefix: str, delimiter: str, keys: Sequence[str]) -> Answer:
    """Return, on one page, what lies directly below a prefix and the common beginnings of all else."""
    rests = {key: key.removeprefix(prefix).partition(delimiter) for key in keys}
    shared = sorted({prefix + first + cut for first, cut, _ in rests.values() if cut})
    head: list[Element] = [("Name", call.bucket), ("Prefix", prefix), ("Delimiter", delimiter)]
    head += [("KeyCount", len(shared)), ("IsTruncated", "false")]
    return answers.document("ListBucketResult", [*head, *(("CommonPrefixes", [("Prefix", one)]) for one in shared)])


def _key_of(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except ValueError as error:
        raise invalid_argument("continuation-token", token, "The continuation token provided is incorrect") from error


def _listed(found: Object, shown: str) -> Element:
    return (
        "Contents",
        [
            ("Key", shown),
            ("LastModified", answers.timestamp(found.modified)),
            ("ETag", answers.quoted(found.etag)),
            ("Size", found.size_bytes),
            ("StorageClass", "STANDARD"),
        ],
    )
