"""Opening and reading files by location, and the pool of open files."""

import errno
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocrdata.errors import TransportError, UsageError
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.shards.frames import FrameTable
from ocrdata.storage import file as file_module
from ocrdata.storage.file import (
    File,
    FilePool,
    digest_of_file,
    exists,
    is_folder,
    list_names,
    open_file,
    read_all,
    size_of,
)
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of
from tests.support.far import FarFolder

URL = "ftp://user:secret@host/shards/x-000.tar?token=secret"


def test_local_files_and_tars_in_compressed_shards_are_files(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"content")
    plain: File = open_file(tmp_path / "x.tar")
    inside: File = ZstdTar(plain, FrameTable.of([(7, 100)]))
    assert (plain.size, inside.size) == (7, 100)
    assert (inside.name, inside.location, inside.version) == (
        plain.name,
        plain.location,
        plain.version,
    )
    assert digest_of_file(plain) == digest_of(b"content")
    inside.close()
    with pytest.raises(TransportError):
        plain.read(0, 1)


def test_existence_size_and_content_of_a_location(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"content")
    assert exists(path) and exists(str(path)) and exists(Location.of(path))
    assert not exists(tmp_path / "absent") and not exists("a\0b") and not exists("x" * 300)
    assert is_folder(tmp_path) and not is_folder(path) and not is_folder("a\0b")
    assert list_names(tmp_path) == ["x.tar"] and list_names(tmp_path / "absent") == []
    assert list_names(path) == [] and list_names("x" * 300) == []
    assert size_of(path) == 7 and read_all(path) == b"content"
    with pytest.raises(TransportError, match=r"absent: .*No such file"):
        size_of(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        read_all(tmp_path / "absent")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(TransportError, match=f"^{tmp_path}: .*Permission denied"):
        list_names(tmp_path)


@pytest.mark.parametrize("ask", [open_file, exists, size_of, read_all])
def test_a_url_of_a_kind_that_cannot_be_read(ask: object) -> None:
    with pytest.raises(UsageError, match=r"ftp://host/shards/x-000\.tar.*https://") as caught:
        ask(URL)  # type: ignore[operator]
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_object_at_a_url_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"content")
    with FarFolder(tmp_path) as far:
        place = far.url + "/x.tar"
        file: File = open_file(place)
        assert (file.size, file.read(1, 3), read_all(place), size_of(place)) == (
            7, b"ont", b"content", 7)  # fmt: skip
        assert exists(place) and not exists(far.url + "/y.tar")
        assert digest_of_file(file) == digest_of(b"content")
        # Nothing is listed at a URL, and nothing there is a folder.
        assert not is_folder(far.url) and list_names(far.url) == []


def open_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_pool_keeps_few_files_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tar" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    gc.collect()  # earlier tests' errors may keep files open
    before, pool = open_handles(), FilePool(limit=3)
    for _ in range(2):
        for path in paths:
            assert pool.get(Location.of(path)).read(0, 2) == path.name.encode()[:2]
    assert open_handles() == before + 3
    held = pool.get(Location.of(paths[0]))
    for path in paths[1:]:
        pool.get(Location.of(path))
    assert held.read(0, 1) == b"0"  # evicted from the pool, but still open for its user
    del held, pool
    gc.collect()
    assert open_handles() == before


def test_threads_can_share_a_pool(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.tar" for number in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    pool = FilePool(limit=2)
    wrong: list[Path] = []

    def work(seed: int) -> None:
        for turn in range(300):
            path = paths[(turn * (seed + 1)) % len(paths)]
            if pool.get(Location.of(path)).read(0, 5) != path.name.encode():
                wrong.append(path)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))  # raises what a thread raised
    assert not wrong


def test_a_file_that_is_slow_to_open_delays_only_its_own_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = tmp_path / "slow.tar", tmp_path / "fast.tar"
    for path in (slow, fast):
        path.write_bytes(path.name.encode())
    opening, released, opened = threading.Event(), threading.Event(), list[str]()
    original = file_module.open_file

    def open_file(location: Location) -> File:
        opened.append(location.name)
        if location.name == slow.name:
            opening.set()
            assert released.wait(30)
        return original(location)

    monkeypatch.setattr(file_module, "open_file", open_file)
    pool = FilePool()
    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(pool.get, Location.of(slow))]
        assert opening.wait(30)
        readers.append(threads.submit(pool.get, Location.of(slow)))
        try:
            other = threads.submit(pool.get, Location.of(fast)).result(30)
            assert other.read(0, 4) == b"fast"
            assert not any(reader.done() for reader in readers)
        finally:
            released.set()
        one, two = (reader.result(30) for reader in readers)
    assert one is two
    assert opened == ["slow.tar", "fast.tar"]
