"""A name server that knows one address for every name, or no name at all."""

import socket
import struct
import threading
from typing import Self

_PORT = 53
_HEADER_BYTES, _TYPE_AND_CLASS_BYTES = 12, 4
_HEADER = struct.Struct("!HHHHHH")
# RFC 1035: an answer, with recursion; the same with the code for a name that does not exist.
_FOUND, _NO_SUCH_NAME = 0x8180, 0x8183
_TYPE_A = 1
# The name of the question again, type A, class IN, a lifetime of no second, four bytes.
_RECORD = struct.Struct("!HHHIH4s")
_QUESTIONS_NAME = 0xC000 | _HEADER_BYTES


class NameServer:
    """Answers on port 53 of `host`; to be made inside the namespace that has it."""

    def __init__(self, host: str, address: str) -> None:
        """Start it; once `knows` is set every name has `address`."""
        self.knows = False
        self._address = socket.inet_aton(address)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, _PORT))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", _HEADER_BYTES) + 1 + _TYPE_AND_CLASS_BYTES
        question = query[_HEADER_BYTES:end]
        (identity,) = struct.unpack_from("!H", query)
        (kind,) = struct.unpack_from("!H", question, len(question) - _TYPE_AND_CLASS_BYTES)
        if not self.knows:
            return _HEADER.pack(identity, _NO_SUCH_NAME, 1, 0, 0, 0) + question
        records = b""
        if kind == _TYPE_A:
            records = _RECORD.pack(_QUESTIONS_NAME, _TYPE_A, 1, 0, len(self._address), self._address)
        return _HEADER.pack(identity, _FOUND, 1, 1 if records else 0, 0, 0) + question + records
