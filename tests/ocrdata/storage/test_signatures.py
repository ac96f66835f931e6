"""Files whose name says something else are recognised by their first bytes."""

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ocrdata.errors import ShardError
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path, read_index
from ocrdata.storage.signatures import TAR, ZSTD, recognise
from tests.support.rows import image, sample, write_set, write_tar

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 123456\n" % (b"ab" * 32)


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("x.tar", data)
    return buffer.getvalue()


def parquet(_data: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    return buffer.getvalue()


def tar_bytes(folder: Path) -> bytes:
    return write_tar(
        folder / "source", [("a.jpg", image("JPEG")), ("a.txt", b"a square")]
    ).read_bytes()


@pytest.mark.parametrize(
    ("pack", "what", "remedy"),
    [
        (gzip.compress, "gzip", "gunzip"),
        (zstandard.compress, "zstd", r"mv '.*/a b\.tar' '.*/a b\.tar'\.zst"),
        (lzma.compress, "xz", "unxz"),
        (bz2.compress, "bzip2", "bunzip2"),
        (zipped, "zip", "unzip"),
        (parquet, "Parquet", r"\.parquet"),
        (lambda _: LFS, "git-lfs pointer", r"git -C .* lfs pull"),
        (lambda _: b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "HTML", "download"),
        (lambda _: b"<html><head>", "HTML", "download"),
        (lambda _: b'<?xml version="1.0"?><Error>', "XML", "download"),
        (lambda _: b'{"error": "no such file"}', "JSON", "download"),
    ],
)
def test_another_file_named_tar(
    tmp_path: Path, pack: Callable[[bytes], bytes], what: str, remedy: str
) -> None:
    path = tmp_path / "a b.tar"
    path.write_bytes(pack(tar_bytes(tmp_path)))
    with pytest.raises(
        ShardError, match=rf"a b\.tar: is not a tar but .*{what}.*{remedy}"
    ) as caught:
        open_shards(str(path))
    assert "\n" not in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a b.tar", "source"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
def test_the_commands_work_when_typed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a b.tar"
    path.write_bytes(pack(tar_bytes(tmp_path)))
    command = recognise(path, TAR).partition("; run ")[2]
    subprocess.run(command, shell=True, check=True)
    (found,) = tmp_path.glob("a b.*")
    assert open_shards(str(found))[0].images == [image("JPEG")]


def test_a_plain_tar_named_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.zst"
    path.write_bytes(tar_bytes(tmp_path))
    with pytest.raises(ShardError, match=r"x\.tar\.zst: is not a zstd file but a tar;"):
        open_shards(str(path))
    path.write_bytes(gzip.compress(tar_bytes(tmp_path)))
    with pytest.raises(ShardError, match=r"x\.tar\.zst: is not a zstd file but a gzip file;"):
        open_shards(str(path))


def test_a_damaged_tar_is_not_taken_for_another_kind(tmp_path: Path) -> None:
    data = tar_bytes(tmp_path)
    (tmp_path / "x.tar").write_bytes(data[:1] + b"\0" + data[2:])
    with pytest.raises(ShardError, match="checksum mismatch in the header at byte 0"):
        open_shards(str(tmp_path / "x.tar"))
    # Nor is one whose first name happens to begin like another kind of file.
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("BZh91AY&SY.txt"))
        tar.addfile(tarfile.TarInfo("../b.txt"))
    with pytest.raises(ShardError, match=r"'\.\./b\.txt'"):
        open_shards(str(tmp_path / "y.tar"))


def test_a_set_whose_files_are_git_lfs_pointers(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3])
    tar, index = tmp_path / "x-000.tar", index_path(tmp_path / "x-000.tar").path
    index.write_bytes(LFS)
    with pytest.raises(ShardError, match=r"x-000\.index\.parquet: .* git-lfs pointer.*lfs pull"):
        read_index(index)
    tar.write_bytes(LFS)
    with pytest.raises(ShardError, match=r"x-000\.tar: .* git-lfs pointer.*lfs pull"):
        open_shards(str(tmp_path / "x.json"))


def test_what_is_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path / "absent", TAR) == ""
    assert recognise(tmp_path, TAR) == ""
    for data in (b"", b"PAR", bytes(512), image("PNG"), b"some text", sample(0).to_json()[1:]):
        (tmp_path / "x").write_bytes(data)
        assert recognise(tmp_path / "x", TAR) == ""
    (tmp_path / "x").write_bytes(zstandard.compress(b"x"))
    assert recognise(tmp_path / "x", ZSTD) == ""
