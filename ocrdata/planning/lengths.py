"""Sample lengths: how many token ids each sample of a view has, from its token counts alone.

Predicts the result of `ocrdata.tokens.rendering.render` and `truncate` without the texts, exactly
(a test renders every real chat and chart). Opens no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.shards.arrow import Int64
from ocrdata.tokens.counts import Counts
from ocrdata.tokens.rendering import SPECIALS_PER_TURN

BEFORE_ANSWER = 4
"""Special tokens before the first answer: <|bos|>, <|user_start|>, <|user_end|>,
<|assistant_start|>."""

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SampleLengths:
    """The lengths of a view's samples, in its order: 14 bytes per sample.

    Per sample, after truncation: its token ids, how many of them are predicted, its images, and the
    payload bytes to read. `truncated` are the positions of the truncated samples, ascending;
    `truncated_tokens` and `truncated_turns` are what each of them lost. `unfit` are the positions
    of samples that cannot be rendered; they are masked.
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
        """Digest of all values that decide which samples share a row."""
        hasher = xxhash.xxh3_128()
        for values in (self.lengths, self.images, self.truncated, self.truncated_tokens):
            hasher.update(np.ascontiguousarray(values).data)
        return str(hasher.hexdigest())

    @property
    def untruncated(self) -> Int64:
        """Lengths before truncation."""
        lengths = self.lengths.astype(np.int64)
        lengths[self.truncated] += self.truncated_tokens
        return lengths


def sample_lengths(
    counts: Counts, size: npt.NDArray[np.uint32], *, slots: int, seq_len: int
) -> SampleLengths:
    """The lengths of samples from their token counts; `size` are their bytes to read [samples].

    An image takes `slots` positions. Truncation is that of `ocrdata.tokens.rendering.truncate`: it
    keeps the first turns that fit as a whole. If not even the first turn fits, its answer is
    truncated; if its question leaves no room for an answer, the sample is masked and has length 1.
    """
    starts = counts.turn_starts
    turns = np.diff(starts)
    each = SPECIALS_PER_TURN + counts.user.astype(np.int64) + counts.assistant
    each += counts.images.astype(np.int64) * slots
    ends = 1 + _running_sums(each, starts, turns)  # the position after each turn, in its sample
    fits = ends <= seq_len
    kept = _sums(fits, starts)
    full = 1 + _sums(each, starts)
    lengths = np.where(full <= seq_len, full, 1)
    some = np.flatnonzero(kept > 0)
    lengths[some] = ends[starts[some] + kept[some] - 1]
    # 0 for an answer that is not trained on, whose `assistant` is -1.
    supervised = _sums(np.where(fits, counts.assistant + 1, 0), starts)
    images = _sums(np.where(fits, counts.images, 0), starts)
    truncated_turns = turns - kept

    # No turn fits: is there room for part of the first answer?
    none = np.flatnonzero((kept == 0) & (turns > 0))
    first = starts[none]
    answer = BEFORE_ANSWER + counts.user[first] + counts.images[first].astype(np.int64) * slots
    room = answer < seq_len
    partly = none[room]
    lengths[partly] = seq_len
    supervised[partly] = seq_len - answer[room]
    images[partly] = counts.images[first[room]]
    truncated_turns[partly] -= 1

    truncated = np.flatnonzero(full > lengths)
    return SampleLengths(
        lengths=lengths.astype(np.int32),
        supervised=supervised.astype(np.int32),
        images=images.astype(np.uint16),
        bytes=size,
        truncated=truncated,
        truncated_tokens=(full - lengths)[truncated].astype(np.int32),
        truncated_turns=truncated_turns[truncated].astype(np.int32),
        unfit=np.flatnonzero(turns == 0),
    )


def join(parts: list[SampleLengths]) -> SampleLengths:
    """The sample lengths of several parts of a view, concatenated."""
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
    """The sum of each sample's values, one value per turn; 0 for a sample without turns."""
    running: Int64 = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    sums: Int64 = running[starts[1:]] - running[starts[:-1]]
    return sums


def _running_sums(values: Int64, starts: Int64, turns: Int64) -> Int64:
    """Running sums that restart with each sample."""
    running: Int64 = np.cumsum(values, dtype=np.int64)
    before = np.concatenate([np.zeros(1, np.int64), running])[starts[:-1]]
    within: Int64 = running - np.repeat(before, turns)
    return within
