"""Operations on uploads in parts: create, part, parts, complete, abort, uploads.

The rules: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html.
"""

import hashlib
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import msgspec

from support.fault_server import answers
from support.fault_server import bucket as shelf
from support.fault_server.answers import Answer, Element
from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.bucket import Bucket, Object, Part, Piece, Upload, now
from support.fault_server.calls import Call
from support.fault_server.errors import S3Error, no_such_upload
from support.fault_server.integrity import CHECKSUM_HEADERS, COMPOSITE, FULL_OBJECT, composite, of_pieces
from support.fault_server.objects import check_condition, kept_headers

# AWS makes a whole object's checksum only of those that can be combined; of the others it hashes the hashes.
_DEFAULT_TYPE = {
    Verified.CRC64NVME: FULL_OBJECT,
    Verified.CRC32C: COMPOSITE,
    Verified.CRC32: COMPOSITE,
    Verified.SHA256: COMPOSITE,
}
_XML_CHECKSUM = {kind: f"Checksum{kind.upper()}" for kind in CHECKSUM_HEADERS}


class Named(msgspec.Struct, frozen=True):
    """A part as the request to complete names it."""

    number: int
    etag: str
    checksum: str


def create(bucket: Bucket, call: Call, behaviour: Behaviour) -> Answer:
    """Begin an upload."""
    algorithm, kind = _algorithm(call, behaviour)
    upload = Upload(
        upload=secrets.token_urlsafe(24),
        key=call.key,
        headers=kept_headers(call),
        algorithm=algorithm,
        stated_algorithm="x-amz-checksum-algorithm" in call.headers,
        checksum_type=kind,
        begun=now(),
        parts={},
    )
    bucket.uploads[upload.upload] = upload
    content = [("Bucket", call.bucket), ("Key", call.key), ("UploadId", upload.upload)]
    answer = answers.document("InitiateMultipartUploadResult", content)
    return msgspec.structs.replace(answer, headers=answer.headers | _algorithm_headers(upload))


def _algorithm(call: Call, behaviour: Behaviour) -> tuple[Verified | None, str]:
    """Return the checksum that parts and object will have; a store that knows none keeps none."""
    stated = call.headers.get("x-amz-checksum-algorithm", "CRC64NVME").lower()
    if stated not in set(_DEFAULT_TYPE):
        raise S3Error(400, "InvalidRequest", "Checksum algorithm provided is unsupported.")
    algorithm = Verified(stated)
    if algorithm not in behaviour.verifies:
        return None, ""
    kind = call.headers.get("x-amz-checksum-type", _DEFAULT_TYPE[algorithm])
    if (algorithm, kind) in {(Verified.CRC64NVME, COMPOSITE), (Verified.SHA256, FULL_OBJECT)}:
        message = f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm."
        raise S3Error(400, "InvalidRequest", message)
    return algorithm, kind


def _algorithm_headers(upload: Upload) -> dict[str, str]:
    if upload.algorithm is None or not upload.stated_algorithm:
        return {}
    return {"x-amz-checksum-algorithm": upload.algorithm.upper(), "x-amz-checksum-type": upload.checksum_type}


def of(bucket: Bucket, call: Call) -> Upload:
    """Return the upload that a request names."""
    upload = bucket.uploads.get(call.upload)
    if upload is None or upload.key != call.key:
        raise no_such_upload(call.upload)
    return upload


def check_part(upload: Upload, call: Call, behaviour: Behaviour) -> None:
    """Raise the error for a part whose checksum is of another algorithm than its upload's."""
    for kind, name in CHECKSUM_HEADERS.items():
        if name in call.headers and kind in behaviour.verifies and kind is not upload.algorithm:
            expected = upload.algorithm if upload.stated_algorithm else None
            message = f"Checksum Type mismatch occurred, expected checksum Type: {expected or 'null'}, actual: {kind}"
            raise S3Error(400, "InvalidRequest", message)


