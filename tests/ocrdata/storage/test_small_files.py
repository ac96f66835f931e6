"""Small files of shards at URLs: in the bounded cache, or in the cache folder."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocrdata.storage import fetching
from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.small_files import get_small, put_small


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "folder"
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(folder))
    yield folder
    fetching.use_cache(None)


@pytest.mark.parametrize("bounded", [True, False])
def test_what_is_kept_is_found_by_its_name(tmp_path: Path, bounded: bool, cache: Path) -> None:
    if bounded:
        fetching.use_cache(BlockCache(tmp_path / "bounded", 1_000_000))
    assert get_small("a") is None
    assert put_small("a", b"one") and put_small("b", b"two") and put_small("a", b"three")
    assert (get_small("a"), get_small("b"), get_small("c")) == (b"three", b"two", None)
    assert cache.exists() == (not bounded)  # in the bounded cache all of it counts


def test_one_that_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    fetching.use_cache(BlockCache(tmp_path / "bounded", 10_000))
    assert not put_small("a", bytes(20_000)) and get_small("a") is None


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "file"))
    assert not put_small("a", b"one") and get_small("a") is None
    assert "OCR_SHARDS_CACHE" in caplog.text


def test_a_cache_is_shared_with_worker_processes(tmp_path: Path) -> None:
    mine = BlockCache(tmp_path / "bounded", 1_000_000)
    mine.put_file("a", b"one")
    theirs = copy.copy(mine)  # by the same method as multiprocessing sends it
    assert theirs.get_file("a") == b"one" and theirs.limit == 1_000_000
