"""Rows: the endless sequence of a source's rows, each of one sample or of several packed ones.

Owner of the way from the number of a row to its draws. Unpacked, row n is draw n. Packed, each
epoch is cut into windows of one size (a window of two epochs would bring a sample and its copy
together), and each window is packed by itself (`ocrdata.planning.packing`): all that is kept of
it is how many rows it gave, and it is packed again when one of them is asked for.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ocrdata.planning.jit import WORTH
from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import SampleOrder
from ocrdata.planning.packing import Packing, pack
from ocrdata.shards.arrow import Int64

WINDOWS_KEPT = 4
"""Packed windows a source keeps at hand: steps that follow one another share them."""


_NOTHING = np.empty(0, np.int64)


class Consumed(NamedTuple):
    """What is behind a number of rows: all draws of [0, whole), and single ones above, of which
    `extra` are the positions."""

    whole: int
    extra: Int64


class Rows(Protocol):
    """The rows of one source."""

    draws: SampleOrder

    def available(self) -> int:
        """How many rows one epoch gives when draws end with it."""

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """Of each row [start, stop) its draws, rising, and their positions in the view."""

    def lengths(self, start: int, stop: int) -> Int64:
        """The real ids of rows [start, stop). Shape: [stop - start]."""

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Lengths and images of rows [start, stop). Shapes: [stop - start]."""

    def samples(self, start: int, stop: int) -> Int64:
        """The samples in rows [start, stop). Shape: [stop - start]."""

    def consumed(self, rows: int) -> Consumed:
        """The draws behind the first `rows` rows."""


class PlainRows:
    """Row n is draw n. `measures` are needed for lengths alone."""

    def __init__(self, draws: SampleOrder, measures: SampleLengths | None = None) -> None:
        self.draws, self._measures = draws, measures

    def available(self) -> int:
        """Rows of one epoch."""
        return self.draws.size

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """The one draw of each row, and its position."""
        positions = self.draws.many(start, stop)
        for at in range(stop - start):
            yield np.array([start + at], np.int64), positions[at : at + 1]

    def lengths(self, start: int, stop: int) -> Int64:
        """Ids of the rows."""
        return self.sizes(start, stop)[0]

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Ids and images of the rows."""
        assert self._measures is not None
        lengths, images = [_NOTHING], [_NOTHING]
        for positions in self.draws.chunks(start, stop):
            lengths.append(self._measures.lengths[positions].astype(np.int64))
            images.append(self._measures.images[positions].astype(np.int64))
        return np.concatenate(lengths), np.concatenate(images)

    def samples(self, start: int, stop: int) -> Int64:
        """One a row."""
        return np.ones(stop - start, np.int64)

    def consumed(self, rows: int) -> Consumed:
        """As many draws as rows."""
        return Consumed(rows, _NOTHING)


class PackedRows:
    """Windows of at most `window` draws, packed into rows of `capacity` ids and `max_images`
    images. No row holds a sample twice. `finite` ends the draws with the first epoch. Safe to share
    between threads.
    """

    def __init__(
        self,
        draws: SampleOrder,
        measures: SampleLengths,
        *,
        capacity: int,
        window: int,
        max_images: int,
        finite: bool = False,
    ) -> None:
        self.draws, self._measures = draws, measures
        self._capacity, self._max_images = capacity, max_images
        self._windows_each = -(-draws.size // window)  # of an epoch
        self._finite = finite
        self._ends: list[int] = []  # rows after each window that was packed so far
        self._cache: OrderedDict[int, tuple[Packing, Int64]] = OrderedDict()
        self._lock = threading.Lock()

    def available(self) -> int:
        """Rows of one epoch by itself: its last window is what is left."""
        assert self._finite
        while len(self._ends) < self._windows_each:
            self._learn()
        return self._ends[-1]

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """The draws packed into each row, and their positions."""
        for row in range(start, stop):
            window, before = self._find(row)
            packing, positions = self._pack(window)
            found = np.flatnonzero(packing.row_of == row - before)
            yield found + self._span(window).start, positions[found]

    def lengths(self, start: int, stop: int) -> Int64:
        """Ids of the rows."""
        return self.sizes(start, stop)[0]

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Ids and images of the rows."""
        lengths, images = [_NOTHING], [_NOTHING]
        for packing, positions, part in self._windows(start, stop):
            for column, found in ((self._measures.lengths, lengths),
                                  (self._measures.images, images)):  # fmt: skip
                sums = np.bincount(packing.row_of, column[positions], packing.rows)
                found.append(sums[part].astype(np.int64))
        return np.concatenate(lengths), np.concatenate(images)

    def samples(self, start: int, stop: int) -> Int64:
        """Samples of the rows."""
        parts = [
            np.bincount(packing.row_of, minlength=packing.rows)[part].astype(np.int64)
            for packing, _, part in self._windows(start, stop)
        ]
        return np.concatenate([_NOTHING, *parts])

    def _windows(self, start: int, stop: int) -> Iterator[tuple[Packing, Int64, slice]]:
        """The windows that hold rows [start, stop), and which of their rows those are."""
        while start < stop:
            window, before = self._find(start)
            packing, positions = self._pack(window)
            end = min(stop, before + packing.rows)
            yield packing, positions, slice(start - before, end - before)
            start = end

    def consumed(self, rows: int) -> Consumed:
        """Whole windows, and the draws of the last one's first rows."""
        if not rows:
            return Consumed(0, _NOTHING)
        window, before = self._find(rows - 1)
        packing, positions = self._pack(window)
        first = self._span(window).start
        if rows == before + packing.rows:
            return Consumed(first + len(packing.row_of), _NOTHING)
        return Consumed(first, positions[packing.row_of < rows - before])

    def _span(self, window: int) -> range:
        """The draws of a window: its epoch's in parts whose sizes differ by one at most."""
        epoch, number = divmod(window, self._windows_each)
        first, size, parts = epoch * self.draws.size, self.draws.size, self._windows_each
        return range(first + size * number // parts, first + size * (number + 1) // parts)

    def _find(self, row: int) -> tuple[int, int]:
        """The window of a row, and the rows before it."""
        while not self._ends or self._ends[-1] <= row:
            self._learn()
        window = bisect.bisect_right(self._ends, row)
        return window, self._ends[window - 1] if window else 0

    def _learn(self) -> None:
        """Pack the next window that was never packed, and note its rows."""
        with self._lock:
            window = len(self._ends)
            if self._finite and window >= self._windows_each:
                raise IndexError(f"{self.draws.name} has {self._ends[-1]} rows, no more")
        packing, _ = self._pack(window)
        with self._lock:
            if len(self._ends) == window:
                self._ends.append((self._ends[-1] if window else 0) + packing.rows)

    def _pack(self, window: int) -> tuple[Packing, Int64]:
        """A window's packing, and the positions of its draws."""
        with self._lock:
            found = self._cache.get(window)
            if found is not None:
                self._cache.move_to_end(window)
                return found
        span = self._span(window)
        positions = self.draws.many(span.start, span.stop)
        packing = pack(
            self._measures.lengths[positions],
            self._measures.images[positions].astype(np.int64),
            capacity=self._capacity,
            max_images=self._max_images,
            compiled=self.draws.size >= WORTH,
        )
        with self._lock:
            self._cache[window] = packing, positions
            while len(self._cache) > WINDOWS_KEPT:
                self._cache.popitem(last=False)
        return packing, positions
