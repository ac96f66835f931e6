"""Creating the index of a tar on first use, beside it or in the cache."""

import threading
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, ShardError, TruncatedError
from ocrdata.reading.index_tar import cached_index_path, find_index
from ocrdata.shards.index import (
    index_path,
    read_index,
)
from ocrdata.storage.cache import CACHE_VARIABLE
from tests.support.rows import image, write_tar


def test_truncated_tar_is_not_indexed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.png", image("PNG")), ("b.png", image("PNG"))])
    data = tar.read_bytes()
    tar.write_bytes(data[:1024])
    with pytest.raises(TruncatedError) as caught:
        find_index(tar)
    assert caught.value.shard == str(tar)
    assert not index_path(tar).path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


def test_index_is_created_once_beside_the_tar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.txt", b"x")])
    assert find_index(tar).path == tmp_path / "x.index.parquet"
    assert [str(tar) in message for message in caplog.messages] == [True]
    caplog.clear()
    assert find_index(tar).path == tmp_path / "x.index.parquet"
    assert not caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.index.parquet", "x.tar"]


def test_index_is_cached_if_it_cannot_be_written_beside_the_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    stem = "x" * 250  # the name of its index would be too long
    tars = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        tars.append(write_tar(tmp_path / folder / f"{stem}.tar", [(f"{folder}.txt", b"x")]))
    files = [find_index(tar).path for tar in tars]
    assert files == [cached_index_path(tar).path for tar in tars]
    assert [read_index(file).keys for file in files] == [["one"], ["two"]]
    assert [find_index(tar).path for tar in tars] == files
    assert len(list((tmp_path / "cache").iterdir())) == 2
    write_tar(tars[0], [("other.txt", b"longer than before" * 1000)])
    assert read_index(find_index(tars[0])).keys == ["other"]


def test_index_that_cannot_be_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    tar = write_tar(tmp_path / f"{'x' * 250}.tar", [("a.txt", b"x")])
    with pytest.raises(DiskError, match="not a folder"):
        find_index(tar)


def test_index_of_a_missing_tar(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"absent\.tar"):
        find_index(tmp_path / "absent.tar")


def test_threads_create_a_shared_index_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = write_tar(tmp_path / "x.tar", [(f"{n}.png", image("PNG")) for n in range(50)])
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(read_index(find_index(tar)))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 8
    assert [str(tar) in message for message in caplog.messages] == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.index.parquet", "x.tar"]
