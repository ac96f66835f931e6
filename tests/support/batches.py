"""A batch with chosen samples, without shards."""

from __future__ import annotations

import numpy as np
import torch

from ocrdata.reading.view import SampleRef
from ocrtrain.data.batch import Batch, Row, Segment


def batch(step: int, *bad: int) -> Batch:
    """A batch of rows of one sample each; those at `bad` were skipped."""
    rows = tuple(
        Row(
            (
                Segment(
                    SampleRef("charts-000.tar", f"{at:09d}", at, "0" * 32), "charts", 0, 1, 0,
                    skipped="digest differs" if at in bad else "",
                ),
            )
        )
        for at in range(6)
    )  # fmt: skip
    nothing = torch.from_numpy(np.zeros((6, 1), np.int64))
    return Batch(step, rows, nothing, nothing, nothing, (), 64)
