"""Arrow columns of the Parquet files beside a shard: the index's schema, the digest of rows, plain
access, and the one way in which what pyarrow raises becomes an error of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import xxhash

from ocrdata.errors import DiskError, ShardError


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
    """The one array a column consists of."""
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks


def numbers(array: pa.Array) -> memoryview:
    """The integers of a column. Indexing a memoryview gives a plain int, several times faster
    than a numpy scalar."""
    return memoryview(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)).data)


def starts(array: pa.ListArray) -> memoryview:
    """Where each row's elements begin among all of them, and where the last one's end: n + 1."""
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    return memoryview((offsets - offsets[0]).data)


def fixed_bytes(array: pa.FixedSizeBinaryArray) -> bytes:
    """All values of a fixed-size binary column, one after the other."""
    if not len(array):
        return b""
    width = array.type.byte_width
    data = array.buffers()[1]
    return bytes(memoryview(data)[array.offset * width : (array.offset + len(array)) * width])


class Words(Sequence[str]):
    """A column of few different strings, each held once."""

    def __init__(self, array: pa.StringArray) -> None:
        encoded = array.dictionary_encode()
        self._words: list[str] = encoded.dictionary.to_pylist()
        self._codes = numbers(encoded.indices)

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self._words[code] for code in self._codes[at]]
        return self._words[self._codes[at]]


def rows_digest(table: pa.Table) -> str:
    """The digest of a table's rows, whatever file or library version held them.

    Columns in the order of its schema, depth first. Integers give 8 bytes each, little-endian; a
    list or a string column its lengths as such integers, then its elements or its UTF-8 bytes.
    """
    hasher = xxhash.xxh3_128()
    for name in table.schema.names:
        _feed(hasher, single(table.column(name)))
    return str(hasher.hexdigest())


def _feed(hasher: Any, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_struct(kind):
        for field in range(kind.num_fields):
            _feed(hasher, array.field(field))
    elif pa.types.is_list(kind):
        hasher.update(np.diff(starts(array)).astype("<i8"))
        _feed(hasher, array.flatten())
    elif pa.types.is_string(kind):
        lengths = np.diff(_string_offsets(array))
        hasher.update(lengths.astype("<i8"))
        hasher.update(_string_bytes(array))
    elif pa.types.is_fixed_size_binary(kind):
        hasher.update(fixed_bytes(array))
    else:
        hasher.update(np.asarray(numbers(array)).astype("<i8"))


def _string_offsets(array: pa.StringArray) -> Any:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[array.offset : array.offset + len(array) + 1]


def _string_bytes(array: pa.StringArray) -> bytes:
    offsets, data = _string_offsets(array), array.buffers()[2]
    return bytes(memoryview(data)[offsets[0] : offsets[-1]]) if data is not None else b""


@contextmanager
def explain_parquet(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Everything pyarrow raises on a damaged file becomes a ShardError that names it. `what` is
    the file in a word, as in 'the index cannot be read'."""
    try:
        yield
    except PermissionError as exc:
        raise DiskError(f"{path}: no permission to read the {what}") from exc
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as exc:
        reason = (str(exc).splitlines() or [""])[0][:200]
        raise ShardError(str(path), f"the {what} cannot be read: {reason}", remedy=remedy) from exc
