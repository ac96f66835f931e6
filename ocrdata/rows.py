"""Rows: the endless sequence of a source's rows, each of one sample or of several packed ones.

Owner of the way from the number of a row to its draws. Unpacked, row n is draw n. Packed, draws
are cut into windows, and each window is packed by itself (`ocrdata.packing`): all that is kept of
it is how many rows it gave, and it is packed again when one of them is asked for.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ocrdata.compiled import WORTH
from ocrdata.draws import CHUNK, Draws
from ocrdata.measures import Measures
from ocrdata.packing import Packing, pack

Int64 = npt.NDArray[np.int64]

WINDOWS_KEPT = 4
"""Packed windows a source keeps at hand: steps that follow one another share them."""


class Consumed(NamedTuple):
    """The draws behind a number of rows: all of [0, whole), and `extra` single ones above."""

    whole: int
    extra: Int64


class Rows(Protocol):
    """The rows of one source."""

    draws: Draws

    def available(self) -> int:
        """How many rows one epoch gives when draws end with it."""

    def draws_of(self, row: int) -> Int64:
        """The numbers of the draws in a row, rising."""

    def lengths(self, start: int, stop: int) -> Int64:
        """The real ids of rows [start, stop). Shape: [stop - start]."""

    def images(self, start: int, stop: int) -> Int64:
        """The images of rows [start, stop). Shape: [stop - start]."""

    def samples(self, start: int, stop: int) -> Int64:
        """The samples in rows [start, stop). Shape: [stop - start]."""

    def consumed(self, rows: int) -> Consumed:
        """The draws behind the first `rows` rows."""


class PlainRows:
    """Row n is draw n. `measures` are needed for lengths alone."""

    def __init__(self, draws: Draws, measures: Measures | None = None) -> None:
        self.draws, self._measures = draws, measures

    def available(self) -> int:
        """Rows of one epoch."""
        return self.draws.size

    def draws_of(self, row: int) -> Int64:
        """The one draw of a row."""
        return np.array([row], np.int64)

    def lengths(self, start: int, stop: int) -> Int64:
        """Ids of the rows."""
        assert self._measures is not None
        return self._gather(self._measures.lengths, start, stop)

    def images(self, start: int, stop: int) -> Int64:
        """Images of the rows."""
        assert self._measures is not None
        return self._gather(self._measures.images, start, stop)

    def samples(self, start: int, stop: int) -> Int64:
        """One a row."""
        return np.ones(stop - start, np.int64)

    def _gather(self, column: npt.NDArray[np.int32 | np.uint16], start: int, stop: int) -> Int64:
        parts = [column[positions] for positions in self.draws.chunks(start, stop)]
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    def consumed(self, rows: int) -> Consumed:
        """As many draws as rows."""
        return Consumed(rows, np.empty(0, np.int64))


class PackedRows:
    """Windows of `window` draws, packed into rows of `capacity` ids and `max_images` images.

    `finite` ends the draws with the first epoch. Safe to share between threads.
    """

    def __init__(
        self, draws: Draws, measures: Measures, *, capacity: int, window: int, max_images: int,
        finite: bool = False,
    ) -> None:  # fmt: skip
        self.draws, self._measures = draws, measures
        self._capacity, self._window, self._max_images = capacity, window, max_images
        self._finite = finite
        self._ends: list[int] = []  # rows after each window that was packed so far
        self._cache: OrderedDict[int, tuple[Packing, Int64]] = OrderedDict()
        self._lock = threading.Lock()

    def available(self) -> int:
        """Rows of one epoch by itself: its last window is what is left."""
        assert self._finite
        while len(self._ends) * self._window < self.draws.size:
            self._learn()
        return self._ends[-1]

    def draws_of(self, row: int) -> Int64:
        """The draws packed into a row."""
        window, before = self._find(row)
        found = np.flatnonzero(self._pack(window)[0].row_of == row - before)
        return found + window * self._window

    def lengths(self, start: int, stop: int) -> Int64:
        """Ids of the rows."""
        return self._sums("lengths", start, stop)

    def images(self, start: int, stop: int) -> Int64:
        """Images of the rows."""
        return self._sums("images", start, stop)

    def samples(self, start: int, stop: int) -> Int64:
        """Samples of the rows."""
        return self._sums("", start, stop)

    def _sums(self, column: str, start: int, stop: int) -> Int64:
        """A column of the measures, summed by row; how many samples where none is named."""
        parts, at = [np.empty(0, np.int64)], start
        while at < stop:
            window, before = self._find(at)
            packing, positions = self._pack(window)
            values = getattr(self._measures, column)[positions] if column else None
            sums = np.bincount(packing.row_of, weights=values, minlength=packing.rows)
            end = min(stop, before + packing.rows)
            parts.append(sums[at - before : end - before].astype(np.int64))
            at = end
        return np.concatenate(parts)

    def consumed(self, rows: int) -> Consumed:
        """Whole windows, and the draws of the last one's first rows."""
        if not rows:
            return Consumed(0, np.empty(0, np.int64))
        window, before = self._find(rows - 1)
        packing, _ = self._pack(window)
        first = window * self._window
        if rows == before + packing.rows:
            return Consumed(first + len(packing.row_of), np.empty(0, np.int64))
        return Consumed(first, np.flatnonzero(packing.row_of < rows - before) + first)

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
            if self._finite and window * self._window >= self.draws.size:
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
        start = window * self._window
        stop = start + self._window
        if self._finite:
            stop = min(stop, self.draws.size)
        positions = self.draws.many(start, stop)
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


def chunks(start: int, stop: int, multiple: int) -> Iterator[tuple[int, int]]:
    """[start, stop) in pieces of about `CHUNK` rows, each but the last a multiple of `multiple`."""
    size = max(1, CHUNK // multiple) * multiple
    for at in range(start, stop, size):
        yield at, min(stop, at + size)
