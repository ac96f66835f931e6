"""Rows of Parquet files, reached by number through their row groups.

Owner of the layout of a split: which file and which row group a row lies in, from the footers
alone. A row group is the unit that is read: to start at a row, nothing before its row group is
asked for. Columns are taken by name, because their order differs between files of one data set.
Memory is bounded by a row and one page per column. What stays: a page, or a row, may be as large as
it says, up to 2 GiB; no footer or header is asked what that is.
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
"""A value that is repeated is held once in a file, and once for every row in a batch: 64 images of
20 MB came out of 3 KB. A row with an image takes 33 us by itself, 12 us in a batch of 64."""

BUFFER_BYTES = 8 << 20
"""One request to a far server: large enough for its latency not to matter (50 ms at 1 Gbit/s are
6 MB), small enough to hold one per column."""

FOOTER_THREADS = 8


class Files(Protocol):
    """Where the files come from: the hub, or a folder."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Names to open, in the order of their rows."""

    def open(self, path: str) -> Any:
        """A binary file for reading anywhere in it."""


class RowGroup(NamedTuple):
    """`rows` rows from row number `start` on; `bytes` uncompressed, of all columns."""

    path: str
    group: int
    start: int
    rows: int
    bytes: int


class ParquetRows:
    """The rows of some Parquet files, one file after the other, numbered from 0.

    `needed` are columns that every file must have. Other columns are read too where their type
    has a plain JSON value (numbers, strings, lists and structs of them); the rest are left out.
    """

    def __init__(self, files: Files, needed: tuple[str, ...]) -> None:
        self.files, self.needed = files, needed
        self._groups: list[RowGroup] | None = None

    def groups(self) -> list[RowGroup]:
        """Every row group in order, read from the footers the first time. Raises SourceError."""
        if self._groups is None:
            pool = ThreadPoolExecutor(FOOTER_THREADS)
            try:
                footers = list(pool.map(self._footer, self.files.paths))
            finally:
                # After a failure the files still waiting are not asked for any more.
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
        """Uncompressed bytes of rows `[start, stop)`, taking each row group as even."""
        total = 0.0
        for group in self.groups():
            common = min(stop, group.start + group.rows) - max(start, group.start)
            if common > 0:
                total += group.bytes * common / group.rows
        return round(total)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows `[start, stop)` with their numbers, as columns by name. Raises SourceError."""
        groups = self.groups()
        first = max(0, bisect_right(groups, start, key=lambda group: group.start) - 1)
        wanted = [group for group in groups[first:] if group.start < stop]
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
        # Sorted, so that the order in which a file stores its columns changes nothing.
        return sorted(f.name for f in schema if f.name in self.needed or _is_plain(f.type))

    def _footer(self, path: str) -> list[tuple[int, int]]:
        with self._parquet(path) as file, _explain(path):
            metadata = file.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]

    def _parquet(self, path: str) -> Any:
        with _explain(path):
            return pq.ParquetFile(self.files.open(path), buffer_size=BUFFER_BYTES, pre_buffer=False)


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type are plain JSON values."""
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
    """What pyarrow says of a damaged file becomes a SourceError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(f"{path}: not a readable Parquet file: {first_line(exc)}") from exc
