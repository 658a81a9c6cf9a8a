"""Where URIs lead."""

import pytest

from dropoffd.stores.base import RefusedError
from dropoffd.stores.elsewhere.place import Bucket, Local, Web, place_of

LAB = "s3://store/prefix?endpoint=https://minio.lab:9000&region=lab&credentials=lab"


def bucket(uri: str, store: str = "file:///store", **environment: str) -> Bucket:
    """Return the place of an object."""
    place = place_of(uri, store, environment)
    assert isinstance(place, Bucket)
    return place


def test_buckets_are_looked_for_beside_the_store() -> None:
    """Another bucket is where the store is, with its credentials; else where AWS's own variables say."""
    beside = bucket("s3://raw/cats.tar", LAB)
    assert (beside.address.bucket, beside.address.prefix, beside.address.host) == ("raw", "", "minio.lab:9000")
    assert (beside.address.region, beside.address.credentials) == ("lab", "lab")
    named = bucket("s3://raw/cats.tar", AWS_ENDPOINT_URL_S3="http://ceph:8080", AWS_REGION="r")
    assert (named.address.host, named.address.region) == ("ceph:8080", "r")
    assert bucket("s3://raw/cats.tar").address.host == "s3.us-east-1.amazonaws.com"


def test_keys_are_taken_literally() -> None:
    """A key is all that follows the bucket, but for a version's id at its end."""
    for key in ("a b", "a%20b", "a?b#c", "a//b", "?versionId=", "a?versionId=1&x=2"):
        assert (bucket(f"s3://raw/{key}").key, bucket(f"s3://raw/{key}").version) == (key, "")
    versioned = bucket("s3://raw/a?b?versionId=x.Y_1")
    assert (versioned.key, versioned.version) == ("a?b", "x.Y_1")
    assert bucket("s3://raw/a/").uri("a/b c") == "s3://raw/a/b c"


def test_google_is_asked_as_anybody_would() -> None:
    """`gs` is Google's endpoint of the S3 protocol, without credentials unless the store itself is there."""
    public = bucket("gs://raw/a", LAB, AWS_ENDPOINT_URL="http://elsewhere")
    assert (public.address.host, public.address.credentials) == ("storage.googleapis.com", "anonymous")
    own = bucket("gs://raw/a", "s3://mine?endpoint=https://storage.googleapis.com&credentials=google")
    assert (own.address.host, own.address.credentials, own.uri("b")) == (
        "storage.googleapis.com", "google", "gs://raw/b",
    )  # fmt: skip


def test_files_and_pages() -> None:
    """A file's URI is decoded, a page's is sent as it is, encoded where it has to be."""
    assert place_of("file:///a%20b/%FF", "", {}) == Local(b"/a b/\xff")
    assert place_of("file://localhost/a", "", {}) == Local(b"/a")
    assert Local(b"/a b").uri(b"c/\xff") == "file:///a%20b/c/%FF"
    assert place_of("https://host/a%20b c?d=e&f#g", "", {}) == Web("https://host/a%20b%20c?d=e&f")


@pytest.mark.parametrize(
    ("uri", "cause"),
    [("file://other/a", "another machine"), ("az://container/a", "blob.core.windows.net"), ("ftp://h/a", "'ftp'"),
     ("s3://me:secret@raw/a", "no bucket's name"), ("s3:///a", "no bucket's name")],
)  # fmt: skip
def test_what_leads_nowhere_says_why(uri: str, cause: str) -> None:
    """A URI that nobody here can follow is refused with the reason, and no secret in it is repeated."""
    with pytest.raises(RefusedError, match=cause) as caught:
        place_of(uri, "file:///store", {})
    assert "secret" not in str(caught.value)
