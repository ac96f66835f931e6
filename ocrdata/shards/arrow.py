"""Arrow columns of the Parquet files beside a shard: the schema of an index, the digest of rows,
fast access to columns, and the conversion of pyarrow's errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ocrdata.errors import DiskError, ShardError, first_line
from ocrdata.storage.location import LocationLike
from ocrdata.storage.signatures import PARQUET, recognise

Int64 = npt.NDArray[np.int64]
"""An array of integers: offsets, sizes, positions."""


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


def _fields(**kinds: pa.DataType) -> list[pa.Field]:
    return [pa.field(name, kind, nullable=False) for name, kind in kinds.items()]


SCHEMA = pa.schema(
    _fields(
        key=pa.string(),
        offset=pa.int64(),
        size=pa.int64(),
        members=_list_of(
            pa.struct(
                _fields(
                    name=pa.string(), offset=pa.int64(), size=pa.int64(), xxh3_128=pa.binary(16)
                )
            )
        ),
        images=_list_of(
            pa.struct(_fields(format=pa.string(), width=pa.int32(), height=pa.int32()))
        ),
        turns=pa.int32(),
        source=pa.string(),
    )
)


def single(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)  # combining would copy it
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks


def numbers(array: pa.Array) -> memoryview:
    """The integers of a column, not copied. Indexing a memoryview gives an int, several times
    faster than a numpy scalar. Arrow's own conversion to numpy imports pandas if that is
    installed, which takes 0.2 s and 33 MB."""
    data = array.buffers()[1]
    code: Literal["i", "q"] = "q" if array.type.bit_width == 64 else "i"
    whole = memoryview(data if data is not None else b"").cast(code)
    return whole[array.offset : array.offset + len(array)]


def starts(array: pa.ListArray) -> memoryview:
    """Index of the first element of each row among those of all rows, then their number: n + 1."""
    offsets = numbers(array.offsets)
    return offsets if not offsets[0] else memoryview((np.asarray(offsets) - offsets[0]).data)


def elements(array: pa.ListArray) -> pa.Array:
    """The elements of all lists, one after the other. As `flatten`, which would import
    pyarrow.compute."""
    offsets = numbers(array.offsets)
    return array.values.slice(offsets[0], offsets[-1] - offsets[0])


def fixed_bytes(array: pa.FixedSizeBinaryArray) -> bytes:
    """All values of a fixed-size binary column, one after the other."""
    if not len(array):
        return b""
    width = array.type.byte_width
    data = array.buffers()[1]
    return bytes(memoryview(data)[array.offset * width : (array.offset + len(array)) * width])


def words(array: pa.StringArray) -> list[str]:
    """The strings of a column with few distinct ones; equal strings are one object."""
    known: dict[str, str] = {}
    return [known.setdefault(string, string) for string in strings(array)]


def strings(array: pa.StringArray) -> list[str]:
    """The strings of a column. As `to_pylist`, in a fifth of the time."""
    found = terminated(array)[0].decode().split("\0")[:-1]
    return found if len(found) == len(array) else array.to_pylist()  # some contain a NUL


def terminated(array: pa.StringArray) -> tuple[bytes, Int64]:
    """The strings of a column as UTF-8, each followed by a NUL; and where each begins and the last
    one ends [n + 1]."""
    offsets, data = _string_offsets(array).astype(np.int64), array.buffers()[2]
    begins = offsets - offsets[0] + np.arange(len(offsets))
    text = np.zeros(int(begins[-1]), np.uint8)
    if data is not None:
        inside = np.ones(len(text), np.bool_)
        inside[begins[1:] - 1] = False
        text[inside] = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    return text.tobytes(), begins


class Columns:
    """The columns of a table and the fields of its list columns as arrays, by name, cached."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._found: dict[str, pa.Array] = {}

    def find(self, name: str, part: str = "") -> pa.Array:
        """A column, or the field `part` of all elements of a list column, one after the other."""
        place = f"{name}.{part}"
        array = self._found.get(place)
        if array is None:
            if part:
                array = elements(self.find(name)).field(part)
            else:
                array = single(self._table.column(name))
            self._found[place] = array
        return array

    def digest(self) -> str:
        """xxh3_128 of the rows, independent of the file and of library versions.

        Columns in schema order, depth first. An integer is hashed as 8 bytes, little-endian; a list
        or string column as its lengths (integers), then its elements or UTF-8 bytes.
        """
        hasher = xxhash.xxh3_128()
        for field in self._table.schema:
            _feed(hasher, self.find(field.name))
            if pa.types.is_list(field.type):
                for part in field.type.value_type:
                    _feed(hasher, self.find(field.name, part.name))
        return str(hasher.hexdigest())


def rows_digest(table: pa.Table) -> str:
    """See `Columns.digest`."""
    return Columns(table).digest()


def _feed(hasher: Any, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_list(kind):
        hasher.update(np.diff(starts(array)).astype("<i8"))
    elif pa.types.is_string(kind):
        offsets, data = _string_offsets(array), array.buffers()[2]
        hasher.update(np.diff(offsets).astype("<i8"))
        if data is not None:
            hasher.update(memoryview(data)[offsets[0] : offsets[-1]])
    elif pa.types.is_fixed_size_binary(kind):
        hasher.update(fixed_bytes(array))
    else:
        hasher.update(np.asarray(numbers(array)).astype("<i8"))


def _string_offsets(array: pa.StringArray) -> Any:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[array.offset : array.offset + len(array) + 1]


@contextmanager
def explain_parquet(path: LocationLike, what: str, remedy: str) -> Iterator[None]:
    """Turns pyarrow's errors on a corrupted file into a ShardError that names the file. `what`
    is the kind of file for the message, such as 'index'."""
    kinds = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)
    try:
        yield
    except PermissionError as exc:
        raise DiskError(f"{path}: no permission to read the {what}") from exc
    except kinds as exc:
        if other := recognise(path, PARQUET):
            raise ShardError(str(path), f"is not {PARQUET} but {other}") from exc
        detail = f"the {what} cannot be read: {first_line(exc)}"
        raise ShardError(str(path), detail, remedy=remedy) from exc