def part(bucket: Bucket, call: Call, piece: Piece, etag: str, checksum: str) -> Answer:
    """Keep a part, in place of any other of its number."""
    upload = of(bucket, call)
    kept = Part(number=call.part, piece=piece, etag=etag, checksum=checksum, modified=now())
    upload.parts[kept.number] = kept
    headers = {"etag": answers.quoted(kept.etag)}
    if upload.algorithm:
        headers[CHECKSUM_HEADERS[upload.algorithm]] = kept.checksum
    return Answer(headers=headers)


def parts(bucket: Bucket, call: Call, behaviour: Behaviour) -> Answer:
    """Return a page of the parts that are there."""
    upload = of(bucket, call)
    most = min(call.number("max-parts", 1000), behaviour.page_items)
    left = [number for number in sorted(upload.parts) if number > call.number("part-number-marker", 0)]
    page = left[:most]
    content: list[Element] = [("Bucket", call.bucket), ("Key", call.key), ("UploadId", upload.upload)]
    content += [("PartNumberMarker", call.number("part-number-marker", 0)), ("MaxParts", most)]
    content.append(("NextPartNumberMarker", page[-1] if page else 0))
    content.append(("IsTruncated", "true" if len(left) > len(page) > 0 else "false"))
    if upload.algorithm and upload.stated_algorithm:
        content += [("ChecksumAlgorithm", upload.algorithm.upper()), ("ChecksumType", upload.checksum_type)]
    content += [_listed(upload, upload.parts[number]) for number in page]
    return answers.document("ListPartsResult", content)


def _listed(upload: Upload, one: Part) -> Element:
    content: list[Element] = [("PartNumber", one.number), ("LastModified", answers.timestamp(one.modified))]
    content += [("ETag", answers.quoted(one.etag)), ("Size", one.piece.size_bytes)]
    if upload.algorithm:
        content.append((_XML_CHECKSUM[upload.algorithm], one.checksum))
    return "Part", content


def complete(bucket: Bucket, call: Call, behaviour: Behaviour, body: bytes) -> Answer:
    """Make the object of the parts that are named, if all is as it should be and the condition holds."""
    try:
        upload = of(bucket, call)
    except S3Error as error:
        if behaviour.unknown_upload_is_500:
            message = "This multipart completion is already in progress"
            raise S3Error(500, "InternalError", message) from error
        raise
    chosen = _chosen(upload, _named(body, upload), behaviour)
    stored = Object(
        key=call.key,
        pieces=tuple(one.piece for one in chosen),
        etag=_etag(chosen),
        headers=upload.headers,
        algorithm=upload.algorithm,
        checksum=_checksum(upload, chosen),
        checksum_type=upload.checksum_type,
        modified=now(),
    )
    _check_whole(call, behaviour, stored)
    if behaviour.complete_conditions:
        check_condition(call, bucket.objects.get(call.key))
    bucket.objects[call.key] = stored
    del bucket.uploads[upload.upload]
    content = [("Location", f"http://{call.headers['host']}/{call.bucket}/{call.key}"), ("Bucket", call.bucket)]
    content += [("Key", call.key), ("ETag", answers.quoted(stored.etag))]
    if stored.algorithm:
        content += [(_XML_CHECKSUM[stored.algorithm], stored.checksum), ("ChecksumType", stored.checksum_type)]
    # AWS sends white space while it works, so that the connection stays up.
    return answers.document("CompleteMultipartUploadResult", content, before="\n  \n")


def _named(body: bytes, upload: Upload) -> list[Named]:
    problem = S3Error(400, "MalformedXML", "The XML you provided was not well-formed or did not validate.")
    checksum = f"{{*}}{_XML_CHECKSUM[upload.algorithm]}" if upload.algorithm else ""
    try:
        named = [
            Named(
                int(one.findtext("{*}PartNumber", "")),
                one.findtext("{*}ETag", "").strip('"'),
                one.findtext(checksum, "") if checksum else "",
            )
            for one in ET.fromstring(body).iterfind("{*}Part")
        ]
    except (ET.ParseError, ValueError) as error:
        raise problem from error
    if not named:
        raise problem
    return named


