"""Files copied to this machine: complete and verified, or absent."""

import os
from pathlib import Path

import pytest

from ocrdata.errors import DigestError, TransportError
from ocrdata.storage import download as module
from ocrdata.storage.download import download
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of
from tests.support.far import Asked, FarFolder, Reply

DATA = os.urandom(100_000)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 7_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_bytes(DATA)
    (tmp_path / "far" / "empty").touch()
    return tmp_path / "far"


def test_the_copy_is_the_file(folder: Path, tmp_path: Path) -> None:
    with FarFolder(folder) as far:
        for place in (str(folder), far.url):
            sizes: list[int] = []
            target = tmp_path / "copy"
            download(
                Location.of(place) / "file", target, digest=digest_of(DATA), report=sizes.append
            )
            assert target.read_bytes() == DATA and sum(sizes) == len(DATA) and len(sizes) == 15
            download(Location.of(place) / "empty", target, digest=digest_of(b""))
            assert target.read_bytes() == b""


def test_other_bytes_leave_nothing(folder: Path, tmp_path: Path) -> None:
    def spoilt(asked: Asked) -> Reply | None:
        if asked.range is None or asked.range[0] != 70_000:
            return None
        return Reply(body=bytes(asked.range[1] - asked.range[0]))

    target = tmp_path / "copy"
    with FarFolder(folder, spoilt) as far, pytest.raises(DigestError, match="file: checksum"):
        download(Location(f"{far.url}/file"), target, digest=digest_of(DATA))
    with FarFolder(folder) as far, pytest.raises(TransportError, match="missing: does not exist"):
        download(Location(f"{far.url}/missing"), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far"]


def test_an_object_that_is_replaced_midway_is_not_mixed(folder: Path, tmp_path: Path) -> None:
    def replaced(asked: Asked) -> Reply | None:
        if asked.range and asked.range[0] == 49_000:
            (folder / "file").write_bytes(DATA[:-1] + b"x")
        return None

    with FarFolder(folder, replaced) as far, pytest.raises(TransportError, match="replaced"):
        download(Location(f"{far.url}/file"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
