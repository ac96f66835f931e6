"""Index blocks in the cache folder: used, never trusted, never needed."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocrdata.errors import ShardError
from ocrdata.reading import index_cache, shard_entry, shard_set
from ocrdata.reading.view import Shards, open_shards
from ocrdata.sample import Sample
from ocrdata.shards import index_block
from ocrdata.shards.index import Index, index_path
from ocrdata.shards.names import make_key
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from ocrdata.storage.cache import CACHE_VARIABLE
from tests.support.rows import flip, sample, write_set, write_shard

COUNTS = (5, 0, 9, 1)
TOTAL = sum(COUNTS)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; blocks of four rows, of which memory holds one."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "INDEX_ROWS", 1)
    for module in (index_block, index_cache, shard_set):
        monkeypatch.setattr(module, "BLOCK_ROWS", 4)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    path.mkdir()
    write_set(path, "x", COUNTS, ("PNG", "JPEG"))
    return path


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob("*/*") if path.is_file())


def check_exact(shards: Shards) -> None:
    """Every way to read gives what was written."""
    wanted = [sample(number, ("PNG", "JPEG")) for number in range(len(shards))]
    places = list(range(len(shards)))
    random.Random(0).shuffle(places)
    assert [shards[at] for at in places] == [wanted[at] for at in places]
    assert list(shards) == wanted
    assert [shards.row(at).key for at in places] == [make_key(at) for at in places]
    assert shards.by_key(make_key(3)) == wanted[3]


class Loads:
    """Counts how often an index is loaded from its Parquet file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = shard_entry.read_index

        def counted(*arguments: object) -> Index:
            self.count += 1
            return original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(shard_entry, "read_index", counted)


def test_an_index_is_loaded_once_for_all_openings(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = Loads(monkeypatch)
    for _ in range(3):
        check_exact(open_shards(str(folder)))
        assert loads.count == 3  # of four shards, one is empty
    assert len(files(cache)) == 3


def test_reading_one_sample_reads_one_block(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_exact(open_shards(str(folder)))
    asked: list[tuple[int, int]] = []
    original = os.pread

    def pread(handle: int, size: int, offset: int) -> bytes:
        asked.append((size, offset))
        return original(handle, size, offset)

    shards = open_shards(str(folder))
    monkeypatch.setattr(os, "pread", pread)
    assert shards.row(5 + 7).key == make_key(12)  # the last row of the second block of three
    largest = max(path.stat().st_size for path in files(cache))
    assert len(asked) == 2  # header and block
    assert sum(size for size, _ in asked) < largest * 2 // 3


@pytest.mark.parametrize("name", ["x-000.tar", "x-000.tar.zst"])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Whatever bit of it is flipped, and wherever it ends."""
    folder = tmp_path / "set"
    folder.mkdir()
    with ShardWriter(folder / name, frames=ZstdOptions(2048)) as writer:
        for number in range(9):
            writer.write(make_key(number), sample(number, ("PNG", "JPEG")))
    writer.close()
    check_exact(open_shards(str(folder / name)))
    (path,) = files(cache)
    whole, pick = path.read_bytes(), random.Random(1)
    for at in sorted(pick.sample(range(len(whole)), 40)):
        flip(path, at, pick.randrange(8))
        check_exact(open_shards(str(folder / name)))
        assert path.read_bytes() == whole, f"byte {at} of {len(whole)}"
    for size in (0, 1, 40, 200, len(whole) - 1):
        os.truncate(path, size)
        check_exact(open_shards(str(folder / name)))
        assert path.read_bytes() == whole, f"truncated to {size}"
    assert str(path) in caplog.text and "damaged" in caplog.text


def test_the_file_of_another_index_is_made_again(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the shard that had this name before, of another shard, of other blocks."""
    check_exact(open_shards(str(folder)))
    before = [path.read_bytes() for path in files(cache)]
    first = files(cache)[0].read_bytes()
    for path in files(cache)[1:]:
        path.write_bytes(first)
    check_exact(open_shards(str(folder)))
    assert [path.read_bytes() for path in files(cache)] == before
    (folder / "x.json").unlink()
    write_shard(folder / "x-000.tar", [sample(number) for number in range(7)])
    shards = open_shards(str(folder / "x-000.tar"))
    assert list(shards) == [sample(number) for number in range(7)]
    changed = [path.read_bytes() for path in files(cache)]
    assert sum(one != other for one, other in zip(before, changed, strict=True)) == 1
    assert not caplog.records  # nothing is wrong with them


def test_an_index_that_changed_is_not_hidden_by_the_cache(folder: Path, cache: Path) -> None:
    """What the cache holds is what the manifest lists, even if the index beside the tar is not;
    without the cache, that is an error."""
    check_exact(open_shards(str(folder)))
    shutil.copy(index_path(folder / "x-002.tar"), index_path(folder / "x-000.tar"))
    check_exact(open_shards(str(folder)))
    shutil.rmtree(cache)
    with pytest.raises(ShardError, match=r"x-000\.tar: .*x-000\.index\.parquet .*manifest"):
        open_shards(str(folder))[0]


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_place(cache: Path, _: pytest.MonkeyPatch) -> None:
    cache.write_bytes(b"a file, so that nothing can be kept in it")


def full(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "replace_file", refuse)


@pytest.mark.parametrize("spoil", [no_place, full])
def test_reading_needs_no_cache(
    folder: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    spoil(cache, monkeypatch)
    for _ in range(2):
        check_exact(open_shards(str(folder)))
    assert len(caplog.records) == 2  # one each time the set is opened, not one a shard
    assert all(CACHE_VARIABLE in record.getMessage() for record in caplog.records)


def test_a_pipe_in_place_of_a_file_is_replaced(folder: Path, cache: Path) -> None:
    check_exact(open_shards(str(folder)))
    path = files(cache)[0]
    path.unlink()
    os.mkfifo(path)
    check_exact(open_shards(str(folder)))
    assert path.is_file()


def test_without_a_cache_the_blocks_of_a_shard_are_loaded_together(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "INDEX_ROWS", 100)
    monkeypatch.setattr(index_cache, "replace_file", refuse)
    loads = Loads(monkeypatch)
    check_exact(open_shards(str(folder)))
    assert loads.count == 3


def test_threads_and_openings_can_make_the_same_files(folder: Path, cache: Path) -> None:
    opened = [open_shards(str(folder)) for _ in range(4)]
    handles = len(os.listdir("/proc/self/fd"))

    def read(number: int) -> list[Sample]:
        places = list(range(TOTAL))
        random.Random(number).shuffle(places)
        found = {at: opened[number // 2][at] for at in places}
        return [found[at] for at in range(TOTAL)]

    wanted = [sample(number, ("PNG", "JPEG")) for number in range(TOTAL)]
    with ThreadPoolExecutor(8) as threads:
        assert all(found == wanted for found in threads.map(read, range(8)))
    assert len(files(cache)) == 3
    assert len(os.listdir("/proc/self/fd")) <= handles + len(opened) * len(COUNTS)  # the tars
