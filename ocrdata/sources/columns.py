"""Columns of Parquet files of any type: their values as JSON values.

Dictionaries ("categorical") are their values, extension types their storage; views, large and
fixed-size types are like the plain ones. NaN and infinities, which JSON does not have, are null.
Decimals are text with all their digits. Dates, times and timestamps are ISO 8601 text without zeros
at the end of a fraction; a timestamp with a time zone is in UTC, with a Z. Durations are ISO 8601
text in seconds, `PT1.5S`. UUIDs are text. A map is an object if its keys are texts (of a repeated
key the last counts, as the Parquet format says), else a list of [key, value]. Binary values are
bytes, which no JSON value is: a column that contains them can only be images, see
`ocrdata.sources.shapes`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

Reader = Callable[[pa.Array], list[Any]]


def values(array: pa.Array) -> list[Any]:
    """The values of a column whose type is not `unreadable`.

    Raises UnicodeDecodeError if a text is not UTF-8.
    """
    return _reader(array.type)(array)


def memory(array: pa.Array) -> int:
    """Bytes of the values of a column, every repetition of a value counted. (pyarrow's `nbytes`
    counts the values of a dictionary once, and those of a view not at all.)"""
    kind = array.type
    if types.is_dictionary(kind):
        counts = array.indices.drop_null().value_counts().to_pylist()
        return sum(
            memory(array.dictionary.slice(count["values"], 1)) * count["counts"] for count in counts
        )
    if is_view(kind):
        return sum(value.as_buffer().size for value in array if value.is_valid)
    parts = _parts(array)
    return sum(map(memory, parts)) if parts else int(array.nbytes)


def has_hidden_memory(kind: pa.DataType) -> bool:
    """Whether `nbytes` is not the size of the values of a type, so that `memory` has to be used."""
    return any(types.is_dictionary(inner) or is_view(inner) for inner in types_in(kind))


def has_bytes(kind: pa.DataType) -> bool:
    """Whether values are, or contain, bytes."""
    return any(map(is_bytes, types_in(kind)))


def obstacle(kind: pa.DataType) -> str:
    """Why the values of a type are not all JSON values; "" if they are."""
    return "bytes" if has_bytes(kind) else unreadable(kind)


def unreadable(kind: pa.DataType) -> str:
    """Why `values` cannot read a type of a Parquet file; "" if it can."""
    for inner in types_in(kind):
        if types.is_struct(inner):
            names = [field.name for field in inner]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                return f"two fields named {twice!r}"
    return ""


def bare(kind: pa.DataType) -> pa.DataType:
    """A type without dictionaries and extensions around it."""
    if is_extension(kind):
        return bare(kind.storage_type)
    return bare(kind.value_type) if types.is_dictionary(kind) else kind


def types_in(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A type, and all types inside it."""
    yield kind
    if is_extension(kind) and not is_uuid(kind):
        yield from types_in(kind.storage_type)
    elif types.is_dictionary(kind):
        yield from types_in(kind.value_type)
    elif types.is_map(kind):
        yield from types_in(kind.key_type)
        yield from types_in(kind.item_type)
    elif is_list(kind):
        yield from types_in(kind.value_type)
    elif types.is_struct(kind):
        for field in kind:
            yield from types_in(field.type)


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists, however they are stored."""
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, however they are stored."""
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes, however they are stored."""
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def is_view(kind: pa.DataType) -> bool:
    """Whether values are stored apart from the column."""
    return bool(types.is_string_view(kind) or types.is_binary_view(kind))


def is_extension(kind: pa.DataType) -> bool:
    """Whether a type is a named one, stored as another."""
    return isinstance(kind, pa.BaseExtensionType)


def is_uuid(kind: pa.DataType) -> bool:
    """Whether values are UUIDs."""
    return isinstance(kind, pa.UuidType)


def _parts(array: pa.Array) -> list[pa.Array]:
    """The columns that the values of a nested type are made of."""
    kind = array.type
    if is_extension(kind):
        return [array.storage]
    if is_list(kind):
        return [array.flatten()]
    if types.is_map(kind):
        return [array.keys, array.items]
    return list(array.flatten()) if types.is_struct(kind) else []


@cache
def _reader(kind: pa.DataType) -> Reader:
    """What reads columns of a type, by the rules of this module."""
    return next(read for is_kind, read in _READERS if is_kind(kind))


def _is_plain(kind: pa.DataType) -> bool:
    """Whether pyarrow's own conversion follows the rules: it takes half the time."""
    return not unreadable(kind) and all(
        types.is_list(inner)
        or types.is_struct(inner)
        or types.is_integer(inner)
        or types.is_boolean(inner)
        or types.is_null(inner)
        or is_text(inner)
        or is_bytes(inner)
        for inner in types_in(kind)
    )


