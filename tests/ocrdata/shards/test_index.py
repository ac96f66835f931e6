import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from ocrdata.errors import ShardError
from ocrdata.images.decode import ImageInfo
from ocrdata.reading.index_tar import find_index
from ocrdata.shards.arrow import SCHEMA, rows_digest
from ocrdata.shards.index import (
    Index,
    index_path,
    read_header,
    read_index,
    read_key_range,
)
from ocrdata.storage.sealed import FORMAT, seal
from tests.support.rows import sample, write_shard, write_tar


def same(one: Index, other: Index) -> bool:
    return one.header == other.header and bool(one.table.equals(other.table))


def test_a_row_says_everything_but_the_payload(tmp_path: Path) -> None:
    path = tmp_path / "x-000.tar"
    row = sample(7, ("PNG", "JPEG"))
    write_shard(path, [sample(6), row], start=6)
    index, data = read_index(index_path(path)), path.read_bytes()
    found = index.row(1)
    assert found.key == "000000007"
    assert (found.turns, found.source) == (1, "numbers")
    assert found.images == (ImageInfo("png", 15, 6), ImageInfo("jpg", 15, 7))
    names = [member.name for member in found.members]
    assert names == ["000000007.json", "000000007.png", "000000007.1.jpg"]
    payloads = [data[m.offset : m.offset + m.size] for m in found.members]
    assert payloads == [row.to_json(), *row.images]
    assert [xxhash.xxh3_128_digest(p) for p in payloads] == [m.digest for m in found.members]
    assert found.offset == index.row(0).offset + index.row(0).size
    assert found.offset + found.size == len(data) - 1024
    assert index.header.shard_digest == xxhash.xxh3_128_hexdigest(data)


def test_any_tool_reads_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ())])
    table = pq.read_table(tmp_path / "x-000.index.parquet")
    rows = table.to_pylist()
    assert list(rows[0]) == ["key", "offset", "size", "members", "images", "turns", "source"]
    assert list(rows[0]["members"][0]) == ["name", "offset", "size", "xxh3_128"]
    assert rows[0]["images"] == [{"format": "png", "width": 8, "height": 6}]
    assert rows[1]["images"] == []
    said = json.loads(table.schema.metadata[FORMAT.encode()])
    assert said["version"] == "1.0"
    assert said["shard_size"] == (tmp_path / "x-000.tar").stat().st_size
    assert set(said) == {
        "format", "version", "shard_size", "shard_digest", "samples", "rows_digest", "digest",
    }  # fmt: skip


def test_the_header_and_the_range_of_keys(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", map(sample, range(5, 9)), start=5)
    path = tmp_path / "x-000.index.parquet"
    assert read_header(path) == read_index(path).header
    assert read_header(path).samples == 4
    assert read_key_range(path) == ("000000005", "000000008")
    write_shard(tmp_path / "none-000.tar", [])
    assert read_key_range(tmp_path / "none-000.index.parquet") is None


def test_keys_too_long_for_a_footer(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("k" * 5000 + ".txt", b"x")])
    low, high = read_key_range(find_index(tar)) or ("", "")
    assert low <= "k" * 5000 <= high


def test_every_flipped_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1, ("PNG", "GIF"))])
    path = tmp_path / "x-000.index.parquet"
    before, sound = path.read_bytes(), read_index(path)
    silent = []
    for at in range(0, len(before), 3):
        damaged = bytearray(before)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(bytes(damaged))
        try:
            if not same(read_index(path), sound):
                silent.append(at)
        except ShardError as exc:
            assert str(path) in str(exc)
    assert not silent


def test_no_bit_of_the_footer_ends_the_process(tmp_path: Path) -> None:
    """pyarrow aborts where the description of a column is damaged and its range is asked for, which
    would end pytest here. Near the name of the first column single bits do that."""
    write_shard(tmp_path / "x-000.tar", [sample(n) for n in range(4)])
    path = tmp_path / "x-000.index.parquet"
    whole = path.read_bytes()
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    keys = whole.index(b"key", begin)
    refused = 0
    for at in range(keys - 16, keys + 16):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                assert read_key_range(path) == ("000000000", "000000003")
            except ShardError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("cut", [0, 1, 4, 100, -100, -1])
def test_a_cut_index(tmp_path: Path, cut: int) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    for read in (read_index, read_header, read_key_range):
        with pytest.raises(ShardError, match="index cannot be read"):
            read(path)


def rewritten(path: Path, change: dict[str, Any], table: pa.Table | None = None) -> None:
    """The index file with other metadata, properly sealed, or other rows."""
    old = pq.read_table(path)
    said = {**json.loads(old.schema.metadata[FORMAT.encode()]), **change}
    new = old if table is None else table
    pq.write_table(new.replace_schema_metadata({FORMAT: json.dumps(seal(said))}), path)


