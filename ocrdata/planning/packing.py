"""Packing: the samples of a window of draws become rows of at most `capacity` ids.

Owner of which samples share a row. Windows are packed by themselves: each sample, in the order of
the draws, goes into the fullest row that still holds it (best fit); none is ever split. So a row is
a function of its window alone, and what is left empty is bounded by about one row a window. Longest
first would pack as well and no better, and would put samples of one length side by side (NOTES.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.planning.jit import WORTH, jit_if_large
from ocrdata.shards.arrow import Int64

ALGORITHM = "best-fit-2"


class Packing(NamedTuple):
    """`row_of[k]` is the row of the window's k-th draw, int64; `rows` is how many there are. Rows
    are numbered by their first draws."""

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
    """Pack one window. A sample with more than `max_images` images shares its row with
    texts alone.

    Raises ValueError where a sample is longer than `capacity`.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a sample of {int(lengths.max())} ids does not fit a row of {capacity}")
    if compiled and (loop := jit_if_large(_best_fit, work=WORTH)) is not _best_fit:
        row_of = np.empty(len(lengths), np.int64)
        rows = loop(lengths.astype(np.int64), images.astype(np.int64), capacity, max_images, row_of)
        return Packing(row_of, int(rows))
    # Lists are several times faster than arrays where nothing is compiled.
    listed = [0] * len(lengths)
    rows = _best_fit(lengths.tolist(), images.tolist(), capacity, max_images, listed)
    return Packing(np.array(listed, np.int64), rows)


def _best_fit(lengths: Any, images: Any, capacity: int, max_images: int, found: Any) -> int:
    """Fill `found` with the row of each sample; the number of rows. Plain Python over lists, or
    compiled over arrays."""
    # A list that is compiled has its type from what is in it, so each begins with an entry that
    # goes again.
    space = [0]
    space.pop()
    seats = [0]  # images a row still takes
    seats.pop()
    name = [0]  # of each row that is open
    name.pop()
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
        found[at] = name[best]
        space[best] -= length
        seats[best] -= pictures
        if space[best] < shortest:  # full: looked at no more; the others keep their order
            space.pop(best)
            seats.pop(best)
            name.pop(best)
    return rows
