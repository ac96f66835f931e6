"""Reads rows of Parquet files by their number.

The footers alone say which file and row group a row is in, and whether the columns can be used.
Row groups are the units of reading: nothing before the row group of the first row is fetched.
Columns are selected by name, because their order differs between files of one data set. Memory
holds one row and one page per column.
A row of more than LARGEST_ROW bytes raises SourceError; where the footer shows it, before anything
is decompressed. A page is not limited: pyarrow allocates what its header claims, up to 2 GiB,
three times over for a string, and a footer can lie about it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.errors import RejectedRow, SourceError, first_line
from ocrdata.sources.columns import has_hidden_memory, memory, obstacle, values
from ocrdata.sources.shapes import Shape

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


class Footer(NamedTuple):
    """What the end of a file says: its columns, and rows and uncompressed bytes by row group."""

    schema: pa.Schema
    groups: tuple[tuple[int, int], ...]


class ParquetRows:
    """The rows of Parquet files, one file after the other, numbered from 0.

    Columns named in `shapes` must fit their shape where they exist; one of `needed` must exist in
    at least one file. They may contain bytes. Other columns are read if their values are JSON
    values, see `ocrdata.sources.columns`; `left_out` names those that are not.
    """

    def __init__(
        self,
        files: Files,
        shapes: Mapping[str, Shape],
        needed: tuple[str, ...] = (),
        *,
        footers: list[Footer] | None = None,
    ) -> None:
        self.files, self.shapes, self.needed = files, shapes, needed
        self._footers = footers
        self._groups: list[RowGroup] | None = None

    def footers(self) -> list[Footer]:
        """The footer of each file; read once. Raises SourceError."""
        if self._footers is None:
            pool = ThreadPoolExecutor(FOOTER_THREADS)
            try:
                self._footers = list(pool.map(self._footer, self.files.paths))
            finally:
                # After a failure, the remaining footers are not fetched.
                pool.shutdown(cancel_futures=True)
        return self._footers

    def groups(self) -> list[RowGroup]:
        """All row groups in order. Raises SourceError, also for a column that does not fit its
        shape."""
        if self._groups is None:
            self._check_columns(self.footers())
            self._groups, start = [], 0
            for path, footer in zip(self.files.paths, self.footers(), strict=True):
                for number, (rows, size) in enumerate(footer.groups):
                    self._groups.append(RowGroup(path, number, start, rows, size))
                    start += rows
        return self._groups

    def notes(self) -> list[str]:
        """One line that names the columns that are not read, with their types and reasons."""
        found: dict[str, str] = {}
        for footer in self.footers():
            read = self._columns(footer.schema)
            for field in footer.schema:
                if field.name not in read:
                    why = obstacle(field.type) or "two columns have this name"
                    found.setdefault(field.name, f"{field.name} ({field.type}: {why})")
        listed = ", ".join(found[name] for name in sorted(found))
        return (
            [f"columns left out, as their values have no form in JSON: {listed}"] if found else []
        )

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

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any] | RejectedRow]]:
        """Numbers and values by column of rows `[start, stop)`. A column in `shapes` that the file
        of a row does not have, but another one has, is null. A row with a text that is not UTF-8 is
        rejected.

        Raises SourceError.
        """
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
    ) -> Iterator[tuple[int, dict[str, Any] | RejectedRow]]:
        with self._parquet(path) as file:
            columns = self._columns(file.schema_arrow)
            absent = dict.fromkeys(self._used() - {*columns})
            hidden = any(has_hidden_memory(file.schema_arrow.field(name).type) for name in columns)
            for group in groups:
                batches = file.iter_batches(
                    BATCH_ROWS, row_groups=[group.group], columns=columns, use_threads=False
                )
                for number, batch in enumerate(batches, group.start):
                    if number >= stop:
                        return
                    size = sum(map(memory, batch.columns)) if hidden else batch.nbytes
                    if size > LARGEST_ROW:
                        raise _too_large(group, f"row {number:,} has {size:,} bytes")
                    if number >= start:
                        row = _row(batch, columns)
                        yield number, row if isinstance(row, RejectedRow) else {**absent, **row}

    def _columns(self, schema: pa.Schema) -> list[str]:
        # Sorted, so that the result does not depend on the order of columns in the file.
        return sorted(
            field.name
            for field in schema
            if schema.names.count(field.name) == 1
            and (field.name in self.shapes or not obstacle(field.type))
        )

    def _used(self) -> set[str]:
        """The columns in `shapes` that exist in any file."""
        return {name for footer in self.footers() for name in footer.schema.names} & {*self.shapes}

    def _check_columns(self, footers: list[Footer]) -> None:
        """Raises SourceError if a needed column is missing in all files, or has a type in one that
        does not fit."""
        for path, footer in zip(self.files.paths, footers, strict=True):
            for field in footer.schema:
                shape = self.shapes.get(field.name)
                why = shape.why_not(field.type) if shape else ""
                if shape and footer.schema.names.count(field.name) > 1:
                    why = "two columns have this name"
                if why:
                    raise SourceError(
                        f"{path}: column {field.name!r} has the type {field.type}; {why}"
                    )
        names = {name: None for footer in footers for name in footer.schema.names}
        missing = [name for name in self.needed if name not in names]
        if missing and footers:
            raise SourceError(
                f"{self.files.paths[0]}: no column {missing[0]!r}, so this is not the expected "
                f"schema; it has {', '.join(names)}"
            )

    def _footer(self, path: str) -> Footer:
        with self._parquet(path) as file:
            metadata = file.metadata
            groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
            sizes = tuple((group.num_rows, group.total_byte_size) for group in groups)
            return Footer(file.schema_arrow, sizes)

    @contextmanager
    def _parquet(self, path: str) -> Iterator[Any]:
        with _explain(path), self.files.open(path) as file:
            yield pq.ParquetFile(
                file,
                buffer_size=BUFFER_BYTES,
                pre_buffer=False,
                # Spark's timestamps: in ns, 9999-12-31 would silently become a day in 1816.
                coerce_int96_timestamp_unit="us",
            )


def _row(batch: pa.RecordBatch, columns: list[str]) -> dict[str, Any] | RejectedRow:
    """The values of a batch of one row. Selecting column `a` may have read one named `a.b` too."""
    row = {}
    for name in columns:
        try:
            row[name] = values(batch.column(name))[0]
        except UnicodeDecodeError as exc:
            return RejectedRow(f"column {name!r}: a text is not UTF-8: {exc.reason}")
    return row


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


@contextmanager
def _explain(path: str) -> Iterator[None]:
    """Turns pyarrow's errors on a corrupted file into a SourceError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:  # the last: in names of columns
        raise SourceError(f"{path}: not a readable Parquet file: {first_line(exc)}") from exc
