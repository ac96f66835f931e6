"""Sources: adapters from somebody's format to samples.

Owner of what the conversion asks of a source. A source numbers its rows from 0 in an order that
never changes, so that any stretch of them can be made again alone, on another day, by another
process. It knows nothing of shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample

ROW_BYTES = 2_048
"""Room a row takes in a tar besides its values: headers and padding of two members, JSON keys."""


class Source(Protocol):
    """Rows of one data set, fixed: pinned to a commit, a file's content or a seed.

    It is sent to worker processes, so it holds values and opens files when asked.
    """

    name: str
    """As errors show it."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the rows depend on, in plain JSON values; equal provenance means equal rows.
        A `licence` in it becomes the manifest's. Nothing about this machine."""

    def count(self) -> int:
        """All rows there are, before anything is read of them. Raises SourceError."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Every row of `[start, stop)` in order: its number, and the sample or why there is none.

        Nothing before `start` is read but for the unit (a row group) it lies in. Raises
        SourceError where the rows cannot be had.
        """


@runtime_checkable
class SizedSource(Protocol):
    """A source that knows how much room its rows take, for the check of free disk."""

    def size(self, start: int, stop: int) -> int:
        """Bytes that rows `[start, stop)` take in shards, roughly, rather too many."""


def safe_name(text: str) -> str:
    """A name for files and shard specs out of any text.

    Each run of characters other than letters, digits, `_` and `-` becomes one `-`, none at the
    ends: `chart2text(cauldron)` -> `chart2text-cauldron`.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "shards"


def attempt(
    rows: Iterable[tuple[int, Any]], make: Any
) -> Iterator[tuple[int, Sample | RejectedRow]]:
    """`make(row)` for every numbered row, where RejectedRow is a result and not the end."""
    for number, row in rows:
        try:
            yield number, make(row)
        except RejectedRow as exc:
            yield number, exc
