"""Measures: how long each sample of a view is as a row, from token counts alone.

Owner of the arithmetic that says what `ocrdata.tokens.rendering.render` and `truncate` will give,
without a text: equal to them to the token (a test renders every real chat and chart). It opens
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.shards.arrow import Int64
from ocrdata.tokens.counts import Counts
from ocrdata.tokens.rendering import SPECIALS_PER_TURN

TOO_LONG = ("truncate", "drop", "error")
"""What becomes of a sample longer than seq_len: it is cut at a turn, left out, or refused."""

BEFORE_ANSWER = 4
"""Specials before the first answer: <|bos|>, <|user_start|>, <|user_end|>, <|assistant_start|>."""

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SampleLengths:
    """One entry a sample, 14 bytes: ids of its row after cutting, those of them that are predicted,
    images in it, payload bytes to read. What cutting takes stands apart, for the few samples it
    meets: `cut` are their positions, rising, `truncated_tokens` and `truncated_turns` theirs.
    `unfit` are the positions of samples that cannot be rendered; their rows are holes.
    """

    lengths: Int32
    supervised: Int32
    images: npt.NDArray[np.uint16]
    bytes: npt.NDArray[np.uint32]
    truncated: Int64
    truncated_tokens: Int32
    truncated_turns: Int32
    unfit: Int64

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def digest(self) -> str:
        """Of all that decides which rows samples are put in: lengths, images, and what is cut."""
        hasher = xxhash.xxh3_128()
        for values in (self.lengths, self.images, self.truncated, self.truncated_tokens):
            hasher.update(np.ascontiguousarray(values).data)
        return str(hasher.hexdigest())

    @property
    def untruncated(self) -> Int64:
        """Lengths before cutting."""
        lengths = self.lengths.astype(np.int64)
        lengths[self.truncated] += self.truncated_tokens
        return lengths


def sample_lengths(
    counts: Counts, size: npt.NDArray[np.uint32], *, slots: int, seq_len: int
) -> SampleLengths:
    """The measures of counted samples, whose images take `slots` positions each and which are
    `size` bytes to read.

    Cutting is `ocrdata.tokens.rendering.truncate`'s: whole turns from the first on; where not even
    the first fits, its answer is cut; where its question leaves no room, the row is a hole of one
    id.
    """
    starts = counts.turn_starts
    turns = np.diff(starts)
    each = SPECIALS_PER_TURN + counts.user.astype(np.int64) + counts.assistant
    each += counts.images.astype(np.int64) * slots
    ends = 1 + _within(each, starts, turns)  # the position after each turn, in its sample
    fits = ends <= seq_len
    kept = _sums(fits, starts)
    full = 1 + _sums(each, starts)
    lengths = np.where(full <= seq_len, full, 1)
    some = np.flatnonzero(kept > 0)
    lengths[some] = ends[starts[some] + kept[some] - 1]
    supervised = _sums(np.where(fits, counts.assistant + 1, 0), starts)
    images = _sums(np.where(fits, counts.images, 0), starts)
    truncated_turns = turns - kept

    # No turn fits: is there room for a part of the first answer?
    none = np.flatnonzero((kept == 0) & (turns > 0))
    first = starts[none]
    answer = BEFORE_ANSWER + counts.user[first] + counts.images[first].astype(np.int64) * slots
    room = answer < seq_len
    partly = none[room]
    lengths[partly] = seq_len
    supervised[partly] = seq_len - answer[room]
    images[partly] = counts.images[first[room]]
    truncated_turns[partly] -= 1

    cut = np.flatnonzero(full > lengths)
    return SampleLengths(
        lengths=lengths.astype(np.int32),
        supervised=supervised.astype(np.int32),
        images=images.astype(np.uint16),
        bytes=size,
        truncated=cut,
        truncated_tokens=(full - lengths)[cut].astype(np.int32),
        truncated_turns=truncated_turns[cut].astype(np.int32),
        unfit=np.flatnonzero(turns == 0),
    )


def join(parts: list[SampleLengths]) -> SampleLengths:
    """The measures of several stretches of samples, one after the other."""
    bases = np.cumsum([0, *map(len, parts)])[: len(parts)]
    return SampleLengths(
        lengths=np.concatenate([part.lengths for part in parts]),
        supervised=np.concatenate([part.supervised for part in parts]),
        images=np.concatenate([part.images for part in parts]),
        bytes=np.concatenate([part.bytes for part in parts]),
        truncated=np.concatenate(
            [part.truncated + base for part, base in zip(parts, bases, strict=True)]
        ),
        truncated_tokens=np.concatenate([part.truncated_tokens for part in parts]),
        truncated_turns=np.concatenate([part.truncated_turns for part in parts]),
        unfit=np.concatenate([part.unfit + base for part, base in zip(parts, bases, strict=True)]),
    )


def _sums(values: npt.NDArray[np.int64 | np.bool_], starts: Int64) -> Int64:
    """The sum of each sample's values; 0 where it has none."""
    running: Int64 = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    sums: Int64 = running[starts[1:]] - running[starts[:-1]]
    return sums


def _within(values: Int64, starts: Int64, turns: Int64) -> Int64:
    """Running sums that begin anew with each sample."""
    running: Int64 = np.cumsum(values, dtype=np.int64)
    before = np.concatenate([np.zeros(1, np.int64), running])[starts[:-1]]
    within: Int64 = running - np.repeat(before, turns)
    return within
