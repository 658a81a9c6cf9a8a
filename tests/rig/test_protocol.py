"""The fault server, while nothing is made to go wrong, answers botocore as S3 does."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from support.fault_server.behaviour import Behaviour, Verified
from support.fault_server.calls import Operation
from support.fault_server.integrity import of_pieces
from support.fault_server.server import BUCKET, FaultServer
from support.servers.client import client

PART_BYTES = 5 << 20
PLAIN = Behaviour(part_min_bytes=1, page_items=2)
ODD_KEYS = ["a b", "a+b", "a%20b", "a~b", "a/ü", "a(1)!*'", "a&b<c>", "z" * 200]


@pytest.fixture
def s3(fault_server: FaultServer) -> Any:
    """Return botocore's client of the fault server."""
    return client(fault_server.address)


def code(attempt: Callable[[], object]) -> str:
    """Return the code of the error that an attempt ends in."""
    with pytest.raises(ClientError) as caught:
        attempt()
    return str(caught.value.response["Error"]["Code"])


def upload(s3: Any, key: str, bodies: list[bytes], **arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """Begin an upload of some parts; return its id and how to name the parts."""
    identity = s3.create_multipart_upload(Bucket=BUCKET, Key=key, **arguments)["UploadId"]
    stored = [
        s3.upload_part(Bucket=BUCKET, Key=key, UploadId=identity, PartNumber=number, Body=body)
        for number, body in enumerate(bodies, 1)
    ]
    return identity, [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(stored, 1)]


def complete(s3: Any, key: str, identity: str, parts: list[dict[str, Any]], **arguments: str) -> Any:
    """Complete an upload."""
    return s3.complete_multipart_upload(
        Bucket=BUCKET, Key=key, UploadId=identity, MultipartUpload={"Parts": parts}, **arguments
    )


def test_an_object_comes_back_as_it_went(s3: Any) -> None:
    """Bytes, size, etag, metadata and checksum of an object are those it was stored with."""
    body = secrets.token_bytes(3_000_000)
    s3.put_object(Bucket=BUCKET, Key="key", Body=body, Metadata={"note": "a note"})
    found = s3.head_object(Bucket=BUCKET, Key="key", ChecksumMode="ENABLED")
    assert (found["ContentLength"], found["ETag"]) == (len(body), f'"{hashlib.md5(body).hexdigest()}"')
    assert found["Metadata"] == {"note": "a note"}
    assert found["ChecksumCRC64NVME"] == of_pieces(Verified.CRC64NVME, [body])
    assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() == body


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("90-", 90, 100), ("95-200", 95, 100), ("-7", 93, 100)],
)
def test_ranges_are_ranges(s3: Any, wanted: str, start: int, end: int) -> None:
    """A range of an object is answered with 206, its bytes and its place, also across the seams of parts."""
    body = secrets.token_bytes(100)
    s3.put_object(Bucket=BUCKET, Key="key", Body=body)
    found = s3.get_object(Bucket=BUCKET, Key="key", Range=f"bytes={wanted}")
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert found["ContentRange"] == f"bytes {start}-{end - 1}/100"
    assert found["Body"].read() == body[start:end]


def test_what_is_not_there_is_not_found(s3: Any) -> None:
    """Reading beyond an object, a key, an upload or a bucket that is not there is the error S3 has for it."""
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"bytes")
    assert code(lambda: s3.get_object(Bucket=BUCKET, Key="key", Range="bytes=5-")) == "InvalidRange"
    assert code(lambda: s3.get_object(Bucket=BUCKET, Key="nothing")) == "NoSuchKey"
    assert code(lambda: s3.head_object(Bucket=BUCKET, Key="nothing")) == "404"
    assert code(lambda: s3.list_parts(Bucket=BUCKET, Key="key", UploadId="none")) == "NoSuchUpload"
    assert code(lambda: s3.list_objects_v2(Bucket="nowhere")) == "NoSuchBucket"
    s3.delete_object(Bucket=BUCKET, Key="nothing")


def test_conditions_hold_or_nothing_happens(s3: Any, fault_server: FaultServer) -> None:
    """A conditional write happens if its condition holds, else it is refused and changes nothing."""
    first = s3.put_object(Bucket=BUCKET, Key="key", Body=b"one", IfNoneMatch="*")
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="key", Body=b"two", IfNoneMatch="*")) == "PreconditionFailed"
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="none", Body=b"two", IfMatch=first["ETag"])) == "NoSuchKey"
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"two", IfMatch=first["ETag"])
    old = first["ETag"]
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="key", Body=b"three", IfMatch=old)) == "PreconditionFailed"
    assert {key: fault_server.content(key) for key in fault_server.objects} == {"key": b"two"}


