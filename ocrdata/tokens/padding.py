"""Rows of tokenized samples as padded arrays: ids, targets, positions.

Targets are the ids shifted by one, within a sample. Positions restart at 0 with every sample of a
row: that is how a model tells packed samples apart and keeps one from attending to another. Rows
are padded on the right to the longest of them, and positions count on through the padding.
Attention is causal, so no real token sees the padding, and its targets are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.shards.arrow import Int64
from ocrdata.tokens.rendering import IGNORE, TokenizedConversation


class TokenPair(NamedTuple):
    """The ids of a sample and their targets, both [T]."""

    ids: npt.NDArray[np.signedinteger]
    targets: Int64


class PaddedRows(NamedTuple):
    """B rows of T positions, each int64 [B, T]. `targets[b, t]` is the id at t + 1 if that id is
    supervised and belongs to the same sample, else IGNORE."""

    input_ids: Int64
    targets: Int64
    position_ids: Int64


def with_targets(rendered: TokenizedConversation) -> TokenPair:
    """The ids of a sample, and for each the next one if that is supervised, else IGNORE."""
    targets = np.full(len(rendered), IGNORE, np.int64)
    # The last id predicts nothing, but stays: a row has as many positions as are counted.
    targets[:-1] = np.where(rendered.loss_mask[1:], rendered.ids[1:], IGNORE)
    return TokenPair(rendered.ids, targets)


def pad_rows(rows: Sequence[Sequence[TokenPair]], *, pad: int) -> PaddedRows:
    """One row for each group of samples, one after the other; `pad` fills up the ids."""
    longest = max(sum(len(sample.ids) for sample in row) for row in rows)
    input_ids = np.full((len(rows), longest), pad, np.int64)
    targets = np.full((len(rows), longest), IGNORE, np.int64)
    positions = np.empty((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        first = 0
        for sample in row:
            last = first + len(sample.ids)
            input_ids[number, first:last] = sample.ids
            targets[number, first:last] = sample.targets
            # The last sample's positions count on through the padding.
            positions[number, first:] = np.arange(longest - first)
            first = last
    return PaddedRows(input_ids, targets, positions)
