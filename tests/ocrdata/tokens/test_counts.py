"""Token counts files: read back exactly, or an error that names the file and the remedy."""

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

INDEX, FINGERPRINT = "0123456789abcdef" * 2, "fedcba9876543210"
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
    write_counts(path, built(samples), rows_digest=INDEX, fingerprint=FINGERPRINT)
    return path


def read(path: Path) -> Counts:
    return read_counts(path, rows_digest=INDEX, fingerprint=FINGERPRINT)


@given(samples=tables)
def test_written_counts_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[TurnCount]]
) -> None:
    path = written(tmp_path_factory.mktemp("counts") / "x.parquet", samples)
    counts = read(path)
    assert listed(counts) == samples
    assert (counts.turn_starts.dtype, counts.user.dtype) == (np.int64, np.int32)
    assert (counts.assistant.dtype, counts.images.dtype) == (np.int32, np.int32)
    head = check_counts(path, rows_digest=INDEX, fingerprint=FINGERPRINT)
    assert (head.samples, head.fingerprint) == (len(samples), FINGERPRINT)
    again = written(path.with_name("y.parquet"), samples)
    assert again.read_bytes() == path.read_bytes()


@given(samples=tables, data=st.data())
def test_take_selects_like_a_list(samples: list[list[TurnCount]], data: st.DataObject) -> None:
    counts = built(samples)
    places = st.lists(st.sampled_from(range(len(samples))), max_size=9) if samples else st.just([])
    some = data.draw(places)
    assert listed(counts.take(some)) == [samples[at] for at in some]
    assert listed(counts.take(np.array(some, np.int64))) == [samples[at] for at in some]
    ends = st.none() | st.integers(-len(samples) - 1, len(samples) + 1)
    steps = st.sampled_from([None, 1, 2, 3, -1, -2])
    part = slice(data.draw(ends), data.draw(ends), data.draw(steps))
    assert listed(counts.take(range(len(samples))[part])) == samples[part]


def test_file_is_readable_with_pyarrow(tmp_path: Path) -> None:
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
    assert (said["fingerprint"], said["index_rows_digest"]) == (FINGERPRINT, INDEX)
    assert said["rows_digest"] == rows_digest(table)


@pytest.mark.parametrize("name", ["x-000.tar", "x-000.tar.zst"])
def test_counts_file_is_beside_the_shard(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    path = counts_path(tmp_path / name, FINGERPRINT).path
    assert path == tmp_path / f"x-000.tokens-{FINGERPRINT}.parquet"
    assert find_counts(tmp_path / name, FINGERPRINT) is None
    assert find_counts(tmp_path / name, FINGERPRINT) != Location.of(written(path))
    assert find_counts(tmp_path / name, FINGERPRINT) == Location.of(path)
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


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    before = path.read_bytes()
    for size in range(len(before)):
        path.write_bytes(before[:size])
        with pytest.raises(ShardError, match=r"\n  delete it") as caught:
            read(path)
        assert caught.value.shard == str(path)
        with pytest.raises(ShardError, match=r"\n  delete it"):
            check_counts(path, rows_digest=INDEX, fingerprint=FINGERPRINT)


def test_counts_of_other_samples_or_another_tokenizer(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match=f"tokenizer {FINGERPRINT}.* {'0' * 16} "):
            call(path, rows_digest=INDEX, fingerprint="0" * 16)
        with pytest.raises(ShardError, match=r"other samples.*\n  delete it"):
            call(path, rows_digest="0" * 32, fingerprint=FINGERPRINT)


def rewritten(path: Path, change: dict[str, Any], table: pa.Table | None = None) -> None:
    """Change the metadata of a file, with a valid seal, or its rows."""
    old = pq.read_table(path)
    said = {**json.loads(old.schema.metadata[FORMAT.encode()]), **change}
    new = old if table is None else table
    pq.write_table(new.replace_schema_metadata({FORMAT: json.dumps(seal(said))}), path)


def test_damaged_samples_are_named_only_where_there_are_some(tmp_path: Path) -> None:
    builder = CountsBuilder()
    builder.add(SAMPLES[0])
    builder.add_damaged()
    builder.add(SAMPLES[2])
    path = tmp_path / "x.parquet"
    write_counts(path, builder.finish(), rows_digest=INDEX, fingerprint=FINGERPRINT)
    assert read(path).damaged == (1,) and listed(read(path)) == SAMPLES
    header = check_counts(path, rows_digest=INDEX, fingerprint=FINGERPRINT)
    assert (header.version, header.damaged) == ("1.1", (1,))
    assert read(path).take([1, 1]).damaged == ()
    rewritten(path, {"damaged": [1, 2]})
    with pytest.raises(ShardError, match=r"x\.parquet: .*damaged"):
        read(path)
    for odd in ([3], [-1], [True], ["1"], 1, None, {}):
        rewritten(path, {"damaged": odd})
        with pytest.raises(ShardError, match=r"x\.parquet: .*\n  delete it"):
            read(path)
    written(path)
    assert read(path).damaged == ()
    metadata = pq.read_schema(path).metadata[FORMAT.encode()]
    assert b"damaged" not in metadata and b'"version": "1.0"' in metadata


def test_newer_minor_versions_are_read_and_major_ones_rejected(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    rewritten(path, {"version": "1.9"})
    assert listed(read(path)) == SAMPLES
    rewritten(path, {"version": "2.0"})
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match=r"x\.parquet: .*\b2\.0\b.*\b1\.0\b"):
            call(path, rows_digest=INDEX, fingerprint=FINGERPRINT)


def test_modified_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    rows = pq.read_table(path)
    rewritten(path, {}, rows.slice(0, 2))
    with pytest.raises(ShardError, match=r"x\.parquet: .*checksum.*rows"):
        read(path)
    negative = pa.Table.from_pylist(
        [{"turns": [{"user_tokens": -1, "assistant_tokens": 3, "images": 0}]}], schema=SCHEMA
    )
    rewritten(path, {"rows_digest": rows_digest(negative), "samples": 1}, negative)
    with pytest.raises(ShardError, match=r"x\.parquet: the counts"):
        read(path)
    rewritten(path, {"rows_digest": rows_digest(rows), "samples": 4}, rows)
    with pytest.raises(ShardError, match=r"x\.parquet: the counts"):
        read(path)


def test_more_rows_than_declared_are_not_decompressed(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    many = pa.concat_tables([pq.read_table(path)] * 40)
    rewritten(path, {}, many)
    most = len(many) // 40
    with pytest.raises(ShardError, match=rf"has {len(many)} rows.*\b{most}\b"):
        read(path)


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ShardError, match=r"x\.parquet: .*not a token counts file"):
        read(path)
    rewritten(written(path), {"kind": "index"})
    with pytest.raises(ShardError, match=r"x\.parquet: .*not a token counts file"):
        read(path)
    rewritten(written(path), {}, pa.table({"turns": [1]}))
    with pytest.raises(ShardError, match=r"x\.parquet: .*columns"):
        read(path)
    with pytest.raises(ShardError, match=r"absent\.parquet: .*No such file"):
        read(tmp_path / "absent.parquet")


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"file/x\.parquet: .*not a folder"):
        written(tmp_path / "file" / "x.parquet")


def test_metadata_is_covered_by_a_digest(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet")
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[FORMAT.encode()]) | {"version": "1.9"}  # not sealed
    pq.write_table(table.replace_schema_metadata({FORMAT: json.dumps(said)}), path)
    for call in (read_counts, check_counts):
        with pytest.raises(ShardError, match=r"x\.parquet: .*checksum"):
            call(path, rows_digest=INDEX, fingerprint=FINGERPRINT)
