from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SourceError
from ocrdata.sources.parquet import ParquetRows
from tests.support.hubdata import parquet


@dataclass
class Memory:
    """Files in memory that remember where they were read."""

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
def test_any_stretch_is_that_of_the_list(
    counts: list[int], group: int, data: st.DataObject
) -> None:
    rows = ParquetRows(numbered(*counts, group=group), ("n",))
    total = sum(counts)
    assert rows.count() == total
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    assert [(at, row["n"]) for at, row in rows.rows(start, stop)] == [
        (n, n) for n in range(start, stop)
    ]


def test_nothing_before_the_first_row_group_is_read() -> None:
    table = pa.table({"n": list(range(300)), "x": ["x" * 1000 + str(n) for n in range(300)]})
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=100, compression="none", use_dictionary=False)
    files = Memory({"a": buffer.getvalue(), "b": buffer.getvalue()})
    rows = ParquetRows(files, ("n", "x"))
    rows.groups()
    files.opened.clear()
    files.lowest.clear()
    assert next(rows.rows(450, 600))[0] == 450
    assert files.opened == ["b"]
    assert files.lowest["b"] > len(buffer.getvalue()) // 4


def test_columns_without_plain_values_are_left_out_and_the_order_does_not_matter() -> None:
    columns = {
        "n": pa.array([1]),
        "when": pa.array([datetime(2026, 1, 1)]),
        "raw": pa.array([b"x"]),
        "deep": pa.array([[{"a": [1.5], "b": "t"}]]),
        "images": pa.array([[{"bytes": b"i"}]]),
    }
    there = pa.table(columns)
    back = pa.table(dict(reversed(columns.items())))
    rows = ParquetRows(Memory({"a": parquet(there, 1), "b": parquet(back, 1)}), ("images",))
    first, second = (list(row.items()) for _, row in rows.rows(0, 2))
    assert first == second
    assert [name for name, _ in first] == ["deep", "images", "n"]


def test_size_is_shared_evenly_within_a_row_group() -> None:
    rows = ParquetRows(numbered(100, group=50), ("n",))
    whole = rows.size(0, 100)
    assert 0 < rows.size(0, 25) < whole
    assert abs(rows.size(0, 30) + rows.size(30, 100) - whole) <= 1


def test_no_files_are_no_rows() -> None:
    assert ParquetRows(Memory({}), ()).count() == 0


def test_what_is_no_parquet_or_lacks_a_column() -> None:
    with pytest.raises(SourceError, match=r"^bad\.parquet: not a readable Parquet file: "):
        ParquetRows(Memory({"bad.parquet": b"not parquet"}), ()).count()
    rows = ParquetRows(numbered(3, group=3), ("texts",))
    with pytest.raises(SourceError, match=r"no column 'texts', so this is not .* it has n"):
        list(rows.rows(0, 1))
