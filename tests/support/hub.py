"""A Hugging Face hub on loopback: the endpoints that `datasets` and `huggingface_hub` use, for
reading and for commits by the LFS path (Xet is not offered).

The constructor sets the faults: `fail_every=3` fails every third range request, half of them with
status 503 and half by closing the connection in the middle of the body; `die_after=n` closes the
server for good after n range requests; `ignore_ranges` answers them with the whole file. Requests
for repositories in `gated` are refused; `older` are earlier contents of repositories, available by
their commits only. `served` counts requests and bytes.

With `elsewhere=True` large files are where the real hub has them: a request for one is redirected
to `file_host`, another host, by a signed URL that expires after `link_seconds` (status 403 from
then on, or after `file_host.expire_links()`), and small files are redirected to another path of the
hub. The file host refuses requests with an Authorization header, and records them. With `token`,
the hub refuses all others.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.support.servers.http import Handler, HttpServer, asked_range

Repository = Mapping[str, bytes]
"""Files of one data set repository, by path."""

LFS_SUFFIXES = {".tar", ".zst", ".parquet", ".bin"}
"""Files that the hub keeps on the file host; real repositories name them in .gitattributes."""


def commit_of(files: Repository) -> str:
    """40 hex digits from the content, as caches are keyed by them."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in sorted(files):
        digest.update(path.encode() + b"\0" + files[path])
    return digest.hexdigest()


def is_large(path: str, size: int) -> bool:
    return size > 0 and PurePosixPath(path).suffix in LFS_SUFFIXES


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Served:
    """What a host has served. `ranges` has (path, start, stop) of every range request answered."""

    bytes: int = 0
    requests: int = 0
    range_requests: int = 0
    failed: int = 0
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    authorization: set[str] = field(default_factory=set)
    resolved: int = 0
    """Signed URLs given out."""


@dataclass(frozen=True)
class Commit:
    """A commit made by a client: its message and the paths it wrote or deleted."""

    repository: str
    oid: str
    summary: str
    paths: tuple[str, ...]


