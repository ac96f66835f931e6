"""The endless sequence of a source's rows: each row one sample, or several packed together.

Unpacked, row n is draw n. Packed, each epoch is divided into packing windows of equal size, and
each window is packed on its own (`ocrdata.planning.packing`). No window crosses the end of an
epoch, so that no row holds a sample and its repetition. Only the number of rows of each window is
kept; the window is packed again when one of its rows is needed.
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
"""Packed windows cached per source: consecutive steps use the same ones."""


_NOTHING = np.empty(0, np.int64)


class Consumed(NamedTuple):
    """The draws in the first rows of a source: all of [0, whole), and some later ones, of which
    `extra` are the positions in the view."""

    whole: int
    extra: Int64


class Rows(Protocol):
    """The rows of one source."""

    order: SampleOrder

    def available(self) -> int:
        """The number of rows in a single epoch."""

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """For each row [start, stop): its draws, ascending, and their positions in the view."""

    def lengths(self, start: int, stop: int) -> Int64:
        """Token ids in rows [start, stop), without padding. Shape: [stop - start]."""

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Token ids and images in rows [start, stop). Shapes: [stop - start]."""

    def samples(self, start: int, stop: int) -> Int64:
        """Number of samples in rows [start, stop). Shape: [stop - start]."""

    def consumed(self, rows: int) -> Consumed:
        """The draws in the first `rows` rows."""


