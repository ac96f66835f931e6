"""A Hugging Face hub on loopback: the endpoints that `datasets` and `huggingface_hub` use.

The constructor sets the faults: `fail_every=3` fails every third range request, half of them with
status 503 and half by closing the connection in the middle of the body; `die_after=n` closes the
server for good after n range requests; `ignore_ranges` answers them with the whole file. Requests
for repositories in `gated` are refused; `older` are earlier contents of repositories, available by
their commits only. `served` counts requests and bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import socketserver
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

Repository = Mapping[str, bytes]
"""Files of one data set repository, by path."""


def commit_of(files: Repository) -> str:
    """40 hex digits from the content, as caches are keyed by them."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path])
    return digest.hexdigest()


@dataclass
class Served:
    """What a hub has served. `ranges` has (path, start, stop) of every range request answered."""

    bytes: int = 0
    requests: int = 0
    range_requests: int = 0
    failed: int = 0
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    authorization: set[str] = field(default_factory=set)


class Hub(socketserver.ThreadingTCPServer):
    """A context manager. `url` is for HF_ENDPOINT."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        repositories: Mapping[str, Repository],
        *,
        fail_every: int = 0,
        die_after: int = 0,
        ignore_ranges: bool = False,
        gated: Sequence[str] = (),
        older: Mapping[str, Repository] | None = None,
        on_range: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.commits = {name: commit_of(files) for name, files in repositories.items()}
        self.fail_every, self.die_after, self.on_range = fail_every, die_after, on_range
        self.older = {(name, commit_of(files)): files for name, files in (older or {}).items()}
        self.ignore_ranges, self.gated = ignore_ranges, gated
        self.served = Served()
        self.lock = threading.Lock()
        self.dead = False
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if not self.dead:
            self.die()
        self._thread.join()

    def die(self) -> None:
        """Stop listening: new connections are refused, open ones get no more responses."""
        self.dead = True
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Silence: clients that close connections are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        if hub.dead:
            self.close_connection = True
            return
        with hub.lock:
            hub.served.requests += 1
            hub.served.authorization.add(self.headers.get("Authorization", ""))
        url = urlsplit(self.path)
        path = unquote(url.path)
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups(), body=body)
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
            self._tree(found[1], found[2], found[3] or "", recursive=recursive)
        else:
            self._missing("EntryNotFound")

    def _files(self, name: str, revision: str) -> Repository | None:
        hub = self.server
        if name not in hub.repositories:
            self._missing("RepoNotFound")
        elif name in hub.gated:
            self._send(403, {"X-Error-Code": "GatedRepo", "Content-Length": "0"}, b"")
        elif (name, revision) in hub.older:
            return hub.older[name, revision]
        elif revision not in ("main", hub.commits[name]):
            self._missing("RevisionNotFound")
        else:
            return hub.repositories[name]
        return None

    def _commit(self, name: str, revision: str) -> str:
        return self.server.commits[name] if revision == "main" else revision

    def _info(self, name: str, revision: str) -> None:
        if (files := self._files(name, revision)) is not None:
            self._json(
                {
                    "id": name,
                    "sha": self._commit(name, revision),
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": path} for path in files],
                }
            )

    def _tree(self, name: str, revision: str, folder: str, *, recursive: bool) -> None:
        if (files := self._files(name, revision)) is None:
            return
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        entries: dict[str, dict[str, object]] = {}
        for path, data in files.items():
            if not path.startswith(prefix):
                continue
            inner = path[len(prefix) :].split("/")
            for depth in range(1, len(inner)):
                parent = prefix + "/".join(inner[:depth])
                if depth == 1 or recursive:
                    entry = {"type": "directory", "path": parent, "size": 0, "oid": "0" * 40}
                    entries.setdefault(parent, entry)
            if len(inner) == 1 or recursive:
                oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                entries[path] = {"type": "file", "path": path, "size": len(data), "oid": oid}
        if prefix and not entries:
            self._missing("EntryNotFound")
        else:
            self._json(list(entries.values()))

    def _file(self, name: str, revision: str, path: str, *, body: bool) -> None:
        if (files := self._files(name, revision)) is None:
            return
        if path not in files:
            self._missing("EntryNotFound", commit=self._commit(name, revision))
            return
        data = files[path]
        start, stop, status = 0, len(data), 200
        headers = {
            "ETag": f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"',
            "X-Repo-Commit": self._commit(name, revision),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if self.server.ignore_ranges:
            body = self.command == "GET"
        elif body and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            start, stop = int(asked[1]), min(int(asked[2] or len(data) - 1) + 1, len(data))
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        headers["Content-Length"] = str(stop - start)
        fault = self._fault() if status == 206 else ""
        if fault == "dead":
            self.close_connection = True
        elif fault == "status":
            self._send(503, {"Content-Length": "0"}, b"")
        elif fault == "cut":
            self._send(status, headers, data[start : (start + stop) // 2])
            self.close_connection = True
        else:
            self._send(status, headers, data[start:stop] if body else b"")
            if status == 206:
                with self.server.lock:
                    self.server.served.ranges.append((path, start, stop))

    def _fault(self) -> str:
        hub = self.server
        with hub.lock:
            hub.served.range_requests += 1
            number = hub.served.range_requests
            if hub.die_after and number > hub.die_after:
                if not hub.dead:
                    hub.die()
                return "dead"
            if hub.fail_every and number % hub.fail_every == 0:
                hub.served.failed += 1
                return "status" if hub.served.failed % 2 else "cut"
        if hub.on_range is not None:
            hub.on_range(number)
        return ""

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self._send(200, headers, data if self.command == "GET" else b"")

    def _missing(self, code: str, *, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "Content-Length": "0"}
        if commit:
            headers["X-Repo-Commit"] = commit
        self._send(404, headers, b"")

    def _send(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        with self.server.lock:
            self.server.served.bytes += len(data)
