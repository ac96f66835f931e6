"""What the rows of a batch hold, without its tensors: the samples, their lengths and digests.

A `BatchSummary` is what is logged about a step's batch. Ranks exchange theirs as JSON, and the
joined summary of all is that of the global batch, for any number of ranks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import xxhash

from ocrdata.reading.view import SampleRef


@dataclass(frozen=True)
class Segment:
    """One sample's place in a row: its first position and number of ids, its number of images, and
    what `truncate` cut. `skipped` is the reason it was skipped, "" if it was not; a skipped sample
    takes one masked id."""

    ref: SampleRef
    source: str
    start: int
    length: int
    images: int
    truncated_tokens: int = 0
    truncated_turns: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Row:
    """The samples of one row, in order; a single one if rows are not packed."""

    segments: tuple[Segment, ...]

    @property
    def source(self) -> str:
        """The source of its samples."""
        return self.segments[0].source

    @property
    def length(self) -> int:
        """Token ids, padding not counted."""
        return sum(segment.length for segment in self.segments)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(segment.images for segment in self.segments)


class HasRows:
    """Sums over the rows of a batch."""

    rows: tuple[Row, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All samples, row by row."""
        return tuple(segment for row in self.rows for segment in row.segments)

    @property
    def refs(self) -> tuple[SampleRef, ...]:
        """The reference of each segment's sample."""
        return tuple(segment.ref for segment in self.segments)

    @property
    def sources(self) -> tuple[str, ...]:
        """The source of each row."""
        return tuple(row.source for row in self.rows)

    @property
    def skipped(self) -> tuple[Segment, ...]:
        """The samples that were skipped."""
        return tuple(segment for segment in self.segments if segment.skipped)

    @property
    def tokens(self) -> int:
        """Real tokens: image slots count, padding does not."""
        return sum(row.length for row in self.rows)

    @property
    def image_count(self) -> int:
        """Number of images."""
        return sum(row.images for row in self.rows)

    @property
    def truncated_tokens(self) -> int:
        """Tokens cut to fit into seq_len."""
        return sum(segment.truncated_tokens for segment in self.segments)

    @property
    def truncated_turns(self) -> int:
        """Whole turns cut to fit into seq_len."""
        return sum(segment.truncated_turns for segment in self.segments)


@dataclass(frozen=True)
class BatchSummary(HasRows):
    """The rows of a step's batch, with the identity (16 bytes) and the number of supervised
    positions of each."""

    step: int
    rows: tuple[Row, ...]
    row_identities: tuple[bytes, ...]
    row_supervised: tuple[int, ...]

    @property
    def identity(self) -> str:
        """The identity of the whole batch, from its rows': 32 hex digits."""
        return identity_of(self.row_identities)

    @property
    def supervised(self) -> int:
        """Positions that carry loss."""
        return sum(self.row_supervised)

    def to_json(self) -> list[Any]:
        """The summary as JSON values."""
        rows = [[_plain(segment) for segment in row.segments] for row in self.rows]
        identities = [identity.hex() for identity in self.row_identities]
        return [self.step, rows, identities, list(self.row_supervised)]


def _plain(segment: Segment) -> list[Any]:
    ref, *others = astuple(segment)
    return [list(ref), *others]


def joined_summary(parts: Sequence[list[Any]]) -> BatchSummary:
    """The summary of a global batch, from those of its parts as JSON, in the order of the ranks.

    Raises ValueError if they are of different steps.
    """
    steps = {step for step, *_ in parts}
    if len(steps) != 1:
        raise ValueError(f"the ranks are at different steps: {sorted(steps)}")
    rows = [
        Row(tuple(Segment(SampleRef(*ref), *others) for ref, *others in row))
        for _, part, _, _ in parts
        for row in part
    ]
    return BatchSummary(
        step=steps.pop(),
        rows=tuple(rows),
        row_identities=tuple(bytes.fromhex(one) for _, _, part, _ in parts for one in part),
        row_supervised=tuple(itertools.chain(*(part for *_, part in parts))),
    )


def identity_of(rows: Sequence[bytes]) -> str:
    """The identity of a batch from the `row_identities`, in order."""
    return xxhash.xxh3_128_hexdigest(b"batch 2" + b"".join(rows))
