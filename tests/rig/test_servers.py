"""The servers that others wrote do what the tests of the S3 provider build on."""

import http.client
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from support.servers.address import Address
from support.servers.client import client
from support.servers.rclone import Rclone
from support.servers.rgw import Rgw

PART_BYTES = 5 << 20


def test_an_object_can_be_stored_and_read(s3_bucket: Address) -> None:
    """An object comes back as it went, is listed, and can be deleted."""
    s3, bucket = client(s3_bucket), s3_bucket.bucket
    body = secrets.token_bytes(100_000)
    s3.put_object(Bucket=bucket, Key="a/key", Body=body)
    assert s3.get_object(Bucket=bucket, Key="a/key")["Body"].read() == body
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/key"]
    s3.delete_object(Bucket=bucket, Key="a/key")
    assert s3.list_objects_v2(Bucket=bucket).get("Contents", []) == []


def test_an_object_can_be_stored_in_parts(s3_bucket: Address) -> None:
    """Parts that were stored are listed and make an object in their order."""
    s3, bucket = client(s3_bucket), s3_bucket.bucket
    bodies = [secrets.token_bytes(PART_BYTES), b"end"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    named = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate(bodies, 1)
    ]
    found = s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)["Parts"]
    assert [(one["PartNumber"], one["Size"]) for one in found] == [(1, PART_BYTES), (2, 3)]
    s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": named})
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"".join(bodies)


def test_the_gateway_creates_atomically(rgw: Rgw) -> None:
    """Of eight that create one key at once, one succeeds on Ceph's gateway."""

    def create(number: int) -> int:
        try:
            client(rgw.address).put_object(
                Bucket=rgw.address.bucket, Key="raced", Body=str(number).encode(), IfNoneMatch="*"
            )
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [200, *[412] * 7]


def test_a_killed_gateway_comes_back_with_its_objects(rgw: Rgw) -> None:
    """While it is dead connections are refused; started again it has what it had."""
    s3, bucket = client(rgw.address), rgw.address.bucket
    s3.put_object(Bucket=bucket, Key="survivor", Body=b"bytes")
    rgw.kill()
    try:
        with pytest.raises(EndpointConnectionError):
            s3.get_object(Bucket=bucket, Key="survivor")
    finally:
        rgw.start()
    assert s3.get_object(Bucket=bucket, Key="survivor")["Body"].read() == b"bytes"


def test_a_killed_rclone_comes_back_with_its_objects(start_server: Any) -> None:
    """While it is dead connections are refused; started again it has what it had."""
    rclone: Rclone = start_server("rclone")
    s3, bucket = client(rclone.address), rclone.address.bucket
    s3.put_object(Bucket=bucket, Key="survivor", Body=b"bytes")
    rclone.kill()
    with pytest.raises(EndpointConnectionError):
        s3.get_object(Bucket=bucket, Key="survivor")
    rclone.start()
    assert s3.get_object(Bucket=bucket, Key="survivor")["Body"].read() == b"bytes"


def test_a_frozen_osd_makes_requests_hang(rgw: Rgw) -> None:
    """Nothing is answered while it is frozen; thawed, it answers."""
    s3, bucket = client(rgw.address), rgw.address.bucket
    connection = http.client.HTTPConnection(rgw.address.endpoint.removeprefix("http://"), timeout=1)
    rgw.freeze()
    try:
        connection.request("GET", f"/{bucket}")
        with pytest.raises(TimeoutError):
            connection.getresponse()
    finally:
        connection.close()
        rgw.thaw()
    s3.put_object(Bucket=bucket, Key="thawed", Body=b"bytes")


@pytest.fixture
def narrow() -> Iterator[Rgw]:
    """Return a gateway of its own that serves two requests at once."""
    server = Rgw({"rgw max concurrent requests": "2"})
    yield server
    server.stop()


def test_a_gateway_with_too_much_to_do_asks_to_slow_down(narrow: Rgw) -> None:
    """A gateway that is set to serve two at once answers others with 503 SlowDown."""

    def put(number: int) -> str:
        try:
            client(narrow.address).put_object(Bucket=narrow.address.bucket, Key=str(number), Body=bytes(4 << 20))
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "stored"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(put, range(32)))
    assert set(outcomes) == {"stored", "SlowDown"}
