"""Reads rows of Parquet files by their number.

The footers alone say which file and row group a row is in. Row groups are the units of reading:
nothing before the row group of the first row is fetched. Columns are selected by name, because
their order differs between files of one data set. Memory holds one row and one page per column.
A row of more than LARGEST_ROW bytes raises SourceError; where the footer shows it, before anything
is decompressed. A page is not limited: pyarrow allocates what its header claims, up to 2 GiB,
three times over for a string, and a footer can lie about it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.errors import SourceError, first_line

BATCH_ROWS = 1
"""A repeated value is stored once in a file but once per row in a batch: 3 KB expanded to 64 images
of 20 MB. A row with an image takes 33 us in a batch of one, 12 us in a batch of 64."""

LARGEST_ROW = 512 << 20
"""Bytes of all columns: two uncompressed RGB images of the most pixels that are decoded. Compared
with the average of each row group, all columns counted, and with each row that was read. The sizes
of single columns are not used: asked for them, pyarrow 26 aborts on a corrupted footer."""

BUFFER_BYTES = 8 << 20
"""One request to a remote server: large enough to hide its latency (50 ms at 1 Gbit/s are 6 MB),
small enough to hold one per column."""

FOOTER_THREADS = 8


class Files(Protocol):
    """Opens the files: of the hub, or of a folder."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names to pass to `open`, in the order of their rows."""

    def open(self, path: str) -> Any:
        """A seekable binary file."""


class RowGroup(NamedTuple):
    """`rows` rows from row number `start` on, of `bytes` uncompressed bytes in all columns."""

    path: str
    group: int
    start: int
    rows: int
    bytes: int


class ParquetRows:
    """The rows of Parquet files, one file after the other, numbered from 0.

    Every file must have the columns `needed`. Other columns are read if their type has a plain
    JSON value (numbers, strings, lists and structs of them) and ignored otherwise.
    """

    def __init__(self, files: Files, needed: tuple[str, ...]) -> None:
        self.files, self.needed = files, needed
        self._groups: list[RowGroup] | None = None

    def groups(self) -> list[RowGroup]:
        """All row groups in order. The footers are read once. Raises SourceError."""
        if self._groups is None:
            pool = ThreadPoolExecutor(FOOTER_THREADS)
            try:
                footers = list(pool.map(self._footer, self.files.paths))
            finally:
                # After a failure, the remaining footers are not fetched.
                pool.shutdown(cancel_futures=True)
            self._groups, start = [], 0
            for path, footer in zip(self.files.paths, footers, strict=True):
                for number, (rows, size) in enumerate(footer):
                    self._groups.append(RowGroup(path, number, start, rows, size))
                    start += rows
        return self._groups

    def count(self) -> int:
        """Rows in all files."""
        groups = self.groups()
        return groups[-1].start + groups[-1].rows if groups else 0

    def size(self, start: int, stop: int) -> int:
        """Uncompressed bytes of rows `[start, stop)`, as if all rows of a row group were equal."""
        total = 0.0
        for group in self.groups():
            common = min(stop, group.start + group.rows) - max(start, group.start)
            if common > 0:
                total += group.bytes * common / group.rows
        return round(total)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbers and values by column of rows `[start, stop)`. Raises SourceError."""
        groups = self.groups()
        first = max(0, bisect_right(groups, start, key=lambda group: group.start) - 1)
        wanted = [group for group in groups[first:] if group.start < stop]
        for group in wanted:
            _check_row_size(group)
        position = 0
        while position < len(wanted):
            path = wanted[position].path
            mine = [group for group in wanted[position:] if group.path == path]
            position += len(mine)
            yield from self._file_rows(path, mine, start, stop)

    def _file_rows(
        self, path: str, groups: list[RowGroup], start: int, stop: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        with self._parquet(path) as file, _explain(path):
            columns = self._columns(path, file.schema_arrow)
            for group in groups:
                number = group.start
                for batch in file.iter_batches(
                    BATCH_ROWS, row_groups=[group.group], columns=columns, use_threads=False
                ):
                    if batch.nbytes > LARGEST_ROW * batch.num_rows:
                        raise _too_large(group, f"row {number:,} has {batch.nbytes:,} bytes")
                    skip = min(max(0, start - number), batch.num_rows)
                    take = min(batch.num_rows, stop - number) - skip
                    for row in batch.slice(skip, max(0, take)).to_pylist():
                        yield number + skip, row
                        skip += 1
                    number += batch.num_rows
                    if number >= stop:
                        return

    def _columns(self, path: str, schema: pa.Schema) -> list[str]:
        missing = [name for name in self.needed if name not in schema.names]
        if missing:
            raise SourceError(
                f"{path}: no column {missing[0]!r}, so this is not the expected schema; "
                f"it has {', '.join(schema.names)}"
            )
        # Sorted, so that the result does not depend on the order of columns in the file.
        return sorted(f.name for f in schema if f.name in self.needed or _is_plain(f.type))

    def _footer(self, path: str) -> list[tuple[int, int]]:
        with self._parquet(path) as file, _explain(path):
            metadata = file.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]

    def _parquet(self, path: str) -> Any:
        with _explain(path):
            return pq.ParquetFile(self.files.open(path), buffer_size=BUFFER_BYTES, pre_buffer=False)


def _check_row_size(group: RowGroup) -> None:
    """Refuse a row group by its footer if even its average row is too large."""
    rows = max(group.rows, 1)
    if group.bytes > LARGEST_ROW * rows:
        raise _too_large(
            group, f"{group.rows:,} rows have {group.bytes:,} bytes, {group.bytes // rows:,} each"
        )


def _too_large(group: RowGroup, what: str) -> SourceError:
    last = group.start + group.rows - 1
    return SourceError(
        f"{group.path}: row group {group.group} (rows {group.start:,} to {last:,}): {what}, above "
        f"the limit of {LARGEST_ROW:,} bytes per row; leave it out with --start and --stop"
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether the values of a type are plain JSON values."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_null(kind)
    )


@contextmanager
def _explain(path: str) -> Iterator[None]:
    """Turns pyarrow's errors on a corrupted file into a SourceError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"{path}: not a readable Parquet file: {first_line(exc)}") from exc
