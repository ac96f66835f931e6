import os
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, ShardError, TruncatedError
from ocrdata.storage.local import LocalFile
from ocrdata.storage.location import Location


def test_reads_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(200)))
    file = LocalFile(path)
    assert (file.size, file.name, file.location) == (200, str(path), Location.of(path))
    file.hint([(0, 10), (190, 500)])  # advice, never an error
    assert file.read(10, 5) == bytes(range(10, 15))
    assert file.read(200, 0) == b""
    window = bytearray(4)
    file.read_into(196, memoryview(window))
    assert window == bytes(range(196, 200))


def test_an_end_too_early(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(1000))
    file = LocalFile(path)
    os.truncate(path, 600)
    with pytest.raises(TruncatedError, match=r"ends at byte 600, byte 700 is needed"):
        file.read(500, 200)
    with pytest.raises(TruncatedError, match=r"ends at byte 600, byte 700 is needed"):
        file.read_into(500, memoryview(bytearray(200)))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="the file is gone"):
        LocalFile(tmp_path / "absent.tar")
    with pytest.raises(ShardError, match="not a regular file"):
        LocalFile(tmp_path)
    with pytest.raises(DiskError, match="the name is too long for this file system"):
        LocalFile(tmp_path / ("x" * 300))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match="not a folder"):
        LocalFile(tmp_path / "file" / "a.tar")


def test_a_disk_that_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(10))
    file = LocalFile(path)
    file.close()
    with pytest.raises(ShardError, match="the disk cannot read it: Bad file descriptor"):
        file.read(0, 1)
    with pytest.raises(ShardError, match="the disk cannot read it: Bad file descriptor"):
        file.read_into(0, memoryview(bytearray(1)))


def test_another_content_is_another_version(tmp_path: Path) -> None:
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
