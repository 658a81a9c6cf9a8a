"""The errors of S3, as https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html lists them."""

from collections.abc import Mapping


class S3Error(Exception):
    """An answer that is an error; `details` become elements beside its code and message."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})


def no_such_bucket(bucket: str) -> S3Error:
    """Return the error for a bucket that is not there."""
    return S3Error(404, "NoSuchBucket", "The specified bucket does not exist", {"BucketName": bucket})


def no_such_key(key: str) -> S3Error:
    """Return the error for an object that is not there."""
    return S3Error(404, "NoSuchKey", "The specified key does not exist.", {"Key": key})


def no_such_upload(upload: str) -> S3Error:
    """Return the error for an upload that was never begun, was aborted, or is complete."""
    message = (
        "The specified upload does not exist. "
        "The upload ID may be invalid, or the upload may have been aborted or completed."
    )
    return S3Error(404, "NoSuchUpload", message, {"UploadId": upload})


def precondition_failed(condition: str) -> S3Error:
    """Return the error for a condition that does not hold; `condition` is the header's name."""
    message = "At least one of the pre-conditions you specified did not hold"
    return S3Error(412, "PreconditionFailed", message, {"Condition": condition})


def not_implemented(what: str) -> S3Error:
    """Return the error for what this server does not know."""
    message = "A header or query you provided implies functionality that is not implemented"
    return S3Error(501, "NotImplemented", message, {"Header": what})


def invalid_argument(name: str, value: str, message: str) -> S3Error:
    """Return the error for a parameter out of its range."""
    return S3Error(400, "InvalidArgument", message, {"ArgumentName": name, "ArgumentValue": value})
