"""A batch with skipped samples, without shards."""

from __future__ import annotations

import numpy as np
import torch

from ocrdata.reading.view import SampleRef
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Row, Segment

SKIPPED_BECAUSE = "checksum mismatch"


def batch(step: int, *skipped: int) -> Batch:
    """A batch of rows of one sample each; those at `skipped` were skipped."""
    rows = tuple(
        Row(
            (
                Segment(
                    SampleRef("charts-000.tar", f"{at:09d}", at, "0" * 32), "charts", 0, 1, 0,
                    skipped=SKIPPED_BECAUSE if at in skipped else "",
                ),
            )
        )
        for at in range(6)
    )  # fmt: skip
    empty = torch.from_numpy(np.zeros((6, 1), np.int64))
    return Batch(step, rows, empty, empty, empty, (), ())