def _uuids(array: pa.Array) -> list[Any]:
    stored = array.storage.to_pylist()
    return [None if value is None else str(uuid.UUID(bytes=value)) for value in stored]


def _dictionary(array: pa.Array) -> list[Any]:
    """Reads only the values that occur: a dictionary is of a whole row group."""
    used = array.indices.unique().drop_null()
    found = dict(zip(used.to_pylist(), values(array.dictionary.take(used)), strict=True))
    return [found.get(number) for number in array.indices.to_pylist()]


def _lists(array: pa.Array) -> list[Any]:
    items = iter(values(array.flatten()))
    lengths = pc.list_value_length(array).to_pylist()
    return [None if n is None else [next(items) for _ in range(n)] for n in lengths]


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    rows = zip(*map(values, array.flatten()), strict=True)
    present = array.is_valid().to_pylist()
    return [
        dict(zip(names, row, strict=True)) if is_there else None
        for row, is_there in zip(rows, present, strict=True)
    ]


def _maps(array: pa.Array) -> list[Any]:
    keys, items = values(array.keys), values(array.items)
    pairs = [
        list(zip(keys[start:stop], items[start:stop], strict=True))
        for start, stop in pairwise(array.offsets.to_pylist())
    ]
    make = dict if is_text(bare(array.type.key_type)) else _list_of_lists
    present = array.is_valid().to_pylist()
    return [make(row) if is_there else None for row, is_there in zip(pairs, present, strict=True)]


def _list_of_lists(pairs: list[tuple[Any, Any]]) -> list[list[Any]]:
    return [list(pair) for pair in pairs]


def _floats(array: pa.Array) -> list[float | None]:
    return [None if x is None or not math.isfinite(x) else x for x in array.to_pylist()]


def _decimals(array: pa.Array) -> list[str | None]:
    return [None if x is None else format(x, "f") for x in array.to_pylist()]


_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_NOT_A_TIME = -(1 << 63)
"""NumPy's NaT."""


def _times(array: pa.Array) -> list[str | None]:
    """NumPy writes the texts: Python's own types end at microseconds and with the year 9999."""
    kind = array.type
    if types.is_date(kind):
        array, unit = array.cast(pa.date32()), "D"
    else:
        unit = kind.unit
    numbers = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).to_pylist()
    return [
        None if number in (None, _NOT_A_TIME) else _time(number, kind, unit) for number in numbers
    ]


def _time(number: int, kind: pa.DataType, unit: str) -> str:
    if types.is_duration(kind):
        return f"PT{_short(format(Decimal(number).scaleb(-_DIGITS[unit]), 'f'))}S"
    text = _short(str(np.int64(number).astype(f"datetime64[{unit}]")))
    if types.is_time(kind):
        return text.partition("T")[2]
    return text + "Z" if types.is_timestamp(kind) and kind.tz else text


def _short(text: str) -> str:
    """Without zeros at the end of a fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _storage(array: pa.Array) -> list[Any]:
    return values(array.storage)


_READERS: tuple[tuple[Callable[[pa.DataType], bool], Reader], ...] = (
    (_is_plain, pa.Array.to_pylist),
    (is_uuid, _uuids),
    (is_extension, _storage),
    (types.is_dictionary, _dictionary),
    (is_list, _lists),
    (types.is_map, _maps),
    (types.is_struct, _structs),
    (types.is_floating, _floats),
    (types.is_decimal, _decimals),
    (types.is_temporal, _times),
    (is_view, pa.Array.to_pylist),
    (types.is_primitive, pa.Array.to_pylist),
)
"""The first that fits reads a type. Parquet has no other types."""
