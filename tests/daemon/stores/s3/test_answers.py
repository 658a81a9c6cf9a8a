"""What stores answer, and what it is taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropoffd.stores.base import (
    AlreadyExistsError,
    CorruptError,
    DeniedError,
    NoSuchUploadError,
    NotFoundError,
    PreconditionFailedError,
    RefusedError,
    StoreError,
    ThrottledError,
    UnavailableError,
)
from dropoffd.stores.http import Answer
from dropoffd.stores.s3 import answers
from dropoffd.stores.s3.answers import Problem

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
ENCODED = [
    f'<?xml version="1.0" encoding="{name}"?><Error/>'.encode() for name in ("unheard-of", "shift_jis", "utf-16")
]


def refusal(code: str, message: str = "", status: int = 400, namespace: str = "", **headers: str) -> Answer:
    """Return an answer as servers give it to what they do not do."""
    body = f"{DECLARATION}<Error{namespace}><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode())


def raised(answer: Answer, method: str = "PUT") -> StoreError:
    """Return what an answer is as an error."""
    found = answers.problem(method, answer)
    assert found is not None
    return answers.error(found, "put key", answer)


# Statuses are those of "Error responses" in the S3 API reference; where servers differ, what one was seen to send.
CODES: dict[tuple[str, int], type[StoreError]] = {
    ("BadDigest", 400): CorruptError,
    ("InvalidDigest", 400): CorruptError,
    ("XAmzContentSHA256Mismatch", 400): CorruptError,
    ("XAmzContentChecksumMismatch", 400): CorruptError,
    ("NoSuchUpload", 404): NoSuchUploadError,
    ("InvalidPart", 400): NoSuchUploadError,
    ("InvalidPartOrder", 400): NoSuchUploadError,
    ("EntityTooSmall", 400): NoSuchUploadError,
    ("SlowDown", 503): ThrottledError,
    ("SlowDown", 400): ThrottledError,
    ("ServiceUnavailable", 503): ThrottledError,
    ("TooManyRequests", 429): ThrottledError,
    ("InternalError", 500): UnavailableError,
    ("RequestTimeout", 400): UnavailableError,
    ("IncompleteBody", 400): UnavailableError,
    ("OperationAborted", 409): UnavailableError,
    ("ConditionalRequestConflict", 409): UnavailableError,
    ("TemporaryRedirect", 307): UnavailableError,
    ("AccessDenied", 403): DeniedError,
    ("NoSuchBucket", 404): DeniedError,
    ("InvalidAccessKeyId", 403): DeniedError,
    ("SignatureDoesNotMatch", 403): DeniedError,
    ("ExpiredToken", 400): DeniedError,
    ("InvalidToken", 400): DeniedError,
    ("RequestTimeTooSkewed", 403): DeniedError,
    ("QuotaExceeded", 403): DeniedError,
    ("PermanentRedirect", 301): DeniedError,
    ("NoSuchKey", 404): NotFoundError,
    ("PreconditionFailed", 412): PreconditionFailedError,
    ("BucketAlreadyExists", 409): AlreadyExistsError,
    ("NotImplemented", 501): RefusedError,
    ("InvalidRange", 416): RefusedError,
    ("InvalidArgument", 400): RefusedError,
    ("NeverHeardOf", 502): UnavailableError,
    ("NeverHeardOf", 418): RefusedError,
}


@pytest.mark.parametrize(("code", "status"), CODES)
@pytest.mark.parametrize("namespace", ["", NAMESPACE], ids=["plain", "namespaced"])
def test_a_code_is_its_kind_of_error(code: str, status: int, namespace: str) -> None:
    """Each code is exactly one of the closed set, and its cause says what was tried and why that failed."""
    error = raised(refusal(code, "because\n  of that", status, namespace))
    assert type(error) is CODES[code, status]
    assert error.message == f"unable to put key: {code} (because of that)"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, DeniedError),
        (307, UnavailableError),
        (400, RefusedError),
        (401, DeniedError),
        (403, DeniedError),
        (404, NotFoundError),
        (409, AlreadyExistsError),
        (412, PreconditionFailedError),
        (429, ThrottledError),
        (500, UnavailableError),
        (501, RefusedError),
        (503, ThrottledError),
        (504, UnavailableError),
    ],
)
@pytest.mark.parametrize("data", [b"", b"<html>Bad Gateway", b"\x00\xff", b"<a/>", b"<Error/>", *ENCODED])
def test_without_a_code_the_status_decides(status: int, kind: type[StoreError], data: bytes) -> None:
    """An answer to HEAD, or of what stands in front of the store, is of the kind of its status."""
    error = raised(Answer(status, {}, data))
    assert type(error) is kind
    assert error.message == f"unable to put key: {status}"


def test_what_a_header_says_goes_for_an_answer_without_a_body() -> None:
    """Where the reason is in headers, it is taken from there."""
    error = raised(Answer(403, {"x-amz-error-code": "SlowDown", "x-amz-error-message": "wait"}, b""), "HEAD")
    assert (type(error), error.message) == (ThrottledError, "unable to put key: SlowDown (wait)")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("namespace", ["", NAMESPACE], ids=["plain", "namespaced"])
@pytest.mark.parametrize("blanks", [b"", b" " * 10_000, b"\r\n \t"], ids=["none", "many", "others"])
@pytest.mark.parametrize("declared", [False, True], ids=["before the declaration", "behind it"])
def test_an_error_inside_200_is_an_error(method: str, namespace: str, blanks: bytes, declared: bool) -> None:
    """A write that failed after its 200 was sent has failed, however many blanks were sent meanwhile, and where."""
    declaration, error = DECLARATION.encode(), refusal("SlowDown", namespace=namespace).data
    data = declaration + blanks + error.removeprefix(declaration) if declared else blanks + error
    assert isinstance(raised(Answer(200, {}, data), method), ThrottledError)


@pytest.mark.parametrize("data", [b"<Error>", b"<Error><Code>Intern", b"<Error/>"])
def test_an_error_inside_200_that_says_nothing_may_pass(data: bytes) -> None:
    """Where the reason of a failure behind 200 is not to be read, the request is worth sending again."""
    assert isinstance(raised(Answer(200, {}, data)), UnavailableError)


def test_an_object_that_looks_like_an_error_is_an_object() -> None:
    """What a GET returned with 200 is content, whatever it looks like."""
    assert answers.problem("GET", refusal("InternalError", status=200)) is None


@pytest.mark.parametrize("data", [b"", b"<CompleteMultipartUploadResult/>", b"garbage", b"\xff" * 400])
def test_a_success_is_no_problem(data: bytes) -> None:
    """Neither an empty answer nor any other without an error in it is one."""
    assert answers.problem("PUT", Answer(200, {}, data)) is None


@given(st.integers(300, 599), st.binary(max_size=400) | st.binary(max_size=60).map(lambda some: b"<Error>" + some))
def test_garbage_is_one_of_the_closed_set(status: int, data: bytes) -> None:
    """Whatever bytes come with a status, they become an error of a store and nothing else."""
    assert isinstance(raised(Answer(status, {}, data)), StoreError)


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("AccessDenied", "s3:PutObject"),
        ("NoSuchBucket", "create the bucket"),
        ("SignatureDoesNotMatch", "secret key"),
        ("ExpiredToken", "renew the credentials"),
        ("RequestTimeTooSkewed", "clock"),
        ("SomethingElse", "s3:PutObject"),
    ],
)
def test_what_was_denied_says_how_to_mend_it(code: str, fix: str) -> None:
    """An error that needs a person has a hint for this very reason."""
    error = raised(refusal(code, status=403))
    assert isinstance(error, DeniedError)
    assert fix in error.hint


def test_a_redirect_says_to_correct_the_region() -> None:
    """A bucket that is elsewhere is a mistake in the store's URL."""
    assert "region" in raised(refusal("PermanentRedirect", status=301)).hint


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 0), ("99999", 3600), ("-1", 0), ("soon", 0), ("", 0)]
)
def test_a_pause_that_is_asked_for_is_known(header: str, seconds: float) -> None:
    """Retry-After is taken in seconds, an hour at most; what is no number asks for nothing."""
    error = raised(refusal("SlowDown", status=503, retry_after=header))
    assert isinstance(error, ThrottledError)
    assert error.after_seconds == seconds


