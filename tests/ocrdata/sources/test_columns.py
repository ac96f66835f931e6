"""Values of columns of every Arrow type that Parquet can store."""

from __future__ import annotations

import io
import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.sources.columns import memory, obstacle, unreadable, values


def stored(array: pa.Array) -> pa.Array:
    """A column as it comes back from a file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"c": array}), buffer)
    (batch,) = pq.ParquetFile(buffer).iter_batches()
    return batch.column(0)


def array(items: list[Any], kind: pa.DataType) -> pa.Array:
    """None too, so that every case has one."""
    return stored(pa.array([*items, None], kind))


EAST = timezone(timedelta(hours=5))
KINDS: list[tuple[pa.DataType, Any, Any]] = [
    (pa.bool_(), True, True),
    (pa.int8(), -1, -1),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float64(), 1.5, 1.5),
    (pa.float64(), math.nan, None),
    (pa.float32(), -math.inf, None),
    (pa.float16(), np.float16(0.5), 0.5),
    (pa.string(), "a", "a"),
    (pa.large_string(), "a", "a"),
    (pa.string_view(), "a" * 40, "a" * 40),
    (pa.dictionary(pa.int32(), pa.string()), "a", "a"),
    (pa.decimal32(5, 2), Decimal("1.20"), "1.20"),
    (pa.decimal128(38, 0), Decimal(10**37), "1" + "0" * 37),
    (pa.decimal256(60, 30), Decimal("-0.5"), "-0." + "5" + "0" * 29),
    (pa.date32(), date(2026, 2, 3), "2026-02-03"),
    (pa.date64(), date(1600, 2, 3), "1600-02-03"),
    (pa.time32("s"), time(1, 2, 3), "01:02:03"),
    (pa.time64("us"), time(1, 2, 3, 450_000), "01:02:03.45"),
    (pa.timestamp("s"), datetime(2026, 2, 3), "2026-02-03T00:00:00"),
    (pa.timestamp("us"), datetime(2026, 2, 3, 4, 5, 6, 700), "2026-02-03T04:05:06.0007"),
    (pa.timestamp("ns"), 1, "1970-01-01T00:00:00.000000001"),
    (pa.timestamp("ms"), 300_000 * 31_556_952_000, "301970-01-01T00:00:00"),
    (pa.timestamp("ms", "Asia/Tashkent"), datetime(2026, 2, 3, tzinfo=EAST),
     "2026-02-02T19:00:00Z"),
    (pa.duration("ms"), timedelta(days=1, milliseconds=1), "PT86400.001S"),
    (pa.duration("ns"), -1, "PT-0.000000001S"),
    (pa.list_(pa.float64()), [1.5, math.nan, None], [1.5, None, None]),
    (pa.large_list(pa.string()), ["a", None], ["a", None]),
    (pa.list_(pa.date32(), 2), [date(2026, 2, 3), None], ["2026-02-03", None]),
    (pa.list_view(pa.int64()), [3, 4], [3, 4]),
    (pa.large_list_view(pa.string_view()), ["b"], ["b"]),
    (pa.map_(pa.string(), pa.time32("s")), [("a", time(1)), ("b", None)],
     {"a": "01:00:00", "b": None}),
    (pa.map_(pa.string(), pa.int64()), [("a", 1), ("a", 2)], {"a": 2}),
    (pa.map_(pa.int64(), pa.string()), [(1, "a")], [[1, "a"]]),
    (pa.struct([("a", pa.decimal128(3, 1)), ("b", pa.null())]), {"a": Decimal(1)},
     {"a": "1.0", "b": None}),
    (pa.uuid(), uuid.UUID(int=7).bytes, str(uuid.UUID(int=7))),
    (pa.json_(), '{"a": 1}', '{"a": 1}'),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "item", "value"), KINDS, ids=lambda part: str(part)[:40])
def test_every_type_has_json_values(kind: pa.DataType, item: Any, value: Any) -> None:
    column = array([item], kind)
    assert values(column) == [value, None]
    assert obstacle(column.type) == ""
    json.dumps(values(column), allow_nan=False)
    # The same inside a list inside a struct, where null values take no place.
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, None, 1]), pa.array([item], kind))
    nulls = pa.array([False, True, False, False])
    nested = stored(pa.StructArray.from_arrays([lists], ["x"], mask=nulls))
    assert values(nested) == [{"x": [value]}, None, {"x": []}, {"x": None}]
    assert values(nested.slice(1, 2)) == [None, {"x": []}]


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1),
             pa.dictionary(pa.int32(), pa.binary())]
)  # fmt: skip
def test_bytes_are_read_but_have_no_json_value(kind: pa.DataType) -> None:
    column = array([b"\xff"], kind)
    assert values(column) == [b"\xff", None]
    for outer in (kind, pa.list_(kind), pa.struct([("a", kind)]), pa.map_(pa.string(), kind)):
        assert obstacle(outer) == "bytes"
        assert unreadable(outer) == ""


def test_a_struct_with_two_fields_of_one_name_cannot_be_read() -> None:
    kind = pa.list_(pa.struct([("a", pa.int64()), ("a", pa.string())]))
    assert "'a'" in unreadable(kind) and "'a'" in obstacle(kind)


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1)),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_any_number_is_a_timestamp_and_a_duration(numbers: list[int], unit: str) -> None:
    """Also those outside the years of Python's own types; the smallest is NumPy's NaT."""
    for kind in (pa.timestamp(unit), pa.duration(unit)):
        texts = values(pa.array(numbers, pa.int64()).view(kind))
        for number, text in zip(numbers, texts, strict=True):
            if number == -(2**63):
                assert text is None
            elif pa.types.is_duration(kind):
                digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
                assert Decimal(text[2:-1]).scaleb(digits) == number
            else:
                assert np.datetime64(text, unit).astype(np.int64) == number


@settings(max_examples=50, deadline=None)
@given(st.datetimes())
def test_a_timestamp_is_what_python_writes(moment: datetime) -> None:
    (text,) = values(pa.array([moment.replace(tzinfo=UTC)], pa.timestamp("us", "UTC")))
    assert datetime.fromisoformat(text) == moment.replace(tzinfo=UTC)
    (text,) = values(pa.array([moment], pa.timestamp("us")))
    assert datetime.fromisoformat(text) == moment


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        (pa.dictionary(pa.int8(), pa.string()), ["abc", "abc", "d", None]),
        (pa.string_view(), ["abc", "abc", "d", None]),
        (pa.list_(pa.string_view()), [["abc"], ["abc", "d"], None]),
        (pa.struct([("x", pa.binary_view())]), [{"x": b"abcabc"}, {"x": b"d"}, None]),
        (pa.map_(pa.string_view(), pa.string_view()), [[("abc", "abc"), ("d", None)]]),
    ],
)  # fmt: skip
def test_memory_counts_repetitions(kind: pa.DataType, items: list[Any]) -> None:
    assert 7 <= memory(pa.array(items, kind)) < 60
    large = memory(pa.array(items * 1000, kind))
    assert 7_000 <= large < 60_000
