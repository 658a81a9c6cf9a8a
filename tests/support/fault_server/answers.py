"""Answers, and the XML in them. The shapes are those of the API reference; whitespace and order are AWS's."""

from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import msgspec

from support.fault_server.bucket import Piece
from support.fault_server.errors import S3Error

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A status, headers, and a body: bytes, or a range of an object's."""

    status: int = 200
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    pieces: tuple[Piece, ...] = ()
    start: int = 0
    end: int = 0

    @property
    def size_bytes(self) -> int:
        """The size of the body."""
        return len(self.body) or self.end - self.start


Element = tuple[str, "str | int | Sequence[Element]"]


def element(name: str, content: "str | int | Sequence[Element]") -> str:
    """Return an element with text or further elements in it."""
    inner = escape(str(content)) if isinstance(content, str | int) else "".join(element(*one) for one in content)
    return f"<{name}>{inner}</{name}>"


def document(name: str, content: str | Sequence[Element], *, before: str = "") -> Answer:
    """Return an XML document as an answer; `before` stands between declaration and root."""
    root = element(name, content).replace(f"<{name}>", f'<{name} xmlns="{_NAMESPACE}">', 1)
    text = f"{_DECLARATION}{before}{root}"
    return Answer(headers={"content-type": "application/xml"}, body=text.encode())


def error(problem: S3Error, request_id: str) -> Answer:
    """Return an error as an answer."""
    content = [("Code", problem.code), ("Message", problem.message), *problem.details.items()]
    inner = "".join(element(name, str(value)) for name, value in (*content, ("RequestId", request_id)))
    body = f"{_DECLARATION}<Error>{inner}</Error>".encode()
    return Answer(status=problem.status, headers={"content-type": "application/xml"} | problem.headers, body=body)


def url_encoded(key: str) -> str:
    """Return a key as `encoding-type=url` wants it."""
    return quote_plus(key, safe="/*").replace("~", "%7E")


def quoted(etag: str) -> str:
    """Return an etag as headers and XML have it."""
    return f'"{etag}"'


def timestamp(moment: datetime) -> str:
    """Return a time as XML has it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def http_date(moment: datetime) -> str:
    """Return a time as headers have it."""
    return format_datetime(moment, usegmt=True)
