"""A file server whose answers are wrong in a chosen way, for the torture of remote reading.

Which requests are wrong depends on the seed, the path, the range and how often that range was asked
for, not on the order in which threads ask: a run can be repeated. `faults` is what can happen;
`share` of the ranges of paths with `where` in them have one, for the first `times` requests each
(`PERMANENT`: for all). Every request is recorded with its answer.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.servers.http import Handler, HttpServer, asked_range

PERMANENT = 1 << 62

RETRY_AFTER = "1"
"""Seconds, in the faults that name a time."""


@dataclass(frozen=True)
class Request:
    """A request and what became of it. `status` is 0 where no status was sent."""

    method: str
    path: str
    query: str
    range: str
    if_match: str
    authorization: str
    fault: str
    status: int


class FaultServer(HttpServer):
    """A context manager that serves `files`, by path. `changed` are the files after a change, which
    `change()` makes, or the fault 'changed' for single requests."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        faults: Sequence[str] = (),
        *,
        share: float = 1.0,
        times: int = 1,
        where: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(_Handler)
        unknown = set(faults) - set(FAULTS)
        assert not unknown, unknown
        self.files = dict(files)
        self.faults, self.share, self.times = tuple(faults), share, times
        self.where, self.seed = where, seed
        self.requests: list[Request] = []
        self._asked: Counter[tuple[str, str]] = Counter()

    def change(self, files: Mapping[str, bytes]) -> None:
        """Replace the files, as somebody who writes to the store would."""
        self.files = dict(files)

    def choose(self, path: str, asked: str) -> tuple[str, random.Random]:
        """The fault of the next request for a range, '' for none, and its random numbers."""
        with self.lock:
            number = self._asked[path, asked]
            self._asked[path, asked] += 1
        chance = random.Random(f"{self.seed} {path} {asked}")
        spared = self.where not in path or number >= self.times or chance.random() >= self.share
        if not self.faults or spared:
            return "", chance
        chance = random.Random(f"{self.seed} {path} {asked} {number}")
        return chance.choice(self.faults), chance


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'


