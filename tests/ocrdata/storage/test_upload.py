"""Files sent to real servers: what is there afterwards, and what is not."""

import hashlib
import itertools
import os
import urllib.request
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import obstore
import pytest

from ocrdata.errors import DiskError, TransportError
from ocrdata.storage import retries
from ocrdata.storage import upload as module
from ocrdata.storage.location import Location
from ocrdata.storage.remote import status
from ocrdata.storage.stores import bucket_queries
from ocrdata.storage.upload import PART_BYTES, abort_pending, delete, upload
from tests.support.servers.http import Handler, HttpServer
from tests.support.servers.s3 import S3Server

KEYS = (f"upload {number}/a b+c" for number in itertools.count())


@pytest.fixture(params=["moto", "nanio"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(100_000))
    return path


class Putting(HttpServer):
    """Keeps what is put, as `spoil` makes it; the first answers to PUT are those in `first`."""

    def __init__(self, *first: int, spoil: bytes | None = None) -> None:
        super().__init__(_PutHandler)
        self.first, self.spoil = list(first), spoil
        self.files: dict[str, bytes] = {}
        self.methods: list[str] = []


class _PutHandler(Handler):
    server: Putting

    def answer(self) -> None:
        server = self.server
        server.methods.append(self.command)
        if self.command == "PUT":
            data = self.receive()
            if server.first:
                self.send(server.first.pop(0), {"Retry-After": "0"})
                return
            server.files[self.path] = data if server.spoil is None else server.spoil
            self.send(201, {})
        elif self.command == "DELETE":
            self.send(204 if server.files.pop(self.path, None) is not None else 404, {})
        elif self.path not in server.files:
            self.send(404, {})
        else:
            data = server.files[self.path]
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            headers = {"ETag": f'"{digest}"', "Content-Length": str(len(data))}
            self.send(200, headers, b"" if self.command == "HEAD" else data)

    def do_DELETE(self) -> None:  # noqa: N802 - the name http.server looks for
        self.answer()


@pytest.mark.parametrize("size", [0, 100_000, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 5])
def test_the_object_is_the_file(server: S3Server, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    key = next(KEYS)
    place = Location.of(server.url(quote(key)))
    found = upload(place, path)
    assert found == status(place) and found.size == size and found.version
    assert bytes(obstore.get(server.store(), key).bytes()) == path.read_bytes()
    path.write_bytes(b"another")
    assert upload(place, path) != found
    assert bytes(obstore.get(server.store(), key).bytes()) == b"another"
    delete(place)
    delete(place)
    assert status(place) is None


def test_what_is_missing_is_named(
    server: S3Server, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransportError, match=r"s3://no-bucket/x: .*no such bucket"):
        upload(Location("s3://no-bucket/x"), file)
    with pytest.raises(DiskError, match="missing"):
        upload(Location(server.url("x")), tmp_path / "missing")


def test_wrong_credentials_are_one_line_at_once(
    nanio: S3Server, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in nanio.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{nanio.port}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(TransportError, match=r"access denied .*403") as caught:
        upload(Location(nanio.url("x")), file)
    assert "secret" not in str(caught.value)


def test_a_server_that_accepts_put(file: Path) -> None:
    with Putting() as far:
        found = upload(Location(f"{far.url}/a/b"), file)
        assert far.files == {"/a/b": file.read_bytes()} and found.size == 100_000
        delete(Location(f"{far.url}/a/b"))
        assert far.files == {}


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_can_pass_is_tried_again(
    file: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    with Putting(code, code) as far:
        upload(Location(f"{far.url}/b"), file)
        assert far.methods.count("PUT") == 3 and far.files == {"/b": file.read_bytes()}


@pytest.mark.parametrize("code", [405, 413, 501])
def test_what_cannot_pass_is_not(file: Path, code: int) -> None:
    with Putting(code) as far:
        with pytest.raises(TransportError, match="does not accept files"):
            upload(Location(f"{far.url}/b"), file)
        assert far.methods == ["PUT"] and far.files == {}


def test_other_bytes_of_the_same_size_are_deleted_there(file: Path) -> None:
    with Putting(spoil=bytes(100_000)) as far:
        with pytest.raises(TransportError, match=r"/b: .*other bytes"):
            upload(Location(f"{far.url}/b"), file)
        assert far.files == {}


def test_bytes_of_another_size(file: Path) -> None:
    with Putting(spoil=b"short") as far, pytest.raises(TransportError, match="not what was"):
        upload(Location(f"{far.url}/b"), file)


def test_an_etag_that_only_looks_like_an_md5(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of S3's objects that KMS encrypts: the object is read back, once a server."""
    monkeypatch.setattr(module, "_no_md5", set())
    real = hashlib.md5
    with Putting() as far:
        monkeypatch.setattr(hashlib, "md5", lambda data, **_: real(data + b"key"))
        upload(Location(f"{far.url}/b"), file)
        assert far.methods == ["PUT", "HEAD"]
        monkeypatch.setattr(module.hashlib, "md5", lambda data, **_: real(data + b"other key"))
        upload(Location(f"{far.url}/c"), file)
        upload(Location(f"{far.url}/d"), file)
    assert len(far.files) == 3


def test_uploads_that_were_killed_are_aborted(server: S3Server) -> None:
    folder = f"killed {next(KEYS)}"
    place = Location.of(server.url(quote(folder)))
    names = ["set-000.tar", "set-001.tar", "other-000.tar", "set-000.tar/x"]
    for name in names:
        begin(server, f"{folder}/{name}")
    assert pending(server, folder) == sorted(names)
    assert abort_pending(place, lambda name: name.startswith("set-"), "set") == ""
    assert pending(server, folder) == ["other-000.tar", "set-000.tar/x"]


def test_a_store_that_does_not_list_uploads(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    said = abort_pending(Location("s3://no-bucket/a/b"), lambda _: True, "set")
    assert "--bucket no-bucket --prefix a/b/set" in said
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert abort_pending(Location("https://host/a"), lambda _: True, "set") == ""


def begin(server: S3Server, key: str) -> None:
    ask(server, "POST", "uploads=", key)


def pending(server: S3Server, folder: str) -> list[str]:
    text = ask(server, "GET", f"uploads=&prefix={quote(folder + '/', safe='')}")
    keys = text.split("<Key>")[1:]
    return sorted(key.partition("</Key>")[0].removeprefix(f"{folder}/") for key in keys)


def ask(server: S3Server, method: str, query: str, key: str = "") -> str:
    store, path = bucket_queries(server.bucket, key, query)
    url = obstore.sign(store, method, path, timedelta(seconds=60))  # type: ignore[call-overload]
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        return str(answer.read().decode())
