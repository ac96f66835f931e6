from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import RejectedRow, SourceError
from ocrdata.images.decode import MAX_PIXELS
from ocrdata.sources import parquet as module
from ocrdata.sources.parquet import ParquetRows
from ocrdata.sources.shapes import ANYTHING, IMAGES
from tests.support.hubdata import parquet


@dataclass
class Memory:
    """Files in memory, with a record of which were opened and of the lowest offset read."""

    files: Mapping[str, bytes]
    opened: list[str] = field(default_factory=list)
    lowest: dict[str, int] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.files)

    def open(self, path: str) -> Any:
        self.opened.append(path)
        memory, data = self, self.files[path]

        class Watched(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                at = self.tell()
                if at < len(data) * 3 // 4:  # the footer does not count
                    memory.lowest[path] = min(memory.lowest.get(path, at), at)
                return super().read(size)

        return Watched(data)


def numbered(*counts: int, group: int) -> Memory:
    files, start = {}, 0
    for number, count in enumerate(counts):
        table = pa.table({"n": list(range(start, start + count))})
        files[f"{number}.parquet"] = parquet(table, group)
        start += count
    return Memory(files)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    group=st.integers(1, 150),
    data=st.data(),
)
def test_any_range_of_rows_equals_the_slice_of_a_list(
    counts: list[int], group: int, data: st.DataObject
) -> None:
    rows = ParquetRows(numbered(*counts, group=group), {"n": ANYTHING}, ("n",))
    total = sum(counts)
    assert rows.count() == total
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    assert [(at, row["n"]) for at, row in rows.rows(start, stop)] == [
        (n, n) for n in range(start, stop)
    ]


def test_nothing_before_the_first_row_group_is_read() -> None:
    table = pa.table({"n": list(range(300)), "x": ["x" * 1000 + str(n) for n in range(300)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=100, compression="none", use_dictionary=False)
    files = Memory({"a": buffer.getvalue(), "b": buffer.getvalue()})
    rows = ParquetRows(files, {"n": ANYTHING, "x": ANYTHING})
    rows.groups()
    files.opened.clear()
    files.lowest.clear()
    assert next(rows.rows(450, 600))[0] == 450
    assert files.opened == ["b"]
    assert files.lowest["b"] > len(buffer.getvalue()) // 4


def test_column_order_does_not_matter_and_columns_that_are_left_out_are_named_once() -> None:
    columns = {
        "n": pa.array([1]),
        "when": pa.array([datetime(2026, 1, 1)]),
        "raw": pa.array([b"x"]),
        "deep": pa.array([[{"a": [1.5], "b": "t"}]]),
        "images": pa.array([[{"bytes": b"i"}]]),
        "pair": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    }
    there = pa.table(columns)
    back = pa.table(dict(reversed(columns.items())))
    rows = ParquetRows(Memory({"a": parquet(there, 1), "b": parquet(back, 1)}), {"images": IMAGES})
    first, second = (list(row.items()) for _, row in rows.rows(0, 2))
    assert first == second
    assert [name for name, _ in first] == ["deep", "images", "n", "when"]
    (note,) = rows.notes()
    assert note.endswith(
        "pair (struct<a: int64, a: int64>: two fields named 'a'), raw (binary: bytes)"
    )
    assert ParquetRows(numbered(3, group=3), {}).notes() == []


def test_columns_that_are_missing_or_of_another_type_in_some_files() -> None:
    files = Memory(
        {
            "a": parquet(pa.table({"n": [1], "images": pa.nulls(1), "x": [1]}), 1),
            "b": parquet(pa.table({"n": ["2"], "images": [b"i"], "x": [b"1"]}), 1),
            "c": parquet(pa.table({"n": pa.array([3.5])}), 1),
        }
    )
    rows = ParquetRows(files, {"images": IMAGES, "other": IMAGES}, ("images",))
    assert [row for _, row in rows.rows(0, 3)] == [
        {"n": 1, "images": None, "x": 1},
        {"n": "2", "images": b"i"},
        {"n": 3.5, "images": None},
    ]
    assert rows.notes() == [rows.notes()[0]] and rows.notes()[0].endswith(" x (binary: bytes)")


def test_a_column_that_cannot_be_what_it_is_needed_as_is_named_with_its_type() -> None:
    good, bad = pa.table({"images": [b"i"]}), pa.table({"images": [7]})
    files = Memory({"a": parquet(good, 1), "b": parquet(bad, 1)})
    with pytest.raises(SourceError, match=r"^b: column 'images' .*int64"):
        ParquetRows(files, {"images": IMAGES}).count()
    twice = pa.Table.from_arrays([pa.array([b"i"]), pa.array([b"j"])], ["images", "images"])
    with pytest.raises(SourceError, match=r"^a: column 'images' .*two columns"):
        ParquetRows(Memory({"a": parquet(twice, 1)}), {"images": IMAGES}).count()
    (note,) = ParquetRows(Memory({"a": parquet(twice, 1)}), {}).notes()
    assert "images (binary" in note


def test_a_column_whose_name_has_a_dot_is_not_a_part_of_another() -> None:
    table = pa.table({"a": [{"b": 1}], "a.b": [2], "a.c": [b"x"]})
    rows = ParquetRows(Memory({"x": parquet(table, 1)}), {})
    assert list(rows.rows(0, 1)) == [(0, {"a": {"b": 1}, "a.b": 2})]


def test_a_timestamp_in_96_bits_may_be_of_any_year() -> None:
    buffer = io.BytesIO()
    table = pa.table({"t": pa.array([datetime(9999, 12, 31)], pa.timestamp("us"))})
    pq.write_table(table, buffer, use_deprecated_int96_timestamps=True, store_schema=False)
    rows = ParquetRows(Memory({"x": buffer.getvalue()}), {})
    assert list(rows.rows(0, 1)) == [(0, {"t": "9999-12-31T00:00:00"})]


def test_a_row_with_a_text_that_is_not_utf_8_is_rejected_alone() -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"too"]).view(pa.string())
    rows = ParquetRows(Memory({"x": parquet(pa.table({"t": texts}), 3)}), {})
    first, second, third = (row for _, row in rows.rows(0, 3))
    assert (first, third) == ({"t": "good"}, {"t": "too"})
    assert isinstance(second, RejectedRow) and "'t'" in str(second)