def test_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    rewritten(path, {"version": "1.7"})
    assert read_index(path).header.version == "1.7"
    rewritten(path, {"version": "3.0"})
    with pytest.raises(ShardError, match=r"format version 3\.0 is newer than 2\.0"):
        read_index(path)
    rewritten(path, {"version": "x"})
    with pytest.raises(ShardError, match="format version 'x'"):
        read_header(path)


def test_an_index_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.index.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match="not an index"):
        read_index(path)
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = tmp_path / "x-000.index.parquet"
    rewritten(path, {}, pa.table({"a": [1]}))
    with pytest.raises(ShardError, match="columns"):
        read_index(path)


def test_rows_that_were_changed(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    rows = pq.read_table(path)
    rewritten(path, {}, rows.slice(0, 1))
    with pytest.raises(ShardError, match="checksum mismatch"):
        read_index(path)


def test_fewer_rows_than_it_says(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    rewritten(tmp_path / "x-000.index.parquet", {"samples": 3})
    with pytest.raises(ShardError, match="contradicts itself"):
        read_index(tmp_path / "x-000.index.parquet")


def test_more_than_the_tar_can_hold_is_not_decompressed(tmp_path: Path) -> None:
    """Told by the footer: the digest of the rows, which is wrong too, is never come to."""
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    rows = pq.read_table(path)
    many = pa.concat_tables([rows] * 50)
    rewritten(path, {}, many)
    with pytest.raises(ShardError, match=r"has 100 rows.*\b2\b"):
        read_index(path)
    blocks = (tmp_path / "x-000.tar").stat().st_size // 512
    rewritten(path, {"samples": 100}, many)
    with pytest.raises(ShardError, match=rf"has 100 rows.*\b{blocks}\b"):
        read_index(path)
    rewritten(path, {"samples": blocks}, many.slice(0, blocks))
    with pytest.raises(ShardError, match="checksum mismatch"):
        read_index(path)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [
        ("offset", 0, -512),
        ("offset", 1, 0),
        ("size", 1, 1 << 40),
        ("size", 0, 2**63 - 1),
        ("offset", 1, 2**63 - 1),
    ],
)
def test_rows_that_contradict_themselves(tmp_path: Path, column: str, row: int, value: int) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    values = pq.read_table(path).to_pylist()
    values[row][column] = value
    table = pa.Table.from_pylist(values, schema=SCHEMA)
    rewritten(path, {"rows_digest": rows_digest(table)}, table)
    with pytest.raises(ShardError, match="contradicts itself"):
        read_index(path)


def test_members_that_lie_elsewhere(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    good = pq.read_table(path).to_pylist()
    for change in ({"offset": 1 << 30}, {"size": 1 << 30}, {"size": -1}, None):
        values = pq.read_table(path).to_pylist()
        if change is None:
            values[0]["members"] = []
        else:
            values[0]["members"][0] |= change
        table = pa.Table.from_pylist(values, schema=SCHEMA)
        rewritten(path, {"rows_digest": rows_digest(table)}, table)
        with pytest.raises(ShardError, match="contradicts itself"):
            read_index(path)
        table = pa.Table.from_pylist(good, schema=SCHEMA)
        rewritten(path, {"rows_digest": rows_digest(table)}, table)
        read_index(path)


def test_what_begins_before_its_place(tmp_path: Path) -> None:
    """A member before its sample, or a sample before the end of the one before: all else is as it
    was written, and every number is inside the tar."""
    write_shard(tmp_path / "x-000.tar", [sample(0), sample(1)])
    path = tmp_path / "x-000.index.parquet"
    good = pq.read_table(path).to_pylist()
    earlier: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    earlier[1]["members"][0]["offset"] = good[0]["offset"] + 512
    overlapping: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    overlapping[0]["size"] += 512
    for values in (earlier, overlapping):
        table = pa.Table.from_pylist(values, schema=SCHEMA)
        rewritten(path, {"rows_digest": rows_digest(table)}, table)
        with pytest.raises(ShardError, match="contradicts itself"):
            read_index(path)


def test_numbers_that_are_no_counts(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    path = index_path(tmp_path / "x-000.tar").path
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[FORMAT.encode()])
    for change in ({"samples": 1 << 70}, {"samples": 1.0}, {"shard_size": 1 << 70}):
        document = json.dumps(seal(said | change))
        pq.write_table(table.replace_schema_metadata({FORMAT: document}), path)
        with pytest.raises(ShardError, match="out of range"):
            read_header(path)