def _chosen(upload: Upload, named: Sequence[Named], behaviour: Behaviour) -> list[Part]:
    """Return the parts that are named, checked one by one and against each other."""
    numbers = [one.number for one in named]
    if numbers != sorted(set(numbers)):
        raise S3Error(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    composed = upload.checksum_type == COMPOSITE and upload.stated_algorithm
    for one in named:
        there = upload.parts.get(one.number)
        proven = there is not None and (one.checksum == there.checksum or not (one.checksum or composed))
        if there is None or one.etag != there.etag or not proven:
            message = "One or more of the specified parts could not be found, or their etags do not match."
            details = {"UploadId": upload.upload, "PartNumber": one.number, "ETag": one.etag}
            raise S3Error(400, "InvalidPart", message, details)
    chosen = [upload.parts[number] for number in numbers]
    for part in chosen[:-1]:
        if part.piece.size_bytes < behaviour.part_min_bytes:
            details = {
                "ProposedSize": part.piece.size_bytes,
                "MinSizeAllowed": behaviour.part_min_bytes,
                "PartNumber": part.number,
                "ETag": part.etag,
            }
            message = "Your proposed upload is smaller than the minimum allowed size"
            raise S3Error(400, "EntityTooSmall", message, details)
    return chosen


def _etag(chosen: Sequence[Part]) -> str:
    digests = b"".join(bytes.fromhex(one.etag) for one in chosen)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(chosen)}"


def _checksum(upload: Upload, chosen: Sequence[Part]) -> str:
    """Return the whole object's checksum; read anew, so that a provider's way of combining meets another way."""
    if upload.algorithm is None:
        return ""
    if upload.checksum_type == COMPOSITE:
        return composite(upload.algorithm, [one.checksum for one in chosen])
    return of_pieces(upload.algorithm, shelf.read([one.piece for one in chosen]))


def _check_whole(call: Call, behaviour: Behaviour, stored: Object) -> None:
    """Raise the error for an object that is not what the request to complete says of it."""
    for kind, name in CHECKSUM_HEADERS.items():
        stated = call.headers.get(name)
        if stated is not None and kind in behaviour.verifies and stated != stored.checksum:
            message = f"The {kind.upper()} you specified did not match the calculated checksum."
            raise S3Error(400, "BadDigest", message)
    size = call.headers.get("x-amz-mp-object-size", str(stored.size_bytes))
    if size != str(stored.size_bytes):
        message = "The provided 'x-amz-mp-object-size' header does not match what was computed."
        raise S3Error(400, "InvalidRequest", message)


def abort(bucket: Bucket, call: Call) -> Answer:
    """Drop an upload and its parts."""
    del bucket.uploads[of(bucket, call).upload]
    return Answer(status=204)


def uploads(bucket: Bucket, call: Call, behaviour: Behaviour) -> Answer:
    """Return a page of the unfinished uploads below a prefix, by key, then by id."""
    prefix, most = call.query.get("prefix", ""), min(call.number("max-uploads", 1000), behaviour.page_items)
    marker = (call.query.get("key-marker", ""), call.query.get("upload-id-marker", "\U0010ffff"))
    found = sorted((one.key, one.upload) for one in bucket.uploads.values() if one.key.startswith(prefix))
    left = [one for one in found if one > marker]
    page = left[:most]
    shown = answers.url_encoded if call.query.get("encoding-type") == "url" else str
    content: list[Element] = [("Bucket", call.bucket), ("Prefix", shown(prefix)), ("MaxUploads", most)]
    content.append(("IsTruncated", "true" if len(left) > len(page) > 0 else "false"))
    if len(left) > len(page) > 0:
        content += [("NextKeyMarker", shown(page[-1][0])), ("NextUploadIdMarker", page[-1][1])]
    if call.query.get("encoding-type") == "url":
        content.append(("EncodingType", "url"))
    for key, upload in page:
        begun = answers.timestamp(bucket.uploads[upload].begun)
        content.append(("Upload", [("Key", shown(key)), ("UploadId", upload), ("Initiated", begun)]))
    return answers.document("ListMultipartUploadsResult", content)
