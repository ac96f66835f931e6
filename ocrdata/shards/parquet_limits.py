"""What the pages of a Parquet file promise, added up before one of them is decompressed.

A page says in its header what it decompresses to, and how many values it holds; either may be ten
thousand times what it takes in the file. Headers are looked for in the bytes themselves, 1 us each:
the footer says where they lie, but pyarrow ends the process where the description of a column is
damaged. So whatever looks like a header counts, wherever it lies (1.5 GiB of random bytes held
none). What stays: a header that is no writer's, with its fields in another order or its numbers in
longer forms, is read by pyarrow and is not seen here; and a shard's index may take FREE and
PER_TAR_BYTE times its tar, whose size a compressed shard may claim at MAX_GROWTH times its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.errors import ShardError
from ocrdata.shards.arrow import elements, numbers
from ocrdata.storage.file import open_file
from ocrdata.storage.location import LocationLike

INDEX_STRINGS = ("key", "members.list.element.name", "images.list.element.format", "source")
"""The index's string columns, as Parquet writes their paths."""

FREE = 1 << 24
"""Bytes that any file may take, whatever the size of its tar."""

PER_TAR_BYTE = 3
"""What rows may take for each byte of their tar: names, keys and sources stand in it, and each
member has 512 bytes of header there."""

FOOTER_BYTES = 1 << 16
"""Read from the end of a file at first; ours are a few KB."""

_VALUE = 24
"""Bytes a value takes in memory: 16 at most, and its levels."""

# Thrift's compact protocol (parquet.thrift, PageHeader): 0x15 begins the next field if it is an
# i32. The fields: kind, bytes decompressed, bytes in the file, perhaps a checksum, then a structure
# by the kind, with the number of values, and the encoding where the kind is DATA_PAGE.
_NUMBER = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_HEADER = re.compile(
    rb"\x15([\x00\x04\x06])\x15(%b)\x15%b(?:\x15%b)?[\x1c\x2c\x3c\x4c\x5c]\x15(%b)\x15(.)"
    % (_NUMBER, _NUMBER, _NUMBER, _NUMBER),
    re.DOTALL,
)
_DICTIONARY = b"\x04"
_AS_THEY_ARE = (b"\x00", b"\x04", b"\x10")
"""Encodings of a DATA_PAGE whose values lie in it, or in the dictionary: none is longer."""


def _number(data: bytes) -> int:
    value = 0
    for byte in reversed(data):
        value = value << 7 | byte & 127
    return value >> 1  # zigzag; a negative number is read as a positive one


def read_footer(path: LocationLike) -> dict[bytes, bytes] | None:
    """The metadata in a Parquet file's footer; the pages before it are not read."""
    file = open_file(path)
    try:
        size = min(file.size, FOOTER_BYTES)
        tail = file.read(file.size - size, size)
        # The last 8 bytes are the length of the footer and the magic number.
        length = min(file.size, int.from_bytes(tail[-8:-4], "little") + 8)
        if length > size:
            tail = file.read(file.size - length, length)
        found: dict[bytes, bytes] | None = pq.read_metadata(pa.BufferReader(tail)).metadata
    finally:
        file.close()
    return found


def check_row_count(file: str, footer: pq.FileMetaData, rows: int) -> None:
    """Refuse a file of more than `rows` rows by its footer, before a page is decompressed: repeated
    rows take next to nothing in a file, and gigabytes out of it. Raises ShardError.

    Nothing else in a footer is asked: pyarrow ends the process, and raises nothing, where the
    description of a column is damaged.
    """
    if footer.num_rows > rows:
        raise ShardError(file, f"has {footer.num_rows:,} rows, where there can be {rows:,} at most")


def check_column_bytes(file: str, data: bytes, tar_size: int, strings: Sequence[str] = ()) -> None:
    """Refuse a Parquet file whose columns would take more than those of a tar of `tar_size` bytes.

    `strings` are the paths of its string columns. Raises ShardError.
    """
    limit = FREE + PER_TAR_BYTE * tar_size
    size = values = longest = 0
    repeats = False  # whether values are shortened by what stands before them
    for kind, content, count, encoding in _HEADER.findall(data):
        here = _number(content)
        size += here
        values += _number(count)
        if kind == _DICTIONARY:
            longest = max(longest, here)
        elif kind != b"\x00" or encoding not in _AS_THEY_ARE:
            longest, repeats = max(longest, here), True
    size += _VALUE * values
    # Every value could be the longest of a dictionary; where that were too much, they are
    # looked at.
    if strings and size <= limit < longest * values:
        size += longest * values if repeats else _spelled_out(data, strings)
    if size > limit:
        raise ShardError(
            file,
            f"its columns take {size:,} bytes, where those of a tar of {tar_size:,} take "
            f"{limit:,} at most",
        )


def _spelled_out(data: bytes, strings: Sequence[str]) -> int:
    """The bytes of all strings, each counted as often as it stands there; each held once."""
    total = 0
    with pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(strings)) as file:
        for path in strings:
            name, part = path.split(".")[0], path.split(".")[-1]
            table = file.read(columns=[path], use_threads=False)
            for chunk in table.column(name).chunks:
                words = chunk if part == name else elements(chunk).field(part)
                lengths = np.array([len(word.encode()) for word in words.dictionary.to_pylist()])
                if len(words):
                    total += int(lengths[np.asarray(numbers(words.indices))].sum())
    return total
