"""The ground of our own HTTP servers: a thread a connection, in the test's process, on loopback."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self


class HttpServer(socketserver.ThreadingTCPServer):
    """A context manager. `host` is any address of the loopback network."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, handler: type[Handler], host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), handler)
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._refusals: tuple[int, int, str] = (0, 0, "")

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def dead(self) -> bool:
        return self.ended.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.die()
        self._thread.join()

    def die(self) -> None:
        """Stop listening: new connections are refused, open ones get no more responses."""
        if not self.dead:
            self.ended.set()
            self.shutdown()
            self.server_close()

    def refuse_next(self, times: int, status: int = 429, retry_after: str = "") -> None:
        """Answer the next requests with this status, and with Retry-After if it is given."""
        with self.lock:
            self._refusals = (times, status, retry_after)

    def take_refusal(self) -> tuple[int, str] | None:
        """The status and Retry-After with which a request is to be refused now."""
        with self.lock:
            times, status, retry_after = self._refusals
            if not times:
                return None
            self._refusals = (times - 1, status, retry_after)
            return status, retry_after

    def handle_error(self, request: object, client_address: object) -> None:
        """Silence: clients that close connections are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """What all our handlers share. `answer` is called for every request, whatever its method."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def send(self, status: int, headers: Mapping[str, str], data: bytes = b"") -> None:
        """Send an answer. Content-Length is that of `data` unless `headers` says otherwise."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def receive(self) -> bytes:
        """The body of the request."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and stop of a Range header; None for the whole file. A start past the end gives
    `start >= size`."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if not asked or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