@pytest.mark.parametrize(
    ("code", "expired", "stale"),
    [
        ("ExpiredToken", True, True),
        ("TokenRefreshRequired", True, True),
        ("InvalidAccessKeyId", False, True),
        ("SignatureDoesNotMatch", False, True),
        ("AccessDenied", False, False),
    ],
)
def test_credentials_that_others_may_replace_are_told_apart(code: str, expired: bool, stale: bool) -> None:
    """Only for those that have ended, or were taken away, is it worth asking for others."""
    found = Problem(403, code, "")
    assert (found.expired, found.stale) == (expired, stale)


@pytest.mark.parametrize("namespace", ["", NAMESPACE], ids=["plain", "namespaced"])
def test_a_list_is_read_with_and_without_a_namespace(namespace: str) -> None:
    """Elements are found by their names alone, and keys are as they are, blanks at their ends included."""
    root = answers.parsed(
        f"<L{namespace}><Contents><Key> a&amp;b </Key><Size> 12 </Size></Contents><Other/></L>".encode()
    )
    (item,) = answers.children(root, "Contents")
    assert (answers.raw_text(item, "Key"), answers.text(item, "Key"), answers.number(item, "Size")) == (
        " a&b ",
        "a&b",
        12,
    )
    assert (answers.text(item, "ETag"), answers.raw_text(item, "ETag")) == ("", "")


