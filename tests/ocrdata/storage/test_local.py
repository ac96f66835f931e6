import gc
import os
import threading
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, ShardError, TruncatedError
from ocrdata.storage.local import FilePool, LocalFile


def open_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_reads_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(200)))
    file = LocalFile(path)
    assert (file.size, file.name) == (200, str(path))
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


def test_a_pool_keeps_few_files_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tar" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    gc.collect()  # files that errors of earlier tests still hold
    before, pool = open_handles(), FilePool(limit=3)
    for _ in range(2):
        for path in paths:
            assert pool.get(path).read(0, 2) == path.name.encode()[:2]
    assert open_handles() == before + 3
    held = pool.get(paths[0])
    for path in paths[1:]:
        pool.get(path)
    assert held.read(0, 1) == b"0"  # forgotten by the pool, and still open for who holds it
    del held, pool
    gc.collect()
    assert open_handles() == before


def test_a_pool_is_shared_by_threads(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tar" for number in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    pool = FilePool(limit=2)
    wrong: list[Path] = []

    def work(seed: int) -> None:
        for turn in range(300):
            path = paths[(turn * (seed + 1)) % len(paths)]
            if pool.get(path).read(0, 5) != path.name.encode():
                wrong.append(path)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
