"""The memory that a Parquet file would take is known before its pages are decompressed."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ocrdata.errors import ShardError
from ocrdata.shards.arrow import SCHEMA
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.parquet_limits import (
    _HEADER,
    FREE,
    INDEX_STRINGS,
    _string_bytes,
    check_column_bytes,
)
from tests.support.rows import sample, write_shard

WORDS = pa.schema([pa.field("source", pa.string(), nullable=False)])


def written(words: list[str] | pa.Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    table = pa.table([words], schema=WORDS)
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def test_the_headers_of_every_page_are_found() -> None:
    words = [f"w{n % 7}" for n in range(1000)]
    for options in ({}, {"write_page_checksum": True}, {"data_page_version": "2.0"},
                    {"use_dictionary": False}, {"write_statistics": False}):  # fmt: skip
        pages = _HEADER.findall(written(words, **options))
        assert len(pages) == (1 if options == {"use_dictionary": False} else 2), options
    assert not _HEADER.findall(os.urandom(1 << 20))


def test_a_repeated_value_counts_as_often_as_it_is_repeated() -> None:
    few = written(["x" * 1000] * 1000)
    check_column_bytes("x", few, 0, ("source",))
    many = written(["x" * 100_000] * 1000)
    with pytest.raises(ShardError, match=r"^x: .*100,\d+,\d+ bytes.*16,777,216"):
        check_column_bytes("x", many, 0, ("source",))
    check_column_bytes("x", many, 30 << 20, ("source",))  # a tar of 30 MiB can hold them
    # One long value and many short ones: the worst case is above the limit, the exact sum is not.
    check_column_bytes("x", written(["x" * 100_000, *["y"] * 100_000]), 0, ("source",))


def test_one_long_value_or_many_short_ones() -> None:
    for data in (
        written(["x" * (FREE + 1)], use_dictionary=False),
        written(["x" * (FREE + 1)]),
        written(pa.array(np.zeros(1 << 20, np.int8)).cast(pa.string())),
    ):
        with pytest.raises(ShardError, match=r"tar of 0 bytes.* 16,777,216"):
            check_column_bytes("x", data, 0, ("source",))


def test_values_stored_as_differences_count_in_full() -> None:
    data = written(["x" * 100_000] * 1000, use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")
    with pytest.raises(ShardError, match=r"^x: .*\d bytes"):
        check_column_bytes("x", data, 0, ("source",))


def test_the_strings_of_an_index_are_added_up(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(n, ("PNG", "JPEG")) for n in range(70)])
    path = index_path(tmp_path / "x-000.tar").path
    total = sum(
        len(row["key"]) + len(row["source"])
        + sum(len(member["name"]) for member in row["members"])
        + sum(len(picture["format"]) for picture in row["images"])
        for row in read_index(path).table.to_pylist()
    )  # fmt: skip
    assert _string_bytes(path.read_bytes(), INDEX_STRINGS) == total
    none = tmp_path / "none.parquet"
    pq.write_table(SCHEMA.empty_table(), none)
    assert _string_bytes(none.read_bytes(), INDEX_STRINGS) == 0
