"""Creating the index of a tar on first use, beside it or in the cache."""

import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, ShardError, TruncatedError
from ocrdata.images.decode import ImageInfo
from ocrdata.reading.index_tar import cached_index_path, find_index, index_tar
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import Index, index_path, read_header, read_index, write_index
from ocrdata.shards.index_rows import IndexBuilder
from ocrdata.shards.output import Written
from ocrdata.storage.cache import CACHE_VARIABLE
from ocrdata.storage.sealed import VERSION, digest_of
from ocrdata.tokens.counts import CountsBuilder, cached_counts_path, counts_path, write_counts
from ocrdata.tokens.rendering import TurnCount
from tests.support.rows import image, sample, write_set, write_shard, write_tar


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


MASKED = [
    ("k.depth.png", image("PNG", 9)),
    ("k.jpg", image("JPEG")),
    ("k.txt", b"a square"),
    ("m.jpg", image("JPEG")),
    ("m.txt", b""),
]


def write_older_index(tar: Path, path: Path, version: str = VERSION) -> str:
    """An index by the first rules: every member with an image's extension, in the tar's order,
    and any caption. Returns its `rows_digest`."""
    fresh, builder = index_tar(tar), IndexBuilder()
    for at in range(len(fresh)):
        row = fresh.row(at)
        kinds = [member.name.rpartition(".")[2] for member in row.members]
        images = tuple(ImageInfo(kind, 8, 6) for kind in kinds if kind in ("png", "jpg"))
        builder.add(row._replace(images=images, turns=int("txt" in kinds)))
    old = builder.finish(Written(fresh.header.shard_size, fresh.header.shard_digest))
    write_index(path, Index(old.table, replace(old.header, version=version)))
    return old.header.rows_digest


def write_older_counts(tar: Path, path: Path, rows_digest: str) -> None:
    builder = CountsBuilder()
    for _ in range(2):
        builder.add([TurnCount(1, 1, 2)])
    write_counts(path, builder.finish(), rows_digest=rows_digest, fingerprint="0" * 16)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_index_by_older_rules_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    tar = write_tar(tmp_path / "x.tar", MASKED)
    index, counts = index_path(tar), counts_path(tar, "0" * 16)
    rows_digest = write_older_index(tar, index.path, version)
    write_older_counts(tar, counts.path, rows_digest)
    assert [len(read_index(index).row(at).images) for at in range(2)] == [2, 1]
    shards = open_shards(str(tar))
    assert [[info.format for info in shards.row(at).images] for at in range(2)] == [["jpg"]] * 2
    assert [shards.row(at).turns for at in range(2)] == [1, 0]
    assert read_header(index).version == "1.2"
    assert not counts.path.exists()
    assert [str(tar) in message and "older" in message for message in caplog.messages] == [True]
    caplog.clear()
    stamp = index.path.stat().st_mtime_ns
    assert list(open_shards(str(tar))[:1]) == [shards[0]]
    assert (caplog.messages, index.path.stat().st_mtime_ns) == ([], stamp)
    write_older_counts(tar, counts.path, read_header(index).rows_digest)
    find_index(tar)
    assert counts.path.exists()  # of the samples as they are read now


def test_an_older_index_in_the_cache_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    tar = write_tar(tmp_path / f"{'x' * 250}.tar", MASKED)  # the index's name would be too long
    index, counts = cached_index_path(tar), cached_counts_path(tar, "0" * 16)
    index.folder.path.mkdir()
    write_older_counts(tar, counts.path, write_older_index(tar, index.path))
    assert find_index(tar) == index
    assert read_header(index).version == "1.2"
    assert not counts.path.exists()


def test_an_index_of_ours_is_never_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_set(tmp_path, "x", [3, 2], ("PNG", "JPEG", "GIF"))
    files = {index_path(tmp_path / info.file).path: info.index_digest for info in manifest.shards}
    plain = [str(tmp_path / info.file) for info in manifest.shards]
    listed = open_shards(str(tmp_path / "x.json"))
    (tmp_path / "x.json").rename(tmp_path / "elsewhere")
    assert list(open_shards(plain)) == list(listed)
    assert {path: digest_of(path.read_bytes()) for path in files} == files
    assert {read_header(path).version for path in files} == {"1.0"}
    assert not caplog.messages
    for info in manifest.shards:  # and it is made with the same bytes where it is missing
        index_path(tmp_path / info.file).path.unlink()
    open_shards(plain)
    assert {path: digest_of(path.read_bytes()) for path in files} == files


def test_one_foreign_sample_makes_a_shard_foreign(tmp_path: Path) -> None:
    write_shard(tmp_path / "own-000.tar", [sample(0), sample(1)])
    with tarfile.open(tmp_path / "own-000.tar", "a") as tar:
        info = tarfile.TarInfo("z.txt")
        tar.addfile(info)
    assert index_tar(tmp_path / "own-000.tar").header.version == "1.2"
