"""Random sample lengths, for the tests of planning."""

from __future__ import annotations

import numpy as np

from ocrdata.planning.lengths import SampleLengths


def made_up(size: int, *, longest: int, seed: int = 0, truncated: float = 0.0) -> SampleLengths:
    """The lengths of `size` samples of 1 to `longest` token ids, some with images. A fraction of
    them, `truncated`, was longer before truncation."""
    random = np.random.default_rng([size, seed])
    lengths = random.integers(1, longest + 1, size).astype(np.int32)
    positions = np.flatnonzero(random.random(size) < truncated)
    return SampleLengths(
        lengths=lengths,
        supervised=(random.random(size) * lengths).astype(np.int32),
        images=random.integers(0, 3, size).astype(np.uint16),
        bytes=random.integers(1, 1 << 20, size).astype(np.uint32),
        truncated=positions,
        truncated_tokens=random.integers(1, 100, len(positions)).astype(np.int32),
        truncated_turns=random.integers(0, 4, len(positions)).astype(np.int32),
        unfit=np.empty(0, np.int64),
    )
