"""Packs the samples of one packing window into rows of at most `capacity` token ids.

Each sample, in the order drawn, goes into the fullest row with room for it (best fit); no sample is
ever split. A row therefore depends on its packing window alone, and about one row per window is
wasted at most. Packing the longest samples first wastes no less, and would put samples of similar
length into the same row (NOTES.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.planning.jit import WORTH, jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "best-fit-2"


class Packing(NamedTuple):
    """`row_of[k]` is the row of the packing window's k-th draw, int64; `rows` is the number of
    rows. Rows are numbered in the order of their first draws."""

    row_of: Int64
    rows: int


def pack(
    lengths: npt.NDArray[np.int32],
    images: Int64,
    *,
    capacity: int,
    max_images: int,
    compiled: bool = False,
) -> Packing:
    """Pack one window: lengths [samples] in token ids, images [samples].

    A row has at most `max_images` images, but a single sample may have more: only samples without
    images share its row. Raises ValueError if a sample is longer than `capacity`.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        longest = int(lengths.max())
        raise ValueError(f"a sample of {longest} token ids does not fit in a row of {capacity}")
    if compiled and (loop := jit_if_large(_best_fit, work=WORTH)) is not _best_fit:
        row_of = np.empty(len(lengths), np.int64)
        rows = loop(lengths.astype(np.int64), images.astype(np.int64), capacity, max_images, row_of)
        return Packing(row_of, int(rows))
    # In plain Python, lists are several times faster than arrays.
    listed = [0] * len(lengths)
    rows = _best_fit(lengths.tolist(), images.tolist(), capacity, max_images, listed)
    return Packing(np.array(listed, np.int64), rows)


def _best_fit(lengths: Any, images: Any, capacity: int, max_images: int, row_of: Any) -> int:
    """Write the row of each sample to `row_of`; return the number of rows. Takes lists in plain
    Python, arrays if compiled."""
    # The open rows. An empty list gets its compiled type from the comprehension.
    space = [0 for _ in range(0)]  # token ids that still fit
    seats = [0 for _ in range(0)]  # images that still fit
    name = [0 for _ in range(0)]  # row number
    rows = 0
    shortest = min(lengths) if len(lengths) > 0 else 0
    for at in range(len(lengths)):
        length, pictures = lengths[at], images[at]
        best, least = -1, capacity + 1
        for row in range(len(space)):
            left = space[row]
            if length <= left < least and seats[row] >= pictures:
                best, least = row, left
                if left == length:
                    break
        if best < 0:
            best = len(space)
            space.append(capacity)
            seats.append(max_images if pictures <= max_images else pictures)
            name.append(rows)
            rows += 1
        row_of[at] = name[best]
        space[best] -= length
        seats[best] -= pictures
        if space[best] < shortest:  # full: closed; the others keep their order
            space.pop(best)
            seats.pop(best)
            name.pop(best)
    return rows
