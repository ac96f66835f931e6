"""The sources of small plans, and small blocks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ocrdata.planning.blocks import Blocks, BlockSize
from ocrdata.planning.plan import PlanSource

SEQ_LEN = 60


def two(vision: int = 30, text: int = 20) -> list[PlanSource]:
    return [
        PlanSource("vision", vision, Fraction(18, 28), blocks=even_blocks(vision)),
        PlanSource("text", text, Fraction(10, 28), blocks=even_blocks(text)),
    ]


def even_blocks(size: int, block: int = 2, window: int = 6) -> Blocks:
    """The blocks of a single shard, in order windows of at least `window` samples."""
    return Blocks(BlockSize(block, window), np.array([*range(0, size, block), size], np.int32))