@pytest.mark.parametrize("data", [b"", b"garbage", b"<a>", b"<a></b>", b"\xff\xfe", b"<a/><b/>", *ENCODED])
def test_a_list_that_is_none_is_an_answer_to_ask_for_again(data: bytes) -> None:
    """What is no XML is a store that cannot now, not a store with nothing in it."""
    with pytest.raises(UnavailableError, match="unable to read the store's answer"):
        answers.parsed(data)


@pytest.mark.parametrize("size", ["", "many", "1.5"])
def test_a_number_that_is_none_is_an_answer_to_ask_for_again(size: str) -> None:
    """A size that cannot be read is not zero."""
    with pytest.raises(UnavailableError, match="Size"):
        answers.number(answers.parsed(f"<Contents><Size>{size}</Size></Contents>".encode()), "Size")


@pytest.mark.parametrize(
    ("headers", "data", "told"),
    [
        ({"x-amz-checksum-crc64nvme": "AAA="}, b"", "AAA="),
        ({"x-amz-checksum-crc64nvme": "AAA=-3"}, b"", ""),
        ({}, f"<R{NAMESPACE}><ChecksumCRC64NVME>BBB=</ChecksumCRC64NVME></R>".encode(), "BBB="),
        ({}, f"  {DECLARATION}  <R><ChecksumCRC64NVME>BBB=</ChecksumCRC64NVME></R>".encode(), "BBB="),
        ({"x-amz-checksum-crc32c": "AAA="}, b"", ""),
        ({}, b"garbage", ""),
        ({}, b"", ""),
    ],
)
def test_a_checksum_is_that_of_the_whole(headers: dict[str, str], data: bytes, told: str) -> None:
    """A checksum is taken from a header or the XML; one of parts' checksums, and another's, say nothing."""
    assert answers.checksum(Answer(200, headers, data), "crc64nvme") == told


def test_an_etag_is_told_without_quotes() -> None:
    """Quotes are the header's, not the etag's."""
    assert answers.etag(Answer(200, {"etag": '"abc-2"'}, b"")) == "abc-2"
    assert answers.etag(Answer(200, {}, b"")) == ""


def test_a_completion_names_each_part() -> None:
    """Parts are named with number and quoted etag in S3's namespace, and with their checksums where they have one."""
    body = answers.completion([(1, "abc", "ChecksumCRC32C", "AAA="), (2, "d<f", "", "")])
    assert NAMESPACE.encode() in body
    first, second = answers.children(answers.parsed(body), "Part")
    assert [answers.text(first, name) for name in ("PartNumber", "ETag", "ChecksumCRC32C")] == ["1", '"abc"', "AAA="]
    assert [(child.tag, child.text) for child in second] == [("PartNumber", "2"), ("ETag", '"d<f"')]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-26T08:00:00.250Z", 1795680000.25),
        ("2026-11-26T08:00:00", 1795680000.0),
        ("yesterday", 0.0),
        ("", 0.0),
    ],
)
def test_a_listing_tells_times_of_utc(text: str, seconds: float) -> None:
    """A time without a zone is one of UTC, whatever this machine's zone is; what is no time is 0."""
    assert answers.moment(text) == seconds