class _Handler(Handler):
    server: FaultServer

    def answer(self) -> None:
        server = self.server
        path = self.path.lstrip("/").partition("?")[0]
        asked = self.headers.get("Range", "")
        self.fault, self.chance = server.choose(path, asked)
        self.recorded = False
        if path not in server.files:
            self.send(404, {})
            return
        self.data = server.files[path]
        FAULTS.get(self.fault, _Handler.serve)(self)
        if not self.recorded:
            self._record(0)

    def _record(self, status: int) -> None:
        path, _, query = self.path.lstrip("/").partition("?")
        names = ("Range", "If-Match", "Authorization")
        fields = [self.headers.get(name, "") for name in names]
        with self.server.lock:
            self.server.requests.append(
                Request(self.command, path, query, *fields, self.fault, status)
            )
        self.recorded = True

    def send_response(self, code: int, message: str | None = None) -> None:
        self._record(code)  # first, so that who has received the answer finds it recorded
        super().send_response(code, message)

    @property
    def start_and_stop(self) -> tuple[int, int]:
        return asked_range(self.headers.get("Range"), len(self.data)) or (0, len(self.data))

    def headers_of(self, start: int, stop: int) -> dict[str, str]:
        """The right headers of a range."""
        return {
            "ETag": etag_of(self.data),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Range": f"bytes {start}-{stop - 1}/{len(self.data)}",
            "Content-Length": str(stop - start),
        }

    def serve(self, *, check: bool = True) -> None:
        """The right answer; without `check` If-Match is ignored."""
        if_match = self.headers.get("If-Match")
        start, stop = self.start_and_stop
        if check and if_match and if_match != etag_of(self.data):
            self.send(412, {})
        elif start >= len(self.data):
            self.send(416, {"Content-Range": f"bytes */{len(self.data)}"})
        elif "Range" not in self.headers:
            self.whole_file()
        else:
            self.send(206, self.headers_of(start, stop), self.data[start:stop])

    def whole_file(self) -> None:
        headers = self.headers_of(0, len(self.data))
        del headers["Content-Range"]
        self.send(200, headers, b"" if self.command == "HEAD" else self.data)

    def wrong_range(self) -> None:
        """Other bytes, whose place the header tells."""
        start, stop = self.start_and_stop
        shift = -min(start, 512) or 512
        moved = min(start + shift, len(self.data) - 1), min(stop + shift, len(self.data))
        self.send(206, self.headers_of(*moved), self.data[slice(*moved)])

    def lying_range(self) -> None:
        """The right bytes under a Content-Range that says they are from elsewhere."""
        start, stop = self.start_and_stop
        headers = self.headers_of(start, stop)
        headers["Content-Range"] = f"bytes {start + 1}-{stop}/{len(self.data) + 1}"
        self.send(206, headers, self.data[start:stop])

    def short_range(self) -> None:
        """Fewer bytes than asked for, as the headers say."""
        start, stop = self.start_and_stop
        stop = start + max(1, (stop - start) // 2)
        self.send(206, self.headers_of(start, stop), self.data[start:stop])

    def cut(self) -> None:
        """Fewer bytes than the headers say, then the end of the connection."""
        self._send_part()
        self.close_connection = True

    def reset(self) -> None:
        """A reset after some byte of the body."""
        self._send_part()
        self._reset()

    def reset_at_once(self) -> None:
        """A reset in place of an answer."""
        self._reset()

    def _send_part(self) -> None:
        start, stop = self.start_and_stop
        end = self.chance.randrange(start, max(start + 1, stop))
        self.send(206, self.headers_of(start, stop), self.data[start:end])

    def _reset(self) -> None:
        # With SO_LINGER at 0 seconds, closing sends RST in place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # `close` waits for the files made of the socket
        self.close_connection = True

    def other_bytes(self) -> None:
        """A flipped bit in every 64 bytes under the right headers."""
        start, stop = self.start_and_stop
        body = bytearray(self.data[start:stop])
        for place in range(0, len(body), 64):
            body[min(len(body) - 1, place + self.chance.randrange(64))] ^= 1
        self.send(206, self.headers_of(start, stop), bytes(body))

    def changed(self) -> None:
        """Another version of the file under another ETag, whatever If-Match says."""
        self.data = bytes(reversed(self.data))
        self.serve(check=False)

    def replaced(self) -> None:
        """Another version of the file; If-Match is honoured."""
        self.data = bytes(reversed(self.data))
        self.serve()

    def silence(self) -> None:
        """No answer, until the server ends or the client goes away."""
        self.connection.settimeout(0.05)
        while not self.server.ended.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.close_connection = True

    def drip(self) -> None:
        """One byte a second."""
        start, stop = self.start_and_stop
        self.send(206, self.headers_of(start, stop))
        for place in range(start, stop):
            self.wfile.write(self.data[place : place + 1])
            if self.server.ended.wait(1.0):
                break
        self.close_connection = True

    def redirect_loop(self) -> None:
        self.send(302, {"Location": f"/{self.path.lstrip('/')}"})


def _status(status: int, **headers: str) -> Callable[[_Handler], None]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(handler: _Handler) -> None:
        handler.send(status, names, b"<Error><Code>Fault</Code></Error>")

    return answer


FAULTS: dict[str, Callable[[_Handler], None]] = {
    "wrong range": _Handler.wrong_range,
    "lying range": _Handler.lying_range,
    "whole file": _Handler.whole_file,
    "short range": _Handler.short_range,
    "cut": _Handler.cut,
    "reset": _Handler.reset,
    "reset at once": _Handler.reset_at_once,
    "other bytes": _Handler.other_bytes,
    "changed": _Handler.changed,
    "replaced": _Handler.replaced,
    "silence": _Handler.silence,
    "drip": _Handler.drip,
    "redirect loop": _Handler.redirect_loop,
    **{
        f"{status}{' with Retry-After' if headers else ''}": _status(status, **headers)
        for status in (429, 500, 503)
        for headers in ({}, {"Retry_After": RETRY_AFTER})
    },
    "401": _status(401),
    "403": _status(403),
    "404": _status(404),
}
