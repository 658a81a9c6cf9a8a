"""Where an S3 store is: bucket, prefix, and how to get there, from one URL.

    s3://bucket/prefix?endpoint=https://host:port&region=eu-west-1&style=path&credentials=lab

Everything after `?` may be left out: then it is AWS, or what the environment names (AWS_ENDPOINT_URL_S3,
AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION). No secret has a place in it: URLs are in records and logs.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from dropoffd.stores.base import RefusedError

ANONYMOUS = "anonymous"
_OPTIONS = ("endpoint", "region", "style", "credentials")
_HINT = (
    "write it as s3://bucket/prefix, where need be with "
    "?endpoint=https://host:port&region=name&style=path&credentials=profile"
)
# A bucket's name is a host's name, or, on older stores, has capitals and underscores as well.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket, a prefix of keys in it, and the server that has it.

    `credentials` is empty for the usual chain, `anonymous`, or the name of a profile.
    """

    bucket: str
    prefix: str
    scheme: str
    host: str
    region: str
    in_path: bool
    credentials: str = ""

    @property
    def authority(self) -> str:
        """The `Host` of every request."""
        return self.host if self.in_path else f"{self.bucket}.{self.host}"

    @property
    def shielded(self) -> bool:
        """Whether nobody can change bytes on their way: by TLS, or because they never leave this machine."""
        return self.scheme == "https" or is_loopback(self.host)

    def path(self, key: str) -> str:
        """Return the path of a key below the prefix, encoded as it is signed and sent."""
        whole = f"{self.prefix}/{key}" if self.prefix and key else self.prefix or key
        return self.bucket_path + encode(whole)

    @property
    def bucket_path(self) -> str:
        """The path of the bucket itself."""
        return f"/{self.bucket}/" if self.in_path else "/"


def encode(text: str) -> str:
    """Percent-encode all but unreserved characters and slashes (SigV4's UriEncode)."""
    return quote(text, safe="-._~/")


def parse(url: str, environment: Mapping[str, str]) -> Address:
    """Return what `url` says, completed from the environment; raises RefusedError."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RefusedError(f"unable to use the store {bare(url)}: {error}", hint=_HINT) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise RefusedError(f"unable to use the store {bare(url)}: it has no option {unknown[0]!r}", hint=_HINT)
    bucket = parts.netloc
    if not _BUCKET.fullmatch(bucket):  # a user or password before an @ ends here, too
        raise RefusedError(f"unable to use the store {bare(url)}: that is no bucket's name", hint=_HINT)
    region = (
        options.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    )
    named = (
        options.get("endpoint") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    )
    scheme, host = _endpoint(named or f"https://s3.{region}.amazonaws.com")
    # Names with dots match no wildcard certificate; servers of one's own seldom have a name per bucket.
    style = options.get("style") or ("virtual" if not named and "." not in bucket else "path")
    if style not in {"path", "virtual"}:
        raise RefusedError(f"unable to use the style {style!r}: it is path or virtual", hint=_HINT)
    return Address(
        bucket=bucket,
        prefix=unquote(parts.path).strip("/"),
        scheme=scheme,
        host=host,
        region=region,
        in_path=style == "path",
        credentials=options.get("credentials", ""),
    )


def bare(url: str) -> str:
    """Return the URL without what could be a secret that was put there by mistake."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    # A secret may have slashes, so that only the last @ is sure to be behind it.
    return f"{scheme}://{rest.rpartition('@')[2]}"


def is_loopback(host: str) -> bool:
    """Tell whether a host, with or without port, is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _endpoint(url: str) -> tuple[str, str]:
    """Return an endpoint's scheme, and its host as requests name it; raises RefusedError."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:  # its message has what was meant as a port, which may be a secret
        raise RefusedError("unable to use the endpoint: it is no URL", hint=_HINT) from None
    if parts.scheme not in {"http", "https"} or not name or parts.path.strip("/"):
        raise RefusedError(f"unable to use the endpoint {name!r}: it is not https://host or http://host", hint=_HINT)
    if "@" in parts.netloc:
        raise RefusedError(f"unable to use the endpoint {name!r}: it has a user or a password in it", hint=_HINT)
    shown = f"[{name}]" if ":" in name else name
    usual = {"http": 80, "https": 443}[parts.scheme]
    return parts.scheme, shown if port in {None, usual} else f"{shown}:{port}"
