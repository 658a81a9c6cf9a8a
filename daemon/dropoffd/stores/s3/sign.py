"""AWS Signature Version 4: who sent a request, and that nobody changed it.

Pure. After "Authenticating Requests: Using the Authorization Header" in the Amazon S3 API reference. Ours and not
a library's since it is on the path of every request: botocore's costs 170 us, this one about 15.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"

Query = Sequence[tuple[str, str]]


class Credentials(msgspec.Struct, frozen=True):
    """A key and its secret; `token` is there for temporary ones, which end at `expires_at` (seconds)."""

    access_key: str
    secret_key: str
    token: str = ""
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"<Credentials {self.access_key[:4]}...>"


class Signer:
    """Signs requests for one region and service; keeps the key of the day, which is costly to derive."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._day: tuple[str, str] = ("", "")
        self._key = b""

    def sign(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        payload_sha256: str,
        credentials: Credentials,
        now: float,
    ) -> dict[str, str]:
        """Return `headers`, which must have `host`, with those that prove who sends them.

        `path` is encoded as it is sent; names of headers are in lower case. `payload_sha256` is in hex, or UNSIGNED.
        """
        moment = datetime.fromtimestamp(now, UTC)
        stamp = moment.strftime("%Y%m%dT%H%M%SZ")
        signed = {**headers, "x-amz-content-sha256": payload_sha256, "x-amz-date": stamp}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = ";".join(sorted(signed))
        request = canonical_request(method, path, query, signed, names, payload_sha256)
        day = stamp[:8]
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(day, credentials.secret_key), text.encode(), "sha256").hex()
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _key_of(self, day: str, secret: str) -> bytes:
        if self._day != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._day = key, (day, secret)
        return self._key


def canonical_request(
    method: str, path: str, query: Query, headers: Mapping[str, str], names: str, payload_sha256: str
) -> str:
    """Return the one form of a request that both sides hash."""
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names.split(";"))
    return f"{method}\n{path}\n{query_string(query)}\n{lines}\n{names}\n{payload_sha256}"


def query_string(query: Query) -> str:
    """Return a query, encoded and in order, as it is signed and sent."""
    pairs = sorted((quote(name, safe="-._~"), quote(value, safe="-._~")) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in pairs)
