"""Sends files to objects at URLs: whole or not at all, and compared with what the store has then.

What can pass is tried again within the bounds of `ocrdata.storage.retries`. A file above
`PART_BYTES` is sent to S3 in parts, which become an object all at once; each part is tried a few
times before the whole file is sent again. The parts that a killed process leaves are invisible, but
cost money: `abort_pending` removes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from ocrdata.errors import DiskError, OcrError, TransportError
from ocrdata.storage.files import explain_disk, open_regular
from ocrdata.storage.hub_commits import commit
from ocrdata.storage.location import Location
from ocrdata.storage.remote import ObjectStatus, fetch, status
from ocrdata.storage.retries import Attempts, explain, is_from_client
from ocrdata.storage.stores import ATTEMPT_S, Target, bucket_queries, client, writer_of

PART_BYTES = 8 << 20
MOST_PARTS = 9_000
"""S3 accepts 10,000."""

PARTS_AT_ONCE = 4

_MD5 = re.compile(r'"[0-9a-f]{32}"')


def upload(location: Location, path: Path) -> ObjectStatus:
    """Send a file; returns the size and version of the object.

    The object must have the size of the file and the ETag that the store named for what it
    received. An ETag that is an MD5 must be that of the bytes; where it is another number of the
    same form, as with S3's KMS encryption, the object is read back. The ETag of a file sent in
    parts is no digest. Raises TransportError, and DiskError for the file.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if location.scheme != "s3" or size <= PART_BYTES:
            return upload_bytes(location, file.read())

        def send(target: Target) -> Any:
            file.seek(0)
            return client().put(
                target.store,
                target.path,
                file,
                use_multipart=True,
                chunk_size=max(PART_BYTES, -(-size // MOST_PARTS)),
                max_concurrency=PARTS_AT_ONCE,
            )

        sent = _attempt(location, size, send)
    return _status_now(location, size, sent["e_tag"])


def upload_bytes(location: Location, data: bytes) -> ObjectStatus:
    """As `upload`, of bytes that are in memory."""

    if location.scheme == "hf":
        commit(location.folder, {location.name: data}, location.name)
        return ObjectStatus(len(data), "")

    def send(target: Target) -> Any:
        return client().put(target.store, target.path, data, use_multipart=False)

    sent = _attempt(location, len(data), send)
    found = _status_now(location, len(data), sent["e_tag"])
    host = urlsplit(location.text).netloc
    if not _MD5.fullmatch(found.version) or host in _no_md5:
        return found
    if found.version.strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
        if fetch(location, version=found.version).data != data:
            delete(location)
            raise TransportError(
                str(location),
                "the server stored other bytes than were sent",
                remedy="the object was deleted again; run the command again",
            )
        _no_md5.add(host)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with explain_disk(path):
        try:
            handle = open_regular(path)
        except FileNotFoundError as exc:
            raise DiskError(f"{path}: was removed before it was sent") from exc
    with open(handle, "rb") as file:
        yield file


def _attempt(location: Location, size: int, request: Callable[[Target], Any]) -> Any:
    """The result of a request that changes something, tried again like one that reads. `size` is
    that of what it sends."""
    store, path = writer_of(location, size)
    target = Target(store, path, urlsplit(location.text).netloc)
    attempts = Attempts(location, size)
    while True:
        attempts.before(target)
        try:
            return request(target)
        except OcrError:
            raise
        except Exception as exc:
            if not is_from_client(exc):
                raise
            if explain(exc).code in _REFUSED:
                text, remedy = _REFUSED[explain(exc).code]
                raise TransportError(str(location), text, remedy=remedy) from None
            attempts.after(exc, target)


_NOT_WRITABLE = "the server does not accept files", "use s3://, hf:// or a folder of this machine"
_REFUSED = {
    404: ("there is no such bucket or folder", "create it, or check its name"),
    405: _NOT_WRITABLE,
    409: ("there is no such folder on the server", "create it, or check its name"),
    413: (
        "the server does not accept files of this size",
        "make smaller shards, or raise its limit",
    ),
    501: _NOT_WRITABLE,
}
"""Status codes that mean something else to a writer, and that no later try mends."""


def _status_now(location: Location, size: int, version: str | None) -> ObjectStatus:
    """What the store has, after `size` bytes were sent and `version` was named for them. Raises
    TransportError if that is something else."""
    found = status(location)
    if found is None or found.size != size or (version and found.version != version):
        raise TransportError(
            str(location),
            "is not what was just sent",
            remedy="another process writes there, or the server lost it; run the command again",
        )
    return found


_no_md5: set[str] = set()
"""Buckets and hosts whose ETags look like an MD5 and are none."""


def delete(location: Location) -> None:
    """Delete an object, if there is one. Raises TransportError."""
    if status(location) is None:
        return
    _attempt(location, 0, lambda target: client().delete(target.store, target.path))


def abort_pending(folder: Location, is_ours: Callable[[str], bool], prefix: str) -> str:
    """Remove the parts of multipart uploads that killed processes left in a folder of a bucket.

    Only those of names that begin with `prefix` and that `is_ours`. Returns "", or what to do about
    them where the store does not list or remove them for us.
    """
    if folder.scheme != "s3":
        return ""
    parts = urlsplit((folder / prefix).text)
    bucket, key = parts.netloc, unquote(parts.path.lstrip("/"))
    try:
        listed = _ask(bucket, "GET", f"uploads=&prefix={quote(key, safe='')}")
        for entry in ElementTree.fromstring(listed).iterfind("{*}Upload"):
            name = entry.findtext("{*}Key", "")
            if is_ours(name.rpartition("/")[2]) and "/" not in name.removeprefix(key):
                upload_id = quote(entry.findtext("{*}UploadId", ""), safe="")
                _ask(bucket, "DELETE", f"uploadId={upload_id}", name)
    except Exception as exc:
        if not (is_from_client(exc) or isinstance(exc, ElementTree.ParseError)):
            raise
        return (
            f"{folder}: unfinished uploads cannot be listed or removed; if an earlier command was "
            f"killed, look with: aws s3api list-multipart-uploads --bucket {bucket} "
            f"--prefix {shlex.quote(key)}"
        )
    return ""


def _ask(bucket: str, method: str, query: str, key: str = "") -> bytes:
    """The answer to a signed request with a query, which the client cannot send. Raises OSError."""
    store, path = bucket_queries(bucket, key, query)
    url = client().sign(store, method, path, timedelta(seconds=60))
    with urllib.request.urlopen(
        urllib.request.Request(url, method=method), timeout=ATTEMPT_S
    ) as answer:
        return bytes(answer.read())
