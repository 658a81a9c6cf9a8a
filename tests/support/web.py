"""A web server that says what a test wants, and keeps what it was asked."""

import re
import threading
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import msgspec

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Page(msgspec.Struct, frozen=True):
    """What is said at a path: headers as they are, and a body; nothing at all where it is `silent`.

    With `ranges` a part of the body is given to who asks for one.
    """

    body: bytes = b""
    headers: Mapping[str, str] = {}
    status: int = 200
    silent: bool = False
    ranges: bool = False


class Web:
    """Serves `pages` by path; `asked` has each request's method and path."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Start it; in a namespace, if it is made inside that."""
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str]] = []
        self._closing = threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                web.asked.append((self.command, self.path))
                page = web.pages.get(self.path, Page(status=404))
                if page.silent:
                    web._closing.wait()
                    return
                body, status = page.body, page.status
                asked = _RANGE.fullmatch(self.headers.get("Range", ""))
                if page.ranges and asked:
                    body = body[int(asked[1]) : int(asked[2]) + 1]
                    status = 206 if body else 416
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **page.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_GET = do_HEAD = answer  # noqa: N815  # http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def date(seconds: float) -> str:
    """Return a moment as HTTP has it."""
    return formatdate(seconds, usegmt=True)
