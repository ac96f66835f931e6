"""Shards as their manifest or index describes them, and indexes that do not match."""

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ocrdata.errors import DigestError, ShardError, TransportError, TruncatedError
from ocrdata.reading.shard_entry import ShardEntry, entries, identity
from ocrdata.reading.spec import resolve
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path
from ocrdata.storage.location import Location
from tests.support.rows import sample, write_set, write_shard


def test_entries_are_the_same_with_and_without_a_manifest(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 0, 2])
    listed = list(entries(resolve(str(tmp_path))))
    (tmp_path / "x.json").unlink()
    assert list(entries(resolve(str(tmp_path)))) == listed
    assert [entry.samples for entry in listed] == [3, 0, 2]


def test_the_identity_is_that_of_tar_and_index_wherever_they_are() -> None:
    entry = ShardEntry(Location("a/x.tar"), 3, 1024, "12" * 16, "34" * 16)
    assert identity(replace(entry, location=Location("b/y.tar"))) == identity(entry)
    others = {"samples": 4, "bytes": 1025, "digest": "12" * 15, "rows_digest": "35" * 16}
    assert others.keys() | {"location"} == {field.name for field in fields(ShardEntry)}
    for name, value in others.items():
        assert identity(replace(entry, **{name: value})) != identity(entry), name


def test_files_that_do_not_match_their_index(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [3, 3])
    tar, size = tmp_path / "x-000.tar", manifest.shards[0].bytes
    shards = open_shards(str(tmp_path))
    os.truncate(tar, size - 512)
    with pytest.raises(TransportError, match=f" {size - 512:,} bytes.* {size:,} "):
        shards[0]
    with pytest.raises(TruncatedError, match=f" {size - 512:,} bytes.* {size:,} .*manifest"):
        open_shards(str(tmp_path))
    (tmp_path / "x.json").unlink()
    with pytest.raises(TruncatedError, match=r"index x-000\.index\.parquet"):
        open_shards(str(tmp_path))
    os.truncate(tar, size + 512)
    with pytest.raises(ShardError, match=r"\n.*delete x-000\.index\.parquet"):
        open_shards(str(tmp_path))


def test_index_of_another_shard(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 3])
    shards = open_shards(str(tmp_path / "x.json"))
    one, other = (index_path(tmp_path / f"x-00{number}.tar").path for number in range(2))
    one.write_bytes(other.read_bytes())
    with pytest.raises(ShardError, match=r"x-000\.tar: .*x-000\.index\.parquet .*manifest"):
        shards[0]
    (tmp_path / "x.json").unlink()
    plain = open_shards(str(tmp_path))  # the sizes are equal: only the payloads differ
    with pytest.raises(DigestError, match=r"\n.*delete x-000\.index\.parquet"):
        plain[0]
    write_shard(tmp_path / "x-000.tar", map(sample, range(3)))
    plain = open_shards(str(tmp_path))
    write_shard(tmp_path / "x-000.tar", map(sample, range(3, 6)))
    with pytest.raises(ShardError, match=r"x-000\.tar: .*x-000\.index\.parquet ") as caught:
        plain[0]
    assert "manifest" not in str(caught.value)


def test_deleted_index_is_recreated(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3])
    shards = open_shards(str(tmp_path))
    before = index_path(tmp_path / "x-000.tar").path.read_bytes()
    index_path(tmp_path / "x-000.tar").path.unlink()
    assert shards[1] == sample(1)
    assert index_path(tmp_path / "x-000.tar").path.read_bytes() == before
