"""Packing: the samples of a window of draws become rows of at most `capacity` ids.

Owner of which samples share a row. Windows are packed by themselves, longest sample first, each
into the fullest row that still holds it (best fit decreasing); a sample is never split. So a row
is a function of its window alone, and what is left empty is bounded by about one row a window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.compiled import fast

ALGORITHM = "best-fit-1"


class Packing(NamedTuple):
    """`row_of[k]` is the row of the window's k-th draw, int32; `rows` is how many there are. Rows
    are numbered by their first draws, so that their lengths come in no order."""

    row_of: npt.NDArray[np.int32]
    rows: int


def pack(
    lengths: npt.NDArray[np.int32],
    images: npt.NDArray[np.int64],
    *,
    capacity: int,
    max_images: int,
    compiled: bool = False,
) -> Packing:
    """Pack one window. A sample with more than `max_images` images has a row to itself.

    Raises ValueError where a sample is longer than `capacity`.
    """
    if len(lengths) and int(lengths.max()) > capacity:
        raise ValueError(f"a sample of {int(lengths.max())} ids does not fit a row of {capacity}")
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    loop = fast(_best_fit, work=1 << 40 if compiled else 0)
    sorted_lengths, sorted_images = lengths[order].astype(np.int64), images[order].astype(np.int64)
    if compiled:
        found = np.empty(len(order), np.int64)
        count = loop(sorted_lengths, sorted_images, capacity, max_images, found)
    else:  # lists are several times faster than arrays where nothing is compiled
        listed = [0] * len(order)
        count = loop(sorted_lengths.tolist(), sorted_images.tolist(), capacity, max_images, listed)
        found = np.array(listed, np.int64)
    row_of = np.empty(len(order), np.int64)
    row_of[order] = found
    return Packing(_by_first_draw(row_of, int(count)), int(count))


def _by_first_draw(row_of: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int32]:
    first = np.full(rows, len(row_of), np.int64)
    np.minimum.at(first, row_of, np.arange(len(row_of)))
    number = np.empty(rows, np.int32)
    number[np.argsort(first)] = np.arange(rows, dtype=np.int32)
    return number[row_of]


def _best_fit(lengths: Any, images: Any, capacity: int, max_images: int, found: Any) -> int:
    """Fill `found` with the row of each sample, longest first; the number of rows. Plain Python
    over lists, or compiled over arrays."""
    space = [0]
    space.pop()
    seats = [0]  # images a row still takes
    seats.pop()
    name = [0]  # of each row that is open
    name.pop()
    rows = 0
    shortest = lengths[len(lengths) - 1] if len(lengths) > 0 else 0
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
        if space[best] < shortest:  # full: looked at no more
            last = len(space) - 1
            space[best], seats[best], name[best] = space[last], seats[last], name[last]
            space.pop()
            seats.pop()
            name.pop()
    return rows
