"""A folder served over HTTP on loopback, with ranges, ETags and If-Match.

`answer` may make single requests fail: it gets each `Asked` and returns None, or what to do instead
(`Reply`). `asked` has every request, in order. What real servers do is tested with real ones
(`tests.support.servers`).
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request: its number from 0, method, path, range [start, stop) or None, and its headers by
    their names in lower case."""

    number: int
    method: str
    path: str
    range: tuple[int, int] | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    """An answer in place of the right one. `cut` bytes of the right body are sent, then the
    connection is closed; `body` replaces it; `headers` replace those of the same name."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int = -1


class FarFolder(socketserver.ThreadingTCPServer):
    """A context manager. `url` is without a slash at its end."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, folder: Path, answer: Callable[[Asked], Reply | None] = lambda _: None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.answer = folder, answer
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        """The path of every request so far."""
        return [asked.path for asked in self.asked]

    def __enter__(self) -> FarFolder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """Silence: connections that are closed in the middle are part of the tests."""


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FarFolder

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server, path = self.server, unquote(urlsplit(self.path).path)
        with server.lock:
            asked = Asked(
                len(server.asked), self.command, path, self._range(), _lower(self.headers)
            )
            server.asked.append(asked)
        reply = server.answer(asked) or Reply()
        status, headers, body = self._right(asked)
        if reply.body is not None or reply.status >= 300:
            body = reply.body or b""
        status = reply.status or status
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if reply.cut < 0 else body[: reply.cut])
        if reply.cut >= 0:
            self.close_connection = True

    def _range(self) -> tuple[int, int] | None:
        start, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        return (int(start), int(last) + 1) if start and last else None

    def _right(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        file = self.server.folder / asked.path.lstrip("/")
        if not file.is_file():
            return 404, {}, b""
        data, status = file.read_bytes(), file.stat()
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        if asked.headers.get("if-match", etag) != etag:
            return 412, {}, b""
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if asked.range is None:
            return 200, headers, data
        start, stop = asked.range[0], min(asked.range[1], len(data))
        if start >= len(data):
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        return 206, headers, data[start:stop]
