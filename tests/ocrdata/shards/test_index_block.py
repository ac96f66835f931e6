"""Blocks of an index: the same entries as the index, from a few bytes."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError
from ocrdata.reading.index_tar import index_tar
from ocrdata.shards import index_block
from ocrdata.shards.index import Index, index_path, name_samples, read_index
from ocrdata.shards.index_block import BLOCK_ROWS, IndexBlock, pack_blocks
from tests.support.rows import image, sample, samples, write_shard, write_tar


def blocks(index: Index) -> list[IndexBlock]:
    packed = list(pack_blocks("x.index.parquet", index))
    return [IndexBlock(data, at * index_block.BLOCK_ROWS, None) for at, data in enumerate(packed)]


def check_same(index: Index) -> None:
    """Every entry, column and derived number of the blocks is that of the index."""
    found = blocks(index)
    assert [block.first for block in found] == list(range(0, len(index), index_block.BLOCK_ROWS))
    rows = [(block, at) for block in found for at in range(len(block))]
    assert [block.row(at) for block, at in rows] == [index.row(at) for at in range(len(index))]
    assert [block.key(at) for block, at in rows] == index.keys
    assert [key for block in found for key in block.keys] == index.keys
    assert [name for block in found for name in block.names] == index.names
    assert b"".join(block.digests for block in found) == index.digests
    sizes = [int(size) for block in found for size in block.payload_sizes]
    images = [int(count) for block in found for count in block.image_counts]
    assert images == [len(index.row(at).images) for at in range(len(index))]
    assert sizes == [sum(m.size for m in index.row(at).members) for at in range(len(index))]


@given(st.lists(samples(), max_size=7), st.integers(1, 8))
@settings(max_examples=30)
def test_blocks_hold_what_the_index_holds(rows: list, size: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_block, "BLOCK_ROWS", size)
        write_shard(Path(name) / "x-000.tar", rows)
        check_same(read_index(index_path(Path(name) / "x-000.tar")))


def test_any_webdataset_fits_into_blocks(tmp_path: Path) -> None:
    """Several folders, non-ASCII and long names, members in any number, images of all kinds."""
    files = [
        (f"{folder}/é{'n' * 120 * (number % 3)}{number:04d}.{suffix}", data)
        for folder in ("a", "b/c")
        for number in range(7)
        for suffix, data in (
            ("jpg", image("JPEG", 9, 5)), ("1.PNG", image("PNG")), ("txt", "ä".encode()),
            *((f"{extra}.bin", b"") for extra in range(number)),
        )
    ]  # fmt: skip
    check_same(index_tar(write_tar(tmp_path / "x.tar", files)))


def test_names_the_same_samples_between_two_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", map(sample, range(40)))
    index = read_index(index_path(tmp_path / "x-000.tar"))
    (block,) = blocks(index)
    pick, end = random.Random(0), index.header.tar_size
    for _ in range(200):
        start, stop = sorted(pick.choices(range(0, end + 1, 256), k=2))
        assert name_samples(block.keys_between(start, stop)) == index.between(start, stop)


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", map(sample, range(BLOCK_ROWS // 64)))
    index = read_index(index_path(tmp_path / "x-000.tar"))
    keys = [f"{key}\0" if at == 1 else key for at, key in enumerate(index.keys)]
    table = index.table.set_column(0, index.table.schema.field(0), pa.array(keys))
    with pytest.raises(ShardError, match=r"x\.index\.parquet.*NUL"):
        list(pack_blocks("x.index.parquet", Index(table, index.header)))
