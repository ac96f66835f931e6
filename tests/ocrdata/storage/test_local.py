"""Local files, read by position."""

import os
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, ShardError, TransportError, TruncatedError
from ocrdata.storage.local import LocalFile
from ocrdata.storage.location import Location


def test_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(200)))
    file = LocalFile(path)
    assert (file.size, file.name, file.location) == (200, str(path), Location.of(path))
    file.hint([(0, 10), (190, 500)])  # advice, never an error
    assert file.read(10, 5) == bytes(range(10, 15))
    assert file.read(200, 0) == b""
    buffer = bytearray(4)
    file.read_into(196, memoryview(buffer))
    assert buffer == bytes(range(196, 200))
    assert file.read_ranges([(3, 2), (100, 0), (198, 2)]) == [b"\x03\x04", b"", b"\xc6\xc7"]
    assert file.read_ranges([]) == []


def test_file_that_was_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(1000))
    file = LocalFile(path)
    os.truncate(path, 600)
    with pytest.raises(TruncatedError, match=r"a\.tar: .*\b600\b.*\b700\b"):
        file.read(500, 200)
    with pytest.raises(TruncatedError, match=r"a\.tar: .*\b600\b.*\b700\b"):
        file.read_into(500, memoryview(bytearray(200)))
    with pytest.raises(TruncatedError, match=r"a\.tar: .*\b600\b.*\b700\b"):
        file.read_ranges([(0, 10), (500, 200)])


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"absent\.tar: .*missing\n"):
        LocalFile(tmp_path / "absent.tar")
    with pytest.raises(ShardError, match="not a regular file"):
        LocalFile(tmp_path)
    with pytest.raises(DiskError, match=r"xxx: .*name is too long"):
        LocalFile(tmp_path / ("x" * 300))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match="not a folder"):
        LocalFile(tmp_path / "file" / "a.tar")


def test_error_of_the_operating_system(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(10))
    file = LocalFile(path)
    file.close()
    with pytest.raises(TransportError, match=r"a\.tar: .*Bad file descriptor"):
        file.read(0, 1)
    with pytest.raises(TransportError, match=r"a\.tar: .*Bad file descriptor"):
        file.read_into(0, memoryview(bytearray(1)))


def test_replaced_file_has_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"one")
    file = LocalFile(path)
    assert LocalFile(path).version == file.version
    (tmp_path / "b").write_bytes(b"two")  # the same size, and perhaps the same time
    os.replace(tmp_path / "b", path)
    assert LocalFile(path).version != file.version
    assert file.read(0, 3) == b"one"
    file.close()
    file.close()
