from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import DiskError, ShardError
from ocrdata.shards.arrow import rows_digest
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import FORMAT, seal
from ocrdata.tokens.counts import (
    SCHEMA,
    Counts,
    CountsBuilder,
    check_counts,
    counts_path,
    find_counts,
    read_counts,
    write_counts,
)
from ocrdata.tokens.rendering import TurnCount

INDEX, PRINT = "0123456789abcdef" * 2, "fedcba9876543210"
SAMPLES = [[TurnCount(7, 3, 1), TurnCount(5, 9)], [], [TurnCount(2**31 - 1, 0, 2)]]

numbers = st.integers(0, 2**31 - 1)
tables = st.lists(st.lists(st.builds(TurnCount, numbers, numbers, numbers), max_size=3))


def built(samples: list[list[TurnCount]]) -> Counts:
    builder = CountsBuilder()
    for turns in samples:
        builder.add(turns)
    return builder.finish()


def listed(counts: Counts) -> list[list[TurnCount]]:
    return [counts.turns(at) for at in range(len(counts))]


def written(path: Path, samples: list[list[TurnCount]] = SAMPLES) -> Path:
    write_counts(path, built(samples), rows_digest=INDEX, fingerprint=PRINT)
    return path


def read(path: Path) -> Counts:
    return read_counts(path, rows_digest=INDEX, fingerprint=PRINT)


@given(samples=tables)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[TurnCount]]
) -> None:
    path = written(tmp_path_factory.mktemp("counts") / "x.parquet", samples)
    counts = read(path)
    assert listed(counts) == samples
    assert (counts.turn_starts.dtype, counts.user.dtype) == (np.int64, np.int32)
    assert (counts.assistant.dtype, counts.images.dtype) == (np.int32, np.int32)
    head = check_counts(path, rows_digest=INDEX, fingerprint=PRINT)
    assert (head.samples, head.fingerprint) == (len(samples), PRINT)
    again = written(path.with_name("y.parquet"), samples)
    assert again.read_bytes() == path.read_bytes()


@given(samples=tables, data=st.data())
def test_taking_samples_is_taking_them_from_a_list(
    samples: list[list[TurnCount]], data: st.DataObject
) -> None:
    counts = built(samples)
    places = st.lists(st.sampled_from(range(len(samples))), max_size=9) if samples else st.just([])
    some = data.draw(places)
    assert listed(counts.take(some)) == [samples[at] for at in some]
    assert listed(counts.take(np.array(some, np.int64))) == [samples[at] for at in some]
    ends = st.none() | st.integers(-len(samples) - 1, len(samples) + 1)
    steps = st.sampled_from([None, 1, 2, 3, -1, -2])
    part = slice(data.draw(ends), data.draw(ends), data.draw(steps))
    assert listed(counts.take(range(len(samples))[part])) == samples[part]


def test_any_tool_reads_it(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path / "x.parquet"))
    assert table.column_names == ["turns"]
    assert table.to_pylist()[:2] == [
        {
            "turns": [
                {"user_tokens": 7, "assistant_tokens": 3, "images": 1},
                {"user_tokens": 5, "assistant_tokens": 9, "images": 0},
            ]
        },
        {"turns": []},
    ]
    said = json.loads(table.schema.metadata[FORMAT.encode()])
    assert (said["kind"], said["version"], said["samples"]) == ("tokens", "1.0", 3)
    assert (said["fingerprint"], said["index_rows_digest"]) == (PRINT, INDEX)
    assert said["rows_digest"] == rows_digest(table)