class FileHost(HttpServer):
    """Objects by their SHA-256, at signed URLs in one of two forms: 'amazon' (X-Amz-Date and
    X-Amz-Expires; the method is signed too, so a URL for GET refuses HEAD) or 'cloudfront'
    (Expires)."""

    def __init__(self, hub: Hub, seconds: float, form: str) -> None:
        super().__init__(_FileHandler, "127.0.0.2")
        self.hub, self.seconds, self.form = hub, seconds, form
        self.served = Served()
        self.objects: dict[str, bytes] = {}
        self._key = b"0"

    def expire_links(self) -> None:
        """From now on, every URL given out so far is refused."""
        self._key += b"0"

    def link(self, method: str, oid: str, path: str = "") -> str:
        """A signed URL of an object; `path` is only shown in it."""
        now = int(time.time())
        if self.form == "amazon":
            date = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
            limits = {"X-Amz-Date": date, "X-Amz-Expires": str(int(self.seconds))}
            signature = {"X-Amz-Signature": self.sign(method, oid, now + self.seconds)}
        else:
            limits = {"Expires": str(int(now + self.seconds))}
            signature = {"Signature": self.sign("", oid, now + self.seconds)}
        return f"{self.url}/{oid}/{quote(path)}?{urlencode(limits | signature)}"

    def sign(self, method: str, oid: str, until: float) -> str:
        return hmac.digest(self._key, f"{method} {oid} {int(until)}".encode(), "sha256").hex()

    def is_valid(self, method: str, oid: str, query: Mapping[str, Sequence[str]]) -> bool:
        values = {name: value[0] for name, value in query.items()}
        if "X-Amz-Date" in values:
            date = datetime.datetime.strptime(values["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
            until = date.timestamp() + float(values["X-Amz-Expires"])
            right = self.sign(method, oid, until)
        else:
            until = float(values.get("Expires", "0"))
            right = self.sign("", oid, until)
        given = values.get("X-Amz-Signature") or values.get("Signature") or ""
        return hmac.compare_digest(given, right) and time.time() < until


class Hub(HttpServer):
    """A context manager. `url` is for HF_ENDPOINT."""

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
        elsewhere: bool = False,
        link_seconds: float = 3600.0,
        link_form: str = "amazon",
        token: str = "",
    ) -> None:
        super().__init__(_Handler)
        self.repositories = dict(repositories)
        self.commits = {name: commit_of(files) for name, files in repositories.items()}
        self.fail_every, self.die_after, self.on_range = fail_every, die_after, on_range
        self.older = {(name, commit_of(files)): files for name, files in (older or {}).items()}
        self.ignore_ranges, self.gated, self.token = ignore_ranges, gated, token
        self.elsewhere = elsewhere
        self.served = Served()
        self.history: list[Commit] = []
        self.file_host = FileHost(self, link_seconds, link_form)

    def __enter__(self) -> Hub:
        self.file_host.__enter__()
        return super().__enter__()

    def die(self) -> None:
        self.file_host.die()
        super().die()

    def commit(self, name: str, lines: Sequence[dict[str, Any]]) -> Commit | None:
        """Apply the lines of a commit; None if it was based on another commit than the last."""
        summary, parent, paths = "", None, []
        with self.lock:
            files = dict(self.repositories[name])
            for line in lines:
                value = line["value"]
                match line["key"]:
                    case "header":
                        summary, parent = value["summary"], value.get("parentCommit")
                        continue
                    case "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile":
                        files[value["path"]] = self.file_host.objects[value["oid"]]
                    case "deletedFile":
                        del files[value["path"]]
                    case "deletedFolder":
                        prefix = value["path"].rstrip("/") + "/"
                        files = {path: files[path] for path in files if not path.startswith(prefix)}
                paths.append(value["path"])
            if parent not in (None, self.commits[name]):
                return None
            self.older[name, self.commits[name]] = self.repositories[name]
            self.repositories[name], self.commits[name] = files, commit_of(files)
            self.history.append(Commit(name, self.commits[name], summary, tuple(paths)))
            return self.history[-1]

    def fault(self) -> str:
        """Count a range request; returns the fault it is to have, or ''."""
        with self.lock:
            self.served.range_requests += 1
            number = self.served.range_requests
            dying = bool(self.die_after) and number > self.die_after
            if not dying and self.fail_every and number % self.fail_every == 0:
                self.served.failed += 1
                return "status" if self.served.failed % 2 else "cut"
        if dying:
            self.die()
            return "dead"
        if self.on_range is not None:
            self.on_range(number)
        return ""


class _Counting(Handler):
    """Counts what a host is asked, and serves files with the hub's faults."""

    hub: Hub
    served: Served

    def begin(self, server: HttpServer) -> bool:
        """Count a request; False if it was answered already."""
        if server.dead:
            self.close_connection = True
            return False
        with server.lock:
            self.served.requests += 1
            self.served.authorization.add(self.headers.get("Authorization", ""))
        refusal = server.take_refusal()
        if refusal is not None:
            status, retry_after = refusal
            self.receive()
            self.count(status, {"Retry-After": retry_after} if retry_after else {}, b"")
        return refusal is None

    def count(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        """Send an answer; count its bytes first, so that who has received it finds them counted."""
        with self.hub.lock:
            self.served.bytes += len(data)
        self.send(status, headers, data)

    def file(self, path: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Answer a request for a file or a range of it."""
        headers = {
            **headers,
            "ETag": f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        body = self.command == "GET"
        asked = asked_range(self.headers.get("Range"), len(data)) if body else None
        if asked is None or self.hub.ignore_ranges:
            headers["Content-Length"] = str(len(data))
            self.count(200, headers, data if body else b"")
            return
        start, stop = asked
        if start >= len(data):
            self.count(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        headers["Content-Length"] = str(stop - start)
        match self.hub.fault():
            case "dead":
                self.close_connection = True
            case "status":
                self.count(503, {}, b"")
            case "cut":
                self.count(206, headers, data[start : (start + stop) // 2])
                self.close_connection = True
            case _:
                with self.hub.lock:
                    self.served.ranges.append((path, start, stop))
                self.count(206, headers, data[start:stop])


class _FileHandler(_Counting):
    server: FileHost

    def answer(self) -> None:
        host = self.server
        self.hub, self.served = host.hub, host.served
        if not self.begin(host):
            return
        data = self.receive()
        url = urlsplit(self.path)
        oid, _, path = unquote(url.path).strip("/").partition("/")
        if "Authorization" in self.headers:  # as S3 does
            self.count(400, {}, b"<Error><Code>InvalidArgument</Code></Error>")
        elif not host.is_valid(self.command, oid, parse_qs(url.query)):
            body = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            self.count(403, {}, b"" if self.command == "HEAD" else body)
        elif self.command != "PUT":
            self.file(path, host.objects[oid], {})
        elif _sha256(data) != oid:
            self.count(400, {}, b"<Error><Code>BadDigest</Code></Error>")
        else:
            host.objects[oid] = data
            self.count(200, {"ETag": f'"{oid[:32]}"'}, b"")


class _Handler(_Counting):
    server: Hub

    def answer(self) -> None:
        self.hub, self.served = self.server, self.server.served
        if not self.begin(self.hub):
            return
        body = self.receive()
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._refuse(401, "RepoNotFound")
            return
        url = urlsplit(self.path)
        path = unquote(url.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        handlers = POSTS if self.command == "POST" else GETS
        for pattern, handler in handlers:
            if found := re.fullmatch(pattern, path):
                handler(self, *(part or "" for part in found.groups()), query=query, body=body)
                return
        self._refuse(404, "EntryNotFound")

    def _files(self, name: str, revision: str) -> Repository | None:
        hub = self.hub
        if name not in hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif name in hub.gated:
            self._refuse(403, "GatedRepo")
        elif revision in ("main", hub.commits[name]):
            return hub.repositories[name]
        elif (name, revision) in hub.older:
            return hub.older[name, revision]
        else:
            self._refuse(404, "RevisionNotFound")
        return None

    def _commit(self, name: str, revision: str) -> str:
        return self.hub.commits[name] if revision == "main" else revision

    def info(self, name: str, revision: str, *, query: dict[str, str], body: bytes) -> None:
        revision = revision or "main"
        if (files := self._files(name, revision)) is not None:
            siblings: list[dict[str, object]] = [{"rfilename": path} for path in files]
            if "blobs" in query:
                siblings = [
                    {"rfilename": path, **_entry(path, data)} for path, data in files.items()
                ]
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
                    "siblings": siblings,
                }
            )

    def tree(
        self, name: str, revision: str, folder: str, *, query: dict[str, str], body: bytes
    ) -> None:
        if (files := self._files(name, revision)) is None:
            return
        recursive = query.get("recursive", "false").lower() == "true"
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
                entries[path] = {"type": "file", "path": path, **_entry(path, data)}
        if prefix and not entries:
            self._refuse(404, "EntryNotFound")
        else:
            self._json(list(entries.values()))

    def paths_info(self, name: str, revision: str, *, query: dict[str, str], body: bytes) -> None:
        if (files := self._files(name, revision)) is not None:
            paths = parse_qs(body.decode())["paths"]
            self._json(
                [
                    {"type": "file", "path": path, **_entry(path, files[path])}
                    for path in paths
                    if path in files
                ]
            )

    def resolve(
        self, name: str, revision: str, path: str, *, query: dict[str, str], body: bytes
    ) -> None:
        if (files := self._files(name, revision)) is None:
            return
        commit = self._commit(name, revision)
        if path not in files:
            self._refuse(404, "EntryNotFound", commit=commit)
            return
        data, headers = files[path], {"X-Repo-Commit": commit}
        if not self.hub.elsewhere:
            self.file(path, data, headers)
        elif not is_large(path, len(data)):
            headers["Location"] = f"/api/resolve-cache/datasets/{name}/{commit}/{quote(path)}"
            self.count(307, headers, b"")
        else:
            oid = _sha256(data)
            host = self.hub.file_host
            host.objects[oid] = data
            with self.hub.lock:
                self.served.resolved += 1
            headers |= {
                "Location": host.link("GET", oid, path),
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{oid}"',
            }
            self.count(302, headers, b"")

    def cached(
        self, name: str, revision: str, path: str, *, query: dict[str, str], body: bytes
    ) -> None:
        if (files := self._files(name, revision)) is not None:
            self.file(path, files[path], {"X-Repo-Commit": revision})

    def whoami(self, *, query: dict[str, str], body: bytes) -> None:
        self._json({"type": "user", "name": "tester", "orgs": []})

    def validate_card(self, *, query: dict[str, str], body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def create(self, *, query: dict[str, str], body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, {})
        self.hub.commits.setdefault(name, commit_of({}))
        self._json({"url": f"{self.hub.url}/datasets/{name}", "name": name}, status)

    def preupload(self, name: str, revision: str, *, query: dict[str, str], body: bytes) -> None:
        if (files := self._files(name, revision)) is None:
            return
        answers = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            large = is_large(path, asked["size"])
            oid = None
            if path in files:
                oid = _sha256(files[path]) if large else _git_oid(files[path])
            mode = "lfs" if large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def lfs_batch(self, name: str, *, query: dict[str, str], body: bytes) -> None:
        if self._files(name, "main") is None:
            return
        host = self.hub.file_host
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in host.objects:
                verify = {"href": f"{self.hub.url}/datasets/{name}.git/info/lfs/objects/verify"}
                entry["actions"] = {
                    "upload": {"href": host.link("PUT", asked["oid"])},
                    "verify": verify,
                }
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_verify(self, name: str, *, query: dict[str, str], body: bytes) -> None:
        asked = json.loads(body)
        found = self.hub.file_host.objects.get(asked["oid"])
        right = found is not None and len(found) == asked["size"]
        self._json({}, 200 if right else 404)

    def make_commit(self, name: str, revision: str, *, query: dict[str, str], body: bytes) -> None:
        if self._files(name, revision) is None:
            return
        commit = self.hub.commit(name, [json.loads(line) for line in body.splitlines()])
        if commit is None:
            self._json({"error": "A commit has happened since. Please refresh and try again."}, 412)
        else:
            url = f"{self.hub.url}/datasets/{name}/commit/{commit.oid}"
            self._json({"commitUrl": url, "commitOid": commit.oid, "success": True})

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self.count(status, headers, b"" if self.command == "HEAD" else data)

    def _refuse(self, status: int, code: str, *, commit: str = "") -> None:
        headers = {"X-Error-Code": code}
        if commit:
            headers["X-Repo-Commit"] = commit
        self.count(status, headers, b"")


def _entry(path: str, data: bytes) -> dict[str, object]:
    """Size and git object of a file, and its LFS object if it is large."""
    if not is_large(path, len(data)):
        return {"size": len(data), "oid": _git_oid(data)}
    lfs = {"oid": _sha256(data), "sha256": _sha256(data), "size": len(data), "pointerSize": 134}
    return {"size": len(data), "oid": _git_oid(data), "lfs": lfs}


_NAME, _REVISION = "([^/]+/[^/]+)", "([^/]+)"

GETS = (
    (f"/datasets/{_NAME}/resolve/{_REVISION}/(.+)", _Handler.resolve),
    (f"/api/resolve-cache/datasets/{_NAME}/{_REVISION}/(.+)", _Handler.cached),
    (f"/api/datasets/{_NAME}(?:/revision/{_REVISION})?", _Handler.info),
    (f"/api/datasets/{_NAME}/tree/{_REVISION}(?:/(.*))?", _Handler.tree),
    (f"/{_NAME}/resolve/{_REVISION}/(.+)", _Handler.resolve),  # of a model
    (f"/api/models/{_NAME}(?:/revision/{_REVISION})?", _Handler.info),
    ("/api/whoami-v2", _Handler.whoami),
)

POSTS = (
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.validate_card),
    (f"/api/datasets/{_NAME}/paths-info/{_REVISION}", _Handler.paths_info),
    (f"/api/datasets/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    (rf"/datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (rf"/datasets/{_NAME}\.git/info/lfs/objects/verify", _Handler.lfs_verify),
    (f"/api/datasets/{_NAME}/commit/{_REVISION}", _Handler.make_commit),
)
