"""Holds a request's signature against botocore's, so that the provider's own signer meets an independent one.

AWS signs what it decoded and encoded again, not what stood in the request line; so does this.
The rules: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

import hmac
import re
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import msgspec
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.fault_server.calls import Call
from support.fault_server.errors import S3Error

SKEW_MOST_SECONDS = 15 * 60
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request,"
    r"\s*SignedHeaders=(?P<names>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_TIME = "%Y%m%dT%H%M%SZ"
_UNRESERVED = "-_.~"


class Keys(msgspec.Struct, frozen=True):
    """Credentials that the server takes."""

    access_key: str
    secret_key: str
    session_token: str = ""


def verify(call: Call, keys: dict[str, Keys], region: str, now: datetime) -> None:
    """Raise the error for a request that was not signed by one of `keys`, here and now."""
    header = call.headers.get("authorization")
    if header is None:
        raise S3Error(403, "AccessDenied", "Access Denied")
    said = _AUTHORIZATION.fullmatch(header)
    if said is None:
        raise S3Error(400, "AuthorizationHeaderMalformed", "The authorization header that you provided is not valid.")
    if (said["region"], said["service"]) != (region, "s3"):
        message = (
            f"The authorization header is malformed; the region '{said['region']}' is wrong; expecting '{region}'"
        )
        raise S3Error(400, "AuthorizationHeaderMalformed", message, {"Region": region})
    known = keys.get(said["key"])
    if known is None:
        message = "The AWS Access Key Id you provided does not exist in our records."
        raise S3Error(403, "InvalidAccessKeyId", message, {"AWSAccessKeyId": said["key"]})
    _check_time(call, said["day"], now)
    _check_names(call, said["names"].split(";"))
    if known.session_token != call.headers.get("x-amz-security-token", ""):
        raise S3Error(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    if not hmac.compare_digest(_signature(call, known, said["names"].split(";"), region), said["signature"]):
        message = "The request signature we calculated does not match the signature you provided."
        raise S3Error(403, "SignatureDoesNotMatch", message, {"AWSAccessKeyId": said["key"]})


def _check_time(call: Call, day: str, now: datetime) -> None:
    stated = call.headers.get("x-amz-date", "")
    try:
        moment = datetime.strptime(stated, _TIME).replace(tzinfo=UTC)
    except ValueError as error:
        message = "AWS authentication requires a valid Date or x-amz-date header"
        raise S3Error(403, "AccessDenied", message) from error
    if not stated.startswith(day):
        raise S3Error(400, "AuthorizationHeaderMalformed", "Invalid credential date.")
    if abs((now - moment).total_seconds()) > SKEW_MOST_SECONDS:
        raise S3Error(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            {
                "RequestTime": stated,
                "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "MaxAllowedSkewMilliseconds": SKEW_MOST_SECONDS * 1000,
            },
        )


def _check_names(call: Call, names: list[str]) -> None:
    due = {"host"} | {name for name in call.headers if name.startswith("x-amz-")}
    unsigned = sorted(due - set(names))
    if unsigned or "x-amz-content-sha256" not in names:
        message = "There were headers present in the request which were not signed"
        raise S3Error(403, "AccessDenied", message, {"HeadersNotSigned": ", ".join(unsigned)})


def _signature(call: Call, keys: Keys, names: list[str], region: str) -> str:
    path, _, query = call.target.partition("?")
    url = f"http://{call.headers['host']}{_encoded(path, '/')}"
    if query:
        pairs = (pair.partition("=") for pair in query.split("&"))
        url += "?" + "&".join(f"{_encoded(name)}={_encoded(value)}" for name, _, value in pairs)
    request = AWSRequest(method=call.method, url=url, headers={name: call.headers.get(name, "") for name in names})
    request.context["timestamp"] = call.headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials(keys.access_key, keys.secret_key), "s3", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _encoded(text: str, safe: str = "") -> str:
    return quote(unquote(text), safe=_UNRESERVED + safe)