def test_the_size_of_a_range_is_its_fraction_of_the_row_group() -> None:
    rows = ParquetRows(numbered(100, group=50), {"n": ANYTHING}, ("n",))
    whole = rows.size(0, 100)
    assert 0 < rows.size(0, 25) < whole
    assert abs(rows.size(0, 30) + rows.size(30, 100) - whole) <= 1


def test_a_source_without_files_has_no_rows() -> None:
    assert ParquetRows(Memory({}), {}).count() == 0


def test_a_file_that_is_not_parquet_or_lacks_a_column() -> None:
    with pytest.raises(SourceError, match=r"^bad\.parquet: .*Parquet"):
        ParquetRows(Memory({"bad.parquet": b"not parquet"}), {}).count()
    named = parquet(pa.table({"zzzz": [1]}), 1).replace(b"zzzz", b"\xff\xffzz")
    with pytest.raises(SourceError, match=r"^bad\.parquet: .*utf-8"):
        ParquetRows(Memory({"bad.parquet": named}), {}).notes()
    rows = ParquetRows(numbered(3, group=3), {}, ("texts",))
    with pytest.raises(SourceError, match=r"^0\.parquet: .*'texts'.* n$"):
        list(rows.rows(0, 1))


def in_one_group(*sizes: int) -> Memory:
    """One row group of strings of these lengths."""
    return Memory({"x.parquet": parquet(pa.table({"n": ["x" * size for size in sizes]}), 1 << 20)})


LARGEST = 1 << 24


def test_a_row_group_of_large_rows_is_refused_by_its_footer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its page of 100 MB, a few KB in the file, is not even opened."""
    monkeypatch.setattr(module, "LARGEST_ROW", LARGEST)
    files = in_one_group(100_000_000)
    rows = ParquetRows(files, {"n": ANYTHING}, ("n",))
    assert rows.count() == 1  # the footer is readable; other row groups of the set can be converted
    match = r"x\.parquet: row group 0 \(rows 0 to 0\): .* 100,\d+,\d+ .* 16,777,216 "
    files.opened.clear()
    with pytest.raises(SourceError, match=match):
        list(rows.rows(0, 1))
    assert not files.opened


def test_a_large_row_among_small_ones_is_refused_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LARGEST_ROW", LARGEST)
    rows = ParquetRows(in_one_group(1, 2, LARGEST + 1, 3), {"n": ANYTHING}, ("n",)).rows(0, 4)
    assert [len(next(rows)[1]["n"]) for _ in range(2)] == [1, 2]
    with pytest.raises(SourceError, match=r"x\.parquet: row group 0 .*: row 2 has 16,777,2\d\d "):
        next(rows)


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_a_repeated_value_counts_each_time(
    monkeypatch: pytest.MonkeyPatch, kind: pa.DataType
) -> None:
    """pyarrow holds it once, a row of ours would hold it a thousand times."""
    monkeypatch.setattr(module, "LARGEST_ROW", LARGEST)
    word = "x" * (LARGEST // 1000 + 1)
    table = pa.table({"n": pa.array([["a"], [word] * 1000], pa.list_(kind))})
    rows = ParquetRows(Memory({"x": parquet(table, 2)}), {}).rows(0, 2)
    assert next(rows) == (0, {"n": ["a"]})
    with pytest.raises(SourceError, match="row 1 has 16,7"):
        next(rows)


def test_a_large_row_group_of_small_rows_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on a row: row groups of images have hundreds of MB."""
    monkeypatch.setattr(module, "LARGEST_ROW", LARGEST)
    sizes = [1 << 20] * 40 + [LARGEST - 100]
    table = pa.table({"n": [os.urandom(size // 2).hex() for size in sizes]})
    files = Memory({"x.parquet": parquet(table, 1 << 20)})
    rows = ParquetRows(files, {"n": ANYTHING}, ("n",))
    assert rows.groups()[0].bytes > 3 * LARGEST
    assert [len(row["n"]) for _, row in rows.rows(0, 41)] == sizes


def test_an_image_of_the_most_pixels_is_below_the_limit() -> None:
    assert 2 * 3 * MAX_PIXELS <= module.LARGEST_ROW
