"""An HTTP/1.1 answer as it comes in (RFC 9112): parsed from bytes, with a large body received where it is wanted."""

import re
from collections.abc import Mapping

import msgspec

ANSWER_MOST_BYTES = 1 << 20

# So much is received at a time where it is wanted; then others have their turn.
_PLACE_BYTES = 512 << 10
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;.*)?")
# What follows, whatever their heads say: nothing.
_BODILESS = frozenset({204, 304})
_NOWHERE = memoryview(bytearray())


class Reply(msgspec.Struct, frozen=True):
    """An answer; names of headers in lower case. `last` if the connection ends with it.

    Of its body `into_bytes` are where the request wanted them, the others are in `data`.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes
    last: bool
    into_bytes: int = 0


class Incoming:
    """An answer as it comes in; raises ValueError for what is none.

    `into` takes the body of an answer that is part of an object; any other has at most `most_bytes`, with its head.
    """

    def __init__(self, most_bytes: int = ANSWER_MOST_BYTES, into: memoryview = _NOWHERE) -> None:
        self.received_bytes = 0
        self._most_bytes = most_bytes
        self._into = into
        self._filled = self._wanted = 0
        self._data = bytearray()
        self._head: tuple[int, dict[str, str], bool] | None = None
        self._body = bytearray()

    def place(self) -> memoryview:
        """Return where the next bytes are to be received, empty if that is not known: then they are to be fed."""
        return self._into[self._filled : min(self._wanted, self._filled + _PLACE_BYTES)]

    def placed(self, count: int) -> Reply | None:
        """Hear how many bytes came to their place, and return the answer once all of it is there."""
        self.received_bytes += count
        self._filled += count
        return self._reply(all_is_there=self._filled == self._wanted)

    def feed(self, data: bytes | memoryview) -> Reply | None:
        """Take what came and return the answer once all of it is there."""
        self.received_bytes += len(data)
        self._data += data
        while self._head is None:
            if len(self._data) > self._most_bytes:
                raise ValueError("it has no end")
            if b"\r\n\r\n" not in self._data:
                return None
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            parsed = _parsed(bytes(head))
            if parsed[0] >= 200:  # what comes before is said in passing
                self._head = parsed
        _, headers, _ = self._head
        if len(self._data) + len(self._body) > self._most_bytes:
            raise ValueError("it has no end")
        if "transfer-encoding" in headers:
            return self._reply(all_is_there=self._chunks_end(headers["transfer-encoding"]))
        length = self._length()
        if length is not None and length > 0 and self._is_wanted():
            return self._begin_to_place(length)
        if length is None or len(self._data) < length:
            return None
        self._body, self._data = self._data[:length], self._data[length:]
        return self._reply(all_is_there=True)

    def _is_wanted(self) -> bool:
        # Some servers answer a range with all of the object, and rclone a range with 200.
        status, headers, _ = self._head or (0, {}, False)
        return bool(self._into) and (status == 206 or "content-range" in headers)

    def _begin_to_place(self, length: int) -> Reply | None:
        if length > len(self._into):
            raise ValueError("it is more than was asked for")
        self._wanted = length
        came = min(length, len(self._data))
        self._into[:came] = self._data[:came]
        del self._data[:came]
        self._filled = came
        return self._reply(all_is_there=came == length)

    def end(self) -> Reply | None:
        """Return the answer if the connection's end is its own."""
        if self._head is None or "transfer-encoding" in self._head[1] or self._length() is not None:
            return None
        status, headers, _ = self._head
        return self._moved(Reply(status, headers, bytes(self._data), last=True))

    def _length(self) -> int | None:
        status, headers, _ = self._head or (204, {}, False)
        if status in _BODILESS:
            return 0
        told = headers.get("content-length")
        if told is not None and not (told.isascii() and told.isdecimal()):
            raise ValueError(f"its length is {told!r}")
        return None if told is None else int(told)

    def _chunks_end(self, coding: str) -> bool:
        """Move whole chunks to the body, and tell whether the last one is there (RFC 9112, 7.1)."""
        if coding.lower() != "chunked":
            raise ValueError(f"its coding is {coding!r}")
        while b"\r\n" in self._data:
            line, _, rest = self._data.partition(b"\r\n")
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise ValueError(f"a chunk begins with {bytes(line[:20])!r}")
            size = int(found[1], 16)
            if size == 0:
                _, end, after = (b"\r\n" + rest).partition(b"\r\n\r\n")  # perhaps with fields before it
                self._data = bytearray(after) if end else self._data
                return bool(end)
            if len(rest) < size + 2:
                return False
            self._body += rest[:size]
            self._data = rest[size + 2 :]
        return False

    def _reply(self, *, all_is_there: bool) -> Reply | None:
        if not all_is_there or self._head is None:
            return None
        status, headers, last = self._head
        return self._moved(Reply(status, headers, bytes(self._body), last or bool(self._data), self._filled))

    def _moved(self, reply: Reply) -> Reply:
        """Bring what had no length told in advance to its place."""
        if not reply.data or not self._is_wanted():
            return reply
        if len(reply.data) > len(self._into):
            raise ValueError("it is more than was asked for")
        self._into[: len(reply.data)] = reply.data
        return msgspec.structs.replace(reply, data=b"", into_bytes=len(reply.data))


def _parsed(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Return the status and headers of an answer's head, and whether the connection ends with the answer."""
    first, *lines = head.split(b"\r\n")
    found = _STATUS.match(first)
    if found is None:
        raise ValueError(f"it begins with {first[:20]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
        if not colon or name != name.strip():
            raise ValueError(f"a header is {name[:20]!r}")
        headers[name.lower()] = value.strip()
    asked = headers.get("connection", "keep-alive" if found[1] == b"1" else "close")
    return int(found[2]), headers, "close" in asked.lower()
