"""Where a store is, from its URL and the environment."""

from collections.abc import Mapping
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoffd.stores.base import RefusedError
from dropoffd.stores.s3.address import Address, bare, encode, is_loopback, parse

AWS = "https://s3.us-east-1.amazonaws.com"


def endpoint(found: Address) -> str:
    """Return where requests go, without the bucket."""
    return f"{found.scheme}://{found.host}"


def test_a_bucket_alone_is_at_aws() -> None:
    """Without options or environment a store is AWS's in its first region, with the bucket in the host's name."""
    assert parse("s3://bucket", {}) == Address(
        bucket="bucket",
        prefix="",
        scheme="https",
        host="s3.us-east-1.amazonaws.com",
        region="us-east-1",
        in_path=False,
        credentials="",
    )


def test_every_option_is_taken() -> None:
    """Endpoint, region, style and credentials are what the URL says, whatever the environment does."""
    url = "s3://bucket/a/b?endpoint=http://host:9000&region=eu-west-1&style=virtual&credentials=lab"
    environment = {"AWS_REGION": "elsewhere", "AWS_ENDPOINT_URL_S3": "https://elsewhere"}
    assert parse(url, environment) == Address(
        bucket="bucket",
        prefix="a/b",
        scheme="http",
        host="host:9000",
        region="eu-west-1",
        in_path=False,
        credentials="lab",
    )


@pytest.mark.parametrize(
    ("environment", "region", "at"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1", "https://s3.eu-west-1.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2", "https://s3.eu-west-2.amazonaws.com"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1", None),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2", None),
        ({"AWS_ENDPOINT_URL": "http://all:1"}, "us-east-1", "http://all:1"),
        ({"AWS_ENDPOINT_URL_S3": "http://s3:2", "AWS_ENDPOINT_URL": "http://all:1"}, "us-east-1", "http://s3:2"),
    ],
)
def test_what_the_url_leaves_out_the_environment_says(
    environment: Mapping[str, str], region: str, at: str | None
) -> None:
    """Region and endpoint are those that AWS's tools would take, the more special variable first."""
    found = parse("s3://bucket/prefix", environment)
    assert found.region == region
    assert at is None or endpoint(found) == at


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("s3://bucket/p", "bucket.s3.us-east-1.amazonaws.com", "/p/key"),
        ("s3://with.dots/p", "s3.us-east-1.amazonaws.com", "/with.dots/p/key"),
        ("s3://bucket/p?style=path", "s3.us-east-1.amazonaws.com", "/bucket/p/key"),
        ("s3://bucket/p?endpoint=http://host:9000", "host:9000", "/bucket/p/key"),
        ("s3://bucket/p?endpoint=http://host:9000&style=virtual", "bucket.host:9000", "/p/key"),
        ("s3://bucket?endpoint=http://host", "host", "/bucket/key"),
        ("s3://bucket/?endpoint=http://host", "host", "/bucket/key"),
        ("s3://bucket//a/b/?endpoint=http://host", "host", "/bucket/a/b/key"),
        ("s3://bucket/a%20b%2Bc?endpoint=http://host", "host", "/bucket/a%20b%2Bc/key"),
    ],
)
def test_the_bucket_is_in_the_path_or_in_the_host(url: str, authority: str, path: str) -> None:
    """The style decides where the bucket's name goes; unasked it is what its name and its server allow."""
    found = parse(url, {})
    assert (found.authority, found.path("key")) == (authority, path)


def test_a_prefix_without_a_key_is_itself() -> None:
    """Neither a missing key nor a missing prefix leaves a slash behind."""
    assert parse("s3://bucket/a?style=path", {}).path("") == "/bucket/a"
    assert parse("s3://bucket?style=path", {}).path("") == "/bucket/"


@pytest.mark.parametrize(
    ("named", "host"),
    [
        ("https://host:443", "host"),
        ("http://host:80", "host"),
        ("https://host:80", "host:80"),
        ("http://host:443", "host:443"),
        ("http://[::1]:9000", "[::1]:9000"),
        ("https://[::1]", "[::1]"),
        ("https://HOST/", "host"),
    ],
)
def test_a_host_is_as_requests_name_it(named: str, host: str) -> None:
    """`Host` is signed: it has a port only where that is not the scheme's own, and brackets around IPv6."""
    assert parse(f"s3://bucket?endpoint={named}", {}).host == host


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://b",
        "s3://-bucket",
        "s3://bucket:9000/prefix",
        "s3://buck et",
        "s3://bucket?endpoint=host:9000",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://",
        "s3://bucket?endpoint=http://host/path",
        "s3://bucket?endpoint=http://host:port",
        "s3://bucket?endpoint=http://host:99999",
        "s3://bucket?endpoint=http://[::1",
        "s3://[bucket",
        "s3://bucket?style=other",
        "s3://bucket?unheard=of",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    """What cannot be used is refused at once, with how to write it."""
    with pytest.raises(RefusedError, match="unable to use the") as refused:
        parse(url, {})
    assert "s3://bucket/prefix" in refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAEXAMPLE:SECRET@bucket/prefix",
        "s3://SECRET@bucket/prefix",
        "s3://AKIAEXAMPLE:of/SECRET@bucket/prefix",
        "s3://bucket/prefix?secret_key=SECRET",
        "s3://bucket/prefix?access_key=AKIAEXAMPLE&secret=SECRET",
        "s3://bucket/prefix?endpoint=http://AKIAEXAMPLE:SECRET@host",
        "s3://bucket/prefix?endpoint=http://AKIAEXAMPLE:SECRET/of@host",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    """URLs are in records and logs: a store whose URL has a secret is not used, nor is the secret said again."""
    with pytest.raises(RefusedError) as refused:
        parse(url, {})
    assert "SECRET" not in refused.value.message + refused.value.hint
    assert refused.value.__cause__ is None
    assert "SECRET" not in bare(url)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("store.localhost:9000", True),
        ("127.0.0.1:9000", True),
        ("127.1.2.3", True),
        ("[::1]:9000", True),
        ("0.0.0.0", False),
        ("10.0.0.1:9000", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_only_this_machine_and_tls_shield_bytes(host: str, is_ours: bool) -> None:
    """Bytes are out of others' reach where they never leave this machine, or by TLS."""
    assert is_loopback(host) is is_ours
    assert parse(f"s3://bucket?endpoint=http://{host}", {}).shielded is is_ours
    assert parse(f"s3://bucket?endpoint=https://{host}", {}).shielded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_encoded_key_is_ascii_and_the_same_key(key: str) -> None:
    """A key is sent in unreserved characters, slashes and escapes alone, and decodes to itself."""
    encoded = encode(key)
    assert set(encoded) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%")
    assert unquote(encoded) == key