def test_listings_come_in_pages_in_the_order_of_keys(s3: Any, fault_server: FaultServer) -> None:
    """All pages together have every key below the prefix once, however odd, in the order of their bytes."""
    fault_server.behaviour = PLAIN
    for size, key in enumerate([*ODD_KEYS, "b"]):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * size)
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="a"))
    expected = sorted(
        ((key, size) for size, key in enumerate(ODD_KEYS) if key.startswith("a")), key=lambda x: x[0].encode()
    )
    assert [(one["Key"], one["Size"]) for page in pages for one in page["Contents"]] == expected
    assert len(pages) == 4
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="nothing")["KeyCount"] == 0


def test_an_upload_in_parts_makes_one_object(s3: Any, fault_server: FaultServer) -> None:
    """Parts become the object in their order, with the etag and the checksum that S3 would give it."""
    bodies = [secrets.token_bytes(PART_BYTES), secrets.token_bytes(PART_BYTES), b"end"]
    identity, parts = upload(s3, "key", bodies, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT")
    whole = of_pieces(Verified.CRC64NVME, bodies)
    done = complete(s3, "key", identity, parts, ChecksumCRC64NVME=whole, IfNoneMatch="*")
    digests = b"".join(hashlib.md5(body).digest() for body in bodies)
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() == b"".join(bodies)
    seam = s3.get_object(Bucket=BUCKET, Key="key", Range=f"bytes={PART_BYTES - 2}-{PART_BYTES + 1}")["Body"].read()
    assert seam == bodies[0][-2:] + bodies[1][:2]
    assert fault_server.uploads == []


def test_parts_are_listed_in_pages(s3: Any, fault_server: FaultServer) -> None:
    """All pages together have every part once, by number, with size, etag and checksum; the last sent is kept."""
    fault_server.behaviour = PLAIN
    identity, _ = upload(s3, "key", [b"one", b"two", b"three", b"four", b"five"])
    s3.upload_part(Bucket=BUCKET, Key="key", UploadId=identity, PartNumber=2, Body=b"twenty")
    pages = list(s3.get_paginator("list_parts").paginate(Bucket=BUCKET, Key="key", UploadId=identity))
    found = [one for page in pages for one in page["Parts"]]
    assert [(one["PartNumber"], one["Size"]) for one in found] == [(1, 3), (2, 6), (3, 5), (4, 4), (5, 4)]
    assert found[1]["ETag"] == f'"{hashlib.md5(b"twenty").hexdigest()}"'
    assert found[1]["ChecksumCRC64NVME"] == of_pieces(Verified.CRC64NVME, [b"twenty"])
    assert len(pages) == 3


def test_uploads_are_listed_and_can_be_aborted(s3: Any, fault_server: FaultServer) -> None:
    """All pages together have every unfinished upload below the prefix; an aborted one is gone."""
    fault_server.behaviour = PLAIN
    begun = sorted((key, upload(s3, key, [b"part"])[0]) for key in ("a/1", "a/1", "a/2", "b"))
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET, Prefix="a/")
    assert [(one["Key"], one["UploadId"]) for page in pages for one in page["Uploads"]] == begun[:3]
    for key, identity in begun:
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=identity)
        assert code(partial(s3.abort_multipart_upload, Bucket=BUCKET, Key=key, UploadId=identity)) == "NoSuchUpload"
    assert fault_server.uploads == []


def test_what_cannot_be_completed_stays_unfinished(s3: Any, fault_server: FaultServer) -> None:
    """A request to complete that is wrong has the error S3 has for it; the upload stays, and no object appears."""
    identity, parts = upload(s3, "key", [b"short", b"end"])
    wrong = [parts[0] | {"ETag": '"0123"'}, parts[1]]
    assert code(lambda: complete(s3, "key", identity, parts)) == "EntityTooSmall"
    fault_server.behaviour = PLAIN
    assert code(lambda: complete(s3, "key", identity, [])) == "MalformedXML"
    assert code(lambda: complete(s3, "key", identity, wrong)) == "InvalidPart"
    assert code(lambda: complete(s3, "key", identity, [*parts, {"PartNumber": 9, "ETag": "x"}])) == "InvalidPart"
    assert code(lambda: complete(s3, "key", identity, parts[::-1])) == "InvalidPartOrder"
    assert code(lambda: complete(s3, "key", identity, parts, ChecksumCRC64NVME="AAAAAAAAAAA=")) == "BadDigest"
    assert code(lambda: complete(s3, "other", identity, parts)) == "NoSuchUpload"
    assert fault_server.objects == {}
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"there")
    assert code(lambda: complete(s3, "key", identity, parts, IfNoneMatch="*")) == "PreconditionFailed"
    assert fault_server.content("key") == b"there"
    complete(s3, "key", identity, parts, IfMatch=fault_server.objects["key"].etag)
    assert fault_server.content("key") == b"shortend"
    assert code(lambda: complete(s3, "key", identity, parts)) == "NoSuchUpload"