@pytest.mark.parametrize("name", ["x-000.tar", "x-000.tar.zst"])
def test_they_lie_beside_the_shard(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    path = counts_path(tmp_path / name, PRINT).path
    assert path == tmp_path / f"x-000.tokens-{PRINT}.parquet"
    assert find_counts(tmp_path / name, PRINT) is None
    assert find_counts(tmp_path / name, PRINT) != Location.of(written(path))
    assert find_counts(tmp_path / name, PRINT) == Location.of(path)
    assert find_counts(tmp_path / name, "another") is None


def test_every_flipped_byte_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    before, errors = path.read_bytes(), 0
    for at in range(len(before)):
        damaged = bytearray(before)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(bytes(damaged))
        try:
            assert listed(read(path)) == SAMPLES, at
        except ShardError as exc:
            assert exc.shard == str(path) and exc.remedy, at
            errors += 1
    assert errors > len(before) // 2


def test_every_cut_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    before = path.read_bytes()
    for size in range(len(before)):
        path.write_bytes(before[:size])
        with pytest.raises(ShardError, match="delete it: it is made again") as caught:
            read(path)
        assert caught.value.shard == str(path)
        with pytest.raises(ShardError, match="delete it: it is made again"):
            check_counts(path, rows_digest=INDEX, fingerprint=PRINT)


def test_counts_of_other_samples_or_another_tokenizer(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match=f"with the tokenizer {PRINT}, {'0' * 16} is in use"):
            call(path, rows_digest=INDEX, fingerprint="0" * 16)
        with pytest.raises(ShardError, match=r"the shard or its index was made again since\n.*del"):
            call(path, rows_digest="0" * 32, fingerprint=PRINT)


def rewritten(path: Path, change: dict[str, Any], table: pa.Table | None = None) -> None:
    """The file with other metadata, properly sealed, or other rows."""
    old = pq.read_table(path)
    said = {**json.loads(old.schema.metadata[FORMAT.encode()]), **change}
    new = old if table is None else table
    pq.write_table(new.replace_schema_metadata({FORMAT: json.dumps(seal(said))}), path)


def test_versions(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    rewritten(path, {"version": "1.9"})
    assert listed(read(path)) == SAMPLES
    rewritten(path, {"version": "2.0"})
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match=r"2\.0 is newer than 1\.1.*update this"):
            call(path, rows_digest=INDEX, fingerprint=PRINT)


def test_rows_that_were_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    rows = pq.read_table(path)
    rewritten(path, {}, rows.slice(0, 2))
    with pytest.raises(ShardError, match="the rows are not those its digest was made of"):
        read(path)
    negative = pa.Table.from_pylist(
        [{"turns": [{"user_tokens": -1, "assistant_tokens": 3, "images": 0}]}], schema=SCHEMA
    )
    rewritten(path, {"rows_digest": rows_digest(negative), "samples": 1}, negative)
    with pytest.raises(ShardError, match="the counts contradict themselves"):
        read(path)
    rewritten(path, {"rows_digest": rows_digest(rows), "samples": 4}, rows)
    with pytest.raises(ShardError, match="the counts contradict themselves"):
        read(path)


def test_more_rows_than_it_says_are_not_decompressed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    many = pa.concat_tables([pq.read_table(path)] * 40)
    rewritten(path, {}, many)
    most = len(many) // 40
    with pytest.raises(ShardError, match=rf"has {len(many)} rows.*\b{most}\b"):
        read(path)


def test_files_that_are_no_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match="not a file of token counts"):
        read(path)
    rewritten(written(path), {"kind": "index"})
    with pytest.raises(ShardError, match="not a file of token counts"):
        read(path)
    rewritten(written(path), {}, pa.table({"turns": [1]}))
    with pytest.raises(ShardError, match="its columns are not those of token counts"):
        read(path)
    with pytest.raises(ShardError, match=r"cannot be read: .*No such file"):
        read(tmp_path / "absent.parquet")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="not a folder"):
        written(tmp_path / "file" / "x.parquet")


def test_what_it_says_of_itself_is_under_a_digest(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[FORMAT.encode()]) | {"version": "1.9"}  # not sealed
    pq.write_table(table.replace_schema_metadata({FORMAT: json.dumps(said)}), path)
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match="checksum mismatch"):
            call(path, rows_digest=INDEX, fingerprint=PRINT)
