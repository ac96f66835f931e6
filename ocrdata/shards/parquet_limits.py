"""Limits the memory that an index or a token counts file can take, before its pages are
decompressed.

A page header states the decompressed size and the number of values; either can be ten thousand
times the page's size in the file. The sizes in the footer do not help: they can be false (9 KB took
864 MiB with a footer that said 1 byte), pyarrow has no limit on a page, and it aborts when asked
for a column of a corrupted footer. So page headers are found by a pattern in the raw bytes, at 1 us
each; every match counts (1.5 GiB of random bytes had none). Not covered: a header whose fields are
in another order or whose numbers have redundant bytes, which no writer produces but pyarrow reads;
and an index may take FREE bytes plus PER_TAR_BYTE times the size of its tar, which a compressed
shard may claim at MAX_GROWTH times its own.
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
"""Paths of the index's string columns in Parquet."""

FREE = 1 << 24
"""Bytes that every file may take, regardless of the size of its tar."""

PER_TAR_BYTE = 3
"""Further bytes of columns per byte of the tar. The tar contains the names, keys and sources
too, and a header of 512 bytes per member."""

FOOTER_BYTES = 1 << 16
"""Read from the end of a file at first; ours are a few KB."""

_VALUE = 24
"""Bytes a value takes in memory: at most 16, and its levels."""

# PageHeader of parquet.thrift in Thrift's compact protocol; 0x15 precedes an i32 that is the next
# field. Fields: type, uncompressed size, compressed size, optional checksum, then a struct for the
# type that begins with the number of values and, for DATA_PAGE, the encoding.
_NUMBER = rb"[\x80-\xff]{0,4}[\x00-\x7f]"
_HEADER = re.compile(
    rb"\x15([\x00\x04\x06])\x15(%b)\x15%b(?:\x15%b)?[\x1c\x2c\x3c\x4c\x5c]\x15(%b)\x15(.)"
    % (_NUMBER, _NUMBER, _NUMBER, _NUMBER),
    re.DOTALL,
)
_DICTIONARY = b"\x04"
_UNSHORTENED = (b"\x00", b"\x04", b"\x10")
"""Encodings of a DATA_PAGE that store every value whole, in the page or in the dictionary."""


def _number(data: bytes) -> int:
    value = 0
    for byte in reversed(data):
        value = value << 7 | byte & 127
    return value >> 1  # zigzag, without the sign


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
    """Raises ShardError if the footer states more than `rows` rows: repeated rows take next to
    nothing in the file and gigabytes in memory.

    Do not read the column metadata of an unverified footer: `RowGroupMetaData.column` of pyarrow 26
    aborts the process on some corrupted ones (37 of the 26,600 single-bit flips of one footer).
    """
    if footer.num_rows > rows:
        raise ShardError(file, f"has {footer.num_rows:,} rows, at most {rows:,} are possible")


def check_column_bytes(file: str, data: bytes, tar_size: int, strings: Sequence[str] = ()) -> None:
    """Raises ShardError if the columns would take more memory than those of a tar of `tar_size`
    bytes can. `data` is the whole Parquet file, `strings` the paths of its string columns.
    """
    limit = FREE + PER_TAR_BYTE * tar_size
    size = values = longest = 0
    shortened = False  # whether values may be stored as their difference from the one before
    for kind, content, count, encoding in _HEADER.findall(data):
        here = _number(content)
        size += here
        values += _number(count)
        if kind == _DICTIONARY:
            longest = max(longest, here)
        elif kind != b"\x00" or encoding not in _UNSHORTENED:
            longest, shortened = max(longest, here), True
    size += _VALUE * values
    # In the worst case every value is the longest one of a dictionary. The exact sum is computed
    # only if the worst case is above the limit.
    if strings and size <= limit < longest * values:
        size += longest * values if shortened else _string_bytes(data, strings)
    if size > limit:
        raise ShardError(
            file,
            f"its columns take {size:,} bytes in memory; the limit for a tar of {tar_size:,} bytes "
            f"is {limit:,}",
        )


def _string_bytes(data: bytes, strings: Sequence[str]) -> int:
    """Total bytes of all strings, repetitions included; in memory each string is held once."""
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