WRONG = {
    "ChecksumCRC64NVME": (Verified.CRC64NVME, 8, "BadDigest"),
    "ChecksumCRC32C": (Verified.CRC32C, 4, "BadDigest"),
    "ChecksumSHA256": (Verified.SHA256, 32, "BadDigest"),
    "ContentMD5": (Verified.MD5, 16, "BadDigest"),
}


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_checksums_are_refused_by_a_store_that_verifies_them(
    s3: Any, fault_server: FaultServer, argument: str
) -> None:
    """A checksum that is not the body's is refused and nothing stored; a store that does not know it takes it."""
    kind, size, expected = WRONG[argument]
    wrong = {argument: base64.b64encode(bytes(size)).decode()}
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="key", Body=b"bytes", **wrong)) == expected
    assert fault_server.objects == {}
    fault_server.behaviour = Behaviour(verifies=frozenset(Verified) - {kind})
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"bytes", **wrong)
    assert fault_server.content("key") == b"bytes"


@pytest.mark.parametrize(
    ("kind", "value"),
    [  # of "123456789": the check values of https://reveng.sourceforge.io/crc-catalogue/all.htm, and RFC 6234's kind
        (Verified.CRC64NVME, "ae8b14860a799888"),
        (Verified.CRC32C, "e3069283"),
        (Verified.CRC32, "cbf43926"),
        (Verified.SHA256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ],
)
def test_checksums_are_those_of_the_catalogue(kind: Verified, value: str) -> None:
    """Each checksum of the catalogue's test text, taken in pieces, is the catalogue's value."""
    assert base64.b64decode(of_pieces(kind, [b"1234", b"", b"56789"])).hex() == value


def test_only_what_was_signed_by_a_known_key_is_done(fault_server: FaultServer) -> None:
    """A wrong secret, an unknown key and a wrong session token are each refused."""
    right = fault_server.address
    fault_server.keys = fault_server.add_keys("a-session-token")
    with_token = fault_server.address
    client(with_token).put_object(Bucket=BUCKET, Key="key with ü'(1)~", Body=b"bytes")
    refused = {
        "SignatureDoesNotMatch": msgspec.structs.replace(right, secret_key="wrong"),
        "InvalidAccessKeyId": msgspec.structs.replace(right, access_key="NOBODY"),
        "InvalidToken": msgspec.structs.replace(with_token, session_token="wrong"),
    }
    for expected, address in refused.items():
        stranger = client(address)
        assert code(partial(stranger.put_object, Bucket=BUCKET, Key="other", Body=b"x")) == expected
    assert list(fault_server.objects) == ["key with ü'(1)~"]


def test_another_region_is_refused_and_told_the_right_one(fault_server: FaultServer) -> None:
    """What was signed for another region is refused with the name of this one, with which botocore tries again."""
    client(msgspec.structs.replace(fault_server.address, region="elsewhere")).list_objects_v2(Bucket=BUCKET)
    assert [seen.status for seen in fault_server.journal.requests(Operation.LIST)] == [400, 200]


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_a_wrong_clock_is_refused(s3: Any, fault_server: FaultServer, seconds: int) -> None:
    """A request from more than a quarter of an hour ago or ahead is refused, and told the server's time."""
    fault_server.behaviour = Behaviour(clock_ahead_seconds=seconds)
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="key", Body=b"x")) == "RequestTimeTooSkewed"
    fault_server.behaviour = Behaviour(clock_ahead_seconds=seconds * 0.8)
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"x")


def test_a_stopped_server_keeps_its_objects_and_its_port(s3: Any, fault_server: FaultServer) -> None:
    """While it is stopped connections are refused; started again it has what it had."""
    s3.put_object(Bucket=BUCKET, Key="key", Body=b"bytes")
    fault_server.stop()
    with pytest.raises(Exception, match="Could not connect"):
        s3.get_object(Bucket=BUCKET, Key="key")
    fault_server.start()
    assert s3.get_object(Bucket=BUCKET, Key="key")["Body"].read() == b"bytes"
