"""Where a URI leads, and by which of our ways: pure.

`s3://bucket/key` is taken literally, as AWS's tools do: nothing in it is percent-encoded, and only a version's id,
`?versionId=`, may follow the key.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes, urlsplit

import msgspec

from dropoffd.stores.base import RefusedError
from dropoffd.stores.s3 import address
from dropoffd.stores.s3.address import Address

_GOOGLE = "storage.googleapis.com"
_VERSION = re.compile(r"\?versionId=([^&?#]+)\Z")


class Web(msgspec.Struct, frozen=True):
    """Something at a URL."""

    url: str


class Bucket(msgspec.Struct, frozen=True):
    """An object, or a prefix of objects, in a bucket that speaks S3; `scheme` is how its URI begins."""

    address: Address
    key: str
    version: str = ""
    scheme: str = "s3"

    def uri(self, key: str) -> str:
        """Return the URI of another object in the bucket."""
        return f"{self.scheme}://{self.address.bucket}/{key}"


class Local(msgspec.Struct, frozen=True):
    """A file or a directory of this machine."""

    path: bytes

    def uri(self, below: bytes) -> str:
        """Return the URI of a file below it."""
        return "file://" + quote(os.path.join(self.path, below))


Place = Web | Bucket | Local


def place_of(uri: str, store: str, environment: Mapping[str, str]) -> Place:
    """Return where a URI leads; raises RefusedError, with the reason, for one that leads nowhere from here.

    `store` is where the version goes: other buckets are looked for beside it, with its endpoint and credentials.
    """
    scheme = uri.partition("://")[0]
    if scheme in {"http", "https"}:
        return Web(as_sent(uri))
    if scheme in {"s3", "gs"}:
        return _bucket(uri, scheme, store, environment)
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
            return Local(unquote_to_bytes(parts.path))
        raise RefusedError("it names a file of another machine")
    if scheme == "az":
        raise RefusedError("it does not tell the account: write https://ACCOUNT.blob.core.windows.net/...")
    raise RefusedError(f"nothing here knows {scheme!r}")


def as_sent(url: str) -> str:
    """Return a URL as a request names it: what is encoded stays as it is, what has to be is, and no fragment."""
    return quote(url.partition("#")[0], safe="%/:=&?~+!$,;'@()*[]")


def _bucket(uri: str, scheme: str, store: str, environment: Mapping[str, str]) -> Bucket:
    bucket, _, key = uri.partition("://")[2].partition("/")
    version = _VERSION.search(key) if scheme == "s3" else None
    if version:
        key = key[: version.start()]
    beside = urlsplit(store).query if store.startswith("s3://") else ""
    options = f"?{beside}" if beside else ""
    place = address.parse(f"s3://{bucket}{options}", environment)
    if scheme == "gs" and place.host != _GOOGLE:
        # As anybody sees it: only a store of Google's has credentials that are good there.
        place = address.parse(f"s3://{bucket}?endpoint=https://{_GOOGLE}&credentials=anonymous", {})
    return Bucket(place, key, version[1] if version else "", scheme)
