"""Rows of a CSV file with a header, reached by number.

One pass counts the rows, another hashes the file. A range is reached by reading from the start, for
which large tables are better written as JSON Lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from ocrdata.errors import RejectedRow, ShardError, SourceError
from ocrdata.storage.file import digest_of_file, open_file
from ocrdata.storage.files import open_regular


class CsvFile:
    """One file in UTF-8. Raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explain(path):
            file = open_file(path)
            self.size, self.digest = file.size, digest_of_file(file)
        self.count = sum(1 for _ in self._walk())

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, str]]]:
        """Number and cells of rows `[start, stop)`, by the names in the header."""
        return islice(enumerate(self._walk()), start, stop)

    def _walk(self) -> Iterator[dict[str, Any]]:
        with (
            _explain(self.path),
            io.TextIOWrapper(
                open(open_regular(self.path), "rb"), encoding="utf-8-sig", newline=""
            ) as file,
        ):
            table = csv.DictReader(file, strict=True)
            names = table.fieldnames or ()
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise SourceError(f"{self.path}: two columns are named {twice!r}; rename one")
            yield from table


def record_of(cells: dict[str, str]) -> dict[str, Any]:
    """The record in a row: its cells but for empty ones. Raises RejectedRow if it has more cells
    than the header."""
    if None in cells:
        raise RejectedRow("more cells than the header of the table")
    return {name: cell for name, cell in cells.items() if cell}


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as exc:
        raise SourceError(
            f"{path}: not a CSV table in UTF-8: {exc}; metadata.jsonl may hold any text"
        ) from exc
    except (OSError, ShardError) as exc:
        raise SourceError(f"{path}: cannot be read: {exc}") from exc
