"""The S3 servers of the tests: both serve ranges; moto enforces If-Match, nanio ignores it."""

import itertools
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from tests.support.servers.s3 import S3Server

DATA = bytes(range(256)) * 40
NUMBERS = itertools.count()


@pytest.fixture(params=["moto", "nanio"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def test_a_folder_goes_in_and_ranges_come_out(server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(DATA)
    (tmp_path / "a").write_bytes(b"a")
    prefix = f"folder-{next(NUMBERS)}"
    assert server.put_folder(tmp_path, prefix) == f"s3://{server.bucket}/{prefix}"
    assert server.files(prefix) == {"a": b"a", "inner/b": DATA}
    found = obstore.get_range(server.store(), f"{prefix}/inner/b", start=300, end=310)
    assert bytes(found) == DATA[300:310]


def test_the_variables_are_all_a_client_needs(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    store = S3Store.from_url(server.url())
    obstore.put(store, "variables", b"here")
    assert bytes(obstore.get(store, "variables").bytes()) == b"here"


def get_if_match(server: S3Server, etag: str) -> bytes:
    obstore.put(server.store(), "matched", DATA)
    return bytes(obstore.get(server.store(), "matched", options={"if_match": etag}).bytes())


def test_moto_enforces_if_match(moto: S3Server) -> None:
    with pytest.raises(PreconditionError):
        get_if_match(moto, '"0123"')


def test_nanio_ignores_if_match(nanio: S3Server) -> None:
    assert get_if_match(nanio, '"0123"') == DATA


def test_nanio_verifies_signatures(nanio: S3Server) -> None:
    store = S3Store(
        nanio.bucket,
        endpoint=nanio.endpoint,
        access_key_id="another",
        secret_access_key="wrong",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    with pytest.raises(BaseError, match="InvalidAccessKeyId"):
        obstore.put(store, "x", b"x")
