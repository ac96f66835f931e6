"""What the conversion needs of a source, an adapter from one data set's format to samples.

A source numbers its rows from 0 in an order that never changes, so that any range of them can be
converted again later, alone, by another process. To add a source, write a class in this folder:

    class PairsSource:
        name = "pairs"

        def __init__(self, path: Path) -> None:
            self.lines = path.read_text().splitlines()
            self.provenance = {"format": "pairs", "lines": self.lines}  # better: a digest

        def count(self) -> int:
            return len(self.lines)

        def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
            return attempt(enumerate(self.lines[start:stop], start), self.make)

        def make(self, line: str) -> Sample:
            question, _, answer = line.partition(" | ")  # without an answer the row is rejected
            return from_turns([(question, answer)], [], source=self.name, meta={})

and an entry in `registry.REGISTRY`, which becomes `python tools/make_shards.py pairs --path FILE`:

    "pairs": SourceKind(
        "a text file of lines `question | answer`",
        (Flag("path", "the file", "FILE", required=True),),
        lambda values: "pairs",
        lambda values, recorded: PairsSource(Path(values["path"])),
    ),
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample

ROW_BYTES = 2_048
"""Bytes of a row in a tar besides its values: headers and padding of two members, JSON keys."""


class Source(Protocol):
    """The rows of one data set, pinned to a commit, a file's content or a seed.

    It is pickled and sent to worker processes, so it holds values and opens files only when read.
    """

    name: str
    """The data set's name in error messages."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the rows depend on, as JSON values: equal provenance means equal rows. A `licence`
        in it becomes the manifest's. It has no paths of this machine."""

    def count(self) -> int:
        """The number of rows. Raises SourceError."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Yields every row of `[start, stop)` in order: its number, and its sample or rejection.

        Of the rows before `start` it reads at most those of the same unit (a row group). Raises
        SourceError if the rows cannot be read.
        """


@runtime_checkable
class SizedSource(Protocol):
    """A source that can estimate the size of its shards, for the check of free disk space."""

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes of rows `[start, stop)` in shards; too many rather than too few."""


@runtime_checkable
class EditableSource(Protocol):
    """A source whose input the user may edit between two attempts to convert it, and which is read
    again at little cost: a local file or folder."""

    content: tuple[str, ...]
    """Names of the entries of `provenance` that depend on the input's content alone."""


@runtime_checkable
class FileSource(Protocol):
    """A source that reads files of this machine which its provenance knows by name and size alone.

    The conversion remembers when they were changed, to notice that between two attempts.
    """

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """Those files of rows `[start, stop)`; some may be missing. Raises SourceError."""


@runtime_checkable
class NotedSource(Protocol):
    """A source that knows before it is read that it cannot use all of its data."""

    def notes(self) -> Sequence[str]:
        """What is left out, one line each, to be told to the user. Raises SourceError."""


@runtime_checkable
class NamingSource(Protocol):
    """A source whose rows have better names than their numbers, or may not be rejected."""

    def rejected(self, row: int, reason: str) -> str:
        """What is written for a row that cannot be written as a sample. Raises OcrError if the
        conversion must not go on without it."""


@runtime_checkable
class CheckedSource(Protocol):
    """A source of samples that a conversion has checked before."""

    def is_checked(self, row: int) -> bool:
        """Whether the images of a row were found to be whole then, and are the same by their
        digests: they are not decoded again."""


@runtime_checkable
class ReportingSource(Protocol):
    """A source that has left samples out, and says which."""

    def reports(self) -> Mapping[str, Iterable[Mapping[str, Any]]]:
        """The lines of each report by its name in lower case: NAME.REPORT.jsonl is written beside
        the shards, unless it has no lines."""


SIZED_ROWS = 32
"""Rows whose images are measured to estimate the size of all."""


def few_rows(start: int, stop: int) -> range:
    """The rows that are measured to estimate all of `[start, stop)`."""
    return range(start, stop, max(1, (stop - start) // SIZED_ROWS))


def mean_bytes(results: Iterable[Sample | RejectedRow]) -> float:
    """Bytes of the images of one row, on average over the samples."""
    seen = [sum(map(len, result.images)) for result in results if isinstance(result, Sample)]
    return sum(seen) / len(seen) if seen else 0.0


def mean_image_bytes(source: Source, start: int, stop: int) -> float:
    """Bytes of the images of a row of `[start, stop)`, from a few that are read."""
    few = (source.rows(first, first + 1) for first in few_rows(start, stop))
    return mean_bytes(result for rows in few for _, result in rows)


def safe_name(text: str) -> str:
    """Any text as a name for files and shard specs.

    Every sequence of characters other than letters, digits, `_` and `-` becomes one `-`, and `-` is
    stripped from both ends: `chart2text(cauldron)` -> `chart2text-cauldron`.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "shards"


def attempt(
    rows: Iterable[tuple[int, Any]], make: Any
) -> Iterator[tuple[int, Sample | RejectedRow]]:
    """Yields every row's number and `make(row)`, or the RejectedRow that it raised or was."""
    for number, row in rows:
        try:
            yield number, row if isinstance(row, RejectedRow) else make(row)
        except RejectedRow as exc:
            yield number, exc
