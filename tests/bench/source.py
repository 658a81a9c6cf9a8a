"""A server that speaks the few words of S3 that a download needs: `source.py DIRECTORY HOST PORT`.

It has to cost next to nothing, so that what is measured is the client: bodies go from the page cache to the socket
inside the kernel (sendfile(2)). It asks nobody who he is.
"""

import os
import re
import socket
import sys
import threading
from pathlib import Path

_HEAD_BYTES = 64 << 10
_RANGE = re.compile(r"^range: *bytes=(\d+)-(\d*)\r?$", re.IGNORECASE | re.MULTILINE)
_ENOUGH_CONNECTIONS = 128


def serve(connection: socket.socket, root: Path) -> None:
    """Answer one client until he leaves."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            data = connection.recv(_HEAD_BYTES)
            if not data:
                return
            received += data
        head, _, received = received.partition(b"\r\n\r\n")
        answer(connection, root, head.decode())


def answer(connection: socket.socket, root: Path, head: str) -> None:
    """Answer one request."""
    method, target, _ = head.split(" ", 2)
    bucket_and_key = target.partition("?")[0].strip("/")
    path = root / bucket_and_key.partition("/")[2]
    if not path.is_file():
        connection.sendall(b"HTTP/1.1 404 -\r\ncontent-length: 0\r\n\r\n")
        return
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = _RANGE.search(head)
        start = int(found[1]) if found else 0
        end = min(size, int(found[2]) + 1) if found and found[2] else size
        lines = [f"HTTP/1.1 {206 if found else 200} -", f"content-length: {end - start}", f'etag: "{size}"']
        lines += ["accept-ranges: bytes", "last-modified: Thu, 01 Jan 2026 00:00:00 GMT"]
        lines += [f"content-range: bytes {start}-{end - 1}/{size}"] if found else []
        connection.sendall("\r\n".join((*lines, "", "")).encode())
        while method == "GET" and start < end:
            start += os.sendfile(connection.fileno(), file.fileno(), start, end - start)


def until_gone(connection: socket.socket, root: Path) -> None:
    """Serve one client; that he goes in the middle is his right."""
    with connection:
        try:
            serve(connection, root)
        except ConnectionError:
            return


if __name__ == "__main__":
    with socket.create_server((sys.argv[2], int(sys.argv[3])), backlog=_ENOUGH_CONNECTIONS) as listener:
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=until_gone, args=(accepted, Path(sys.argv[1])), daemon=True).start()
