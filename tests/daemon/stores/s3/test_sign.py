"""Signatures, against those that AWS published and those that its own library makes."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from unittest import mock

import botocore.auth
import botocore.credentials
import msgspec
import pytest
from botocore.awsrequest import AWSRequest
from botocore.utils import percent_encode
from hypothesis import given
from hypothesis import strategies as st

from dropoffd.stores.s3.address import encode
from dropoffd.stores.s3.sign import EMPTY_SHA256, UNSIGNED, Credentials, Query, Signer, query_string

# "Authenticating Requests: Using the Authorization Header" in the Amazon S3 API reference, its four examples.
PUBLISHED = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
MOMENT = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
HOST = "examplebucket.s3.amazonaws.com"


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request of AWS's documentation, and the headers and the signature that it says to send."""

    method: str = "GET"
    path: str = "/"
    query: Query = ()
    headers: Mapping[str, str] = {}
    body: bytes = b""
    names: str = "host;x-amz-content-sha256;x-amz-date"
    signature: str


EXAMPLES = {
    "get object": Example(
        path="/test.txt",
        headers={"range": "bytes=0-9"},
        names="host;range;x-amz-content-sha256;x-amz-date",
        signature="f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put object": Example(
        method="PUT",
        path=encode("/test$file.text"),
        headers={"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        body=b"Welcome to Amazon S3.",
        names="date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        signature="98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "get bucket lifecycle": Example(
        query=(("lifecycle", ""),),
        signature="fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list objects": Example(
        query=(("prefix", "J"), ("max-keys", "2")),
        signature="34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_what_aws_published_is_signed_as_aws_says(example: Example) -> None:
    """Each of the published requests gets the Authorization header that is printed below it."""
    signed = Signer("us-east-1").sign(
        example.method,
        example.path,
        example.query,
        {"host": HOST, **example.headers},
        hashlib.sha256(example.body).hexdigest(),
        PUBLISHED,
        MOMENT,
    )
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders={example.names}, Signature={example.signature}"
    )


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Anything that a store could be asked, by anyone, at any time."""

    method: str
    host: str
    key: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes | None
    credentials: Credentials
    now: float


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
WORDS = st.text(VISIBLE, min_size=1)
# Few characters, so that blanks stand next to each other.
VALUES = st.text(" aZ9,;=~")
NAMES = st.from_regex(r"x-amz-meta-[a-z0-9_-]{1,8}|content-type|content-md5|range|if-none-match", fullmatch=True)
# Few days and few secrets, so that some requests share both, and others one.
TIMES = st.builds(
    lambda day, seconds: day * 86400 + seconds,
    st.sampled_from((0, 11016, 15849, 19782)),
    st.floats(min_value=0, max_value=86399, allow_nan=False),
)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(("GET", "HEAD", "PUT", "POST", "DELETE")),
    host=st.sampled_from((HOST, "127.0.0.1:9000", "[::1]:7480")),
    key=TEXTS,
    query=st.lists(st.tuples(TEXTS, TEXTS), max_size=4),
    headers=st.dictionaries(NAMES, VALUES, max_size=4),
    body=st.none() | st.binary(max_size=100),
    credentials=st.builds(Credentials, WORDS, st.sampled_from(("secret", "another/secret+")), st.just("") | WORDS),
    now=TIMES,
)


@given(st.lists(REQUESTS, min_size=1, max_size=4))
def test_requests_are_signed_as_botocore_signs_them(requests: list[Request]) -> None:
    """Whatever one signer signs, one after another, has the headers that AWS's own library gives it."""
    signer = Signer("eu-west-1")
    for one in requests:
        digest = UNSIGNED if one.body is None else hashlib.sha256(one.body).hexdigest()
        signed = signer.sign(
            one.method,
            "/" + encode(one.key),
            one.query,
            {"host": one.host, **one.headers},
            digest,
            one.credentials,
            one.now,
        )
        assert signed == {"host": one.host, **by_botocore(one)}


def by_botocore(one: Request) -> dict[str, str]:
    """Return the headers that botocore sends with a request; None as its body is one that is not signed."""
    config = SimpleNamespace(s3={"payload_signing_enabled": one.body is not None})
    request = AWSRequest(
        method=one.method,
        url=f"http://{one.host}/{percent_encode(one.key, safe='/~')}",
        headers=one.headers,
        params=one.query,
        data=one.body or b"",
    )
    request.context["client_config"] = config
    keys = botocore.credentials.Credentials(
        one.credentials.access_key, one.credentials.secret_key, one.credentials.token or None
    )
    moment = datetime.fromtimestamp(one.now, UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        botocore.auth.S3SigV4Auth(keys, "s3", "eu-west-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(st.lists(st.tuples(TEXTS, TEXTS)))
def test_a_query_is_signed_and_sent_in_one_order(query: list[tuple[str, str]]) -> None:
    """The order in which a query is given changes nothing in it."""
    assert query_string(query) == query_string(query[::-1])


def test_a_payload_of_nothing_has_the_digest_of_nothing() -> None:
    """The digest of no bytes is the one that AWS prints for them."""
    assert EMPTY_SHA256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_secret_is_not_in_what_is_shown_of_credentials() -> None:
    """Neither the secret nor the token can get into a log by way of `repr`."""
    shown = repr(Credentials("AKIAIOSFODNN7EXAMPLE", "a secret", "a token"))
    assert shown == "<Credentials AKIA...>"