class PlainRows:
    """Row n is draw n. Only `lengths` and `sizes` need the sample lengths."""

    def __init__(self, order: SampleOrder, sample_lengths: SampleLengths | None = None) -> None:
        self.order, self._sample_lengths = order, sample_lengths

    def available(self) -> int:
        """Rows of one epoch."""
        return self.order.size

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """For each row, its only draw and that sample's position in the view."""
        positions = self.order.many(start, stop)
        for at in range(stop - start):
            yield np.array([start + at], np.int64), positions[at : at + 1]

    def lengths(self, start: int, stop: int) -> Int64:
        """Token ids in the rows."""
        return self.sizes(start, stop)[0]

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Token ids and images in the rows."""
        assert self._sample_lengths is not None
        lengths, images = [_NOTHING], [_NOTHING]
        for positions in self.order.chunks(start, stop):
            lengths.append(self._sample_lengths.lengths[positions].astype(np.int64))
            images.append(self._sample_lengths.images[positions].astype(np.int64))
        return np.concatenate(lengths), np.concatenate(images)

    def samples(self, start: int, stop: int) -> Int64:
        """One per row."""
        return np.ones(stop - start, np.int64)

    def consumed(self, rows: int) -> Consumed:
        """As many draws as rows, without gaps."""
        return Consumed(rows, _NOTHING)


class PackedRows:
    """Packing windows of at most `window` draws, packed into rows of `capacity` token ids and
    `max_images` images.

    No row holds a sample twice. If `finite`, only the first epoch is drawn; rows beyond it raise
    IndexError. Thread-safe.
    """

    def __init__(
        self,
        order: SampleOrder,
        sample_lengths: SampleLengths,
        *,
        capacity: int,
        window: int,
        max_images: int,
        finite: bool = False,
    ) -> None:
        self.order, self._sample_lengths = order, sample_lengths
        self._capacity, self._max_images = capacity, max_images
        self._windows_per_epoch = -(-order.size // window)
        self._finite = finite
        self._row_ends: list[int] = []  # rows up to the end of each window packed so far
        self._cache: OrderedDict[int, tuple[Packing, Int64]] = OrderedDict()
        self._lock = threading.Lock()

    def available(self) -> int:
        """Rows of the first epoch, all of whose windows are packed to count them."""
        assert self._finite
        while len(self._row_ends) < self._windows_per_epoch:
            self._pack_next()
        return self._row_ends[-1]

    def members(self, start: int, stop: int) -> Iterator[tuple[Int64, Int64]]:
        """For each row, the draws packed into it and their positions in the view."""
        for row in range(start, stop):
            window, before = self._find(row)
            packing, positions = self._pack(window)
            found = np.flatnonzero(packing.row_of == row - before)
            yield found + self._draws(window).start, positions[found]

    def lengths(self, start: int, stop: int) -> Int64:
        """Token ids in the rows."""
        return self.sizes(start, stop)[0]

    def sizes(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Token ids and images in the rows."""
        lengths, images = [_NOTHING], [_NOTHING]
        for packing, positions, part in self._windows(start, stop):
            for column, found in ((self._sample_lengths.lengths, lengths),
                                  (self._sample_lengths.images, images)):  # fmt: skip
                sums = np.bincount(packing.row_of, column[positions], packing.rows)
                found.append(sums[part].astype(np.int64))
        return np.concatenate(lengths), np.concatenate(images)

    def samples(self, start: int, stop: int) -> Int64:
        """Number of samples in the rows."""
        parts = [
            np.bincount(packing.row_of, minlength=packing.rows)[part].astype(np.int64)
            for packing, _, part in self._windows(start, stop)
        ]
        return np.concatenate([_NOTHING, *parts])

    def _windows(self, start: int, stop: int) -> Iterator[tuple[Packing, Int64, slice]]:
        """The windows with rows [start, stop): packing, positions, and the part of its rows."""
        while start < stop:
            window, before = self._find(start)
            packing, positions = self._pack(window)
            end = min(stop, before + packing.rows)
            yield packing, positions, slice(start - before, end - before)
            start = end

    def consumed(self, rows: int) -> Consumed:
        """All draws of the windows before the last row's, and those of its window's rows so far."""
        if not rows:
            return Consumed(0, _NOTHING)
        window, before = self._find(rows - 1)
        packing, positions = self._pack(window)
        first = self._draws(window).start
        if rows == before + packing.rows:
            return Consumed(first + len(packing.row_of), _NOTHING)
        return Consumed(first, positions[packing.row_of < rows - before])

    def _draws(self, window: int) -> range:
        """The draws of a window. The window sizes of an epoch differ by at most one."""
        epoch, number = divmod(window, self._windows_per_epoch)
        first, size, parts = epoch * self.order.size, self.order.size, self._windows_per_epoch
        return range(first + size * number // parts, first + size * (number + 1) // parts)

    def _find(self, row: int) -> tuple[int, int]:
        """The window of a row, and the number of rows before that window."""
        while not self._row_ends or self._row_ends[-1] <= row:
            self._pack_next()
        window = bisect.bisect_right(self._row_ends, row)
        return window, self._row_ends[window - 1] if window else 0

    def _pack_next(self) -> None:
        """Pack the first window not packed before, and record its number of rows."""
        with self._lock:
            window = len(self._row_ends)
            if self._finite and window >= self._windows_per_epoch:
                raise IndexError(f"{self.order.name} has only {self._row_ends[-1]} rows")
        packing, _ = self._pack(window)
        with self._lock:
            if len(self._row_ends) == window:
                self._row_ends.append((self._row_ends[-1] if window else 0) + packing.rows)

    def _pack(self, window: int) -> tuple[Packing, Int64]:
        """The packing of a window, and the positions of its draws in the view."""
        with self._lock:
            found = self._cache.get(window)
            if found is not None:
                self._cache.move_to_end(window)
                return found
        span = self._draws(window)
        positions = self.order.many(span.start, span.stop)
        packing = pack(
            self._sample_lengths.lengths[positions],
            self._sample_lengths.images[positions].astype(np.int64),
            capacity=self._capacity,
            max_images=self._max_images,
            compiled=self.order.size >= WORTH,
        )
        with self._lock:
            self._cache[window] = packing, positions
            while len(self._cache) > WINDOWS_KEPT:
                self._cache.popitem(last=False)
        return packing, positions
