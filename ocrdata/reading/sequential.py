"""Neighbours read in one go: the fastest way through a shard set, in order.

Owner of the windows that runs of samples are read into, and of the loop that cuts members out of
them and verifies each before it is handed out. What a run cannot give (a sample larger than a
window, a file that is damaged) is left to `ShardSet.members`, which knows how to say it.
"""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, Protocol, TypeVar

from xxhash import xxh3_128_digest

from ocrdata.errors import ShardError
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.shards.frames import MAX_FRAME
from ocrdata.shards.index import Index

READ_BYTES = 1 << 20
"""Bytes read at once when neighbours are read in order. A quarter of that costs a fifth more where
a system call is dear, as in a virtual machine; four times that gains nothing."""

T = TypeVar("T", bytes, "memoryview[int]")
T_co = TypeVar("T_co", bytes, "memoryview[int]", covariant=True)
SampleRange = tuple[int, range, Iterator[dict[str, T]]]
"""(shard number, positions in the shard, the members of each)."""


class Sliceable(Protocol[T_co]):
    """Bytes whose slices are what is handed out."""

    def __getitem__(self, part: slice, /) -> T_co: ...


class ReadBuffer(Protocol[T_co]):
    """Where runs are read into."""

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[T_co]:
        """`size` bytes, at most RUN_BYTES, as `read` fills them in."""

    def of(self, data: bytes) -> Sliceable[T_co]:
        """The same of bytes that are there."""


class CopyBuffer:
    """Slices are copies; one window serves for all runs."""

    def __init__(self) -> None:
        # Anonymous memory, of no file. Its slices are bytes at once, where those of a bytearray
        # have to be made into such: a quarter of a microsecond a member.
        self._window = mmap.mmap(-1, READ_BYTES)

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[bytes]:
        """See `ReadBuffer`."""
        with memoryview(self._window) as view:
            read(view[:size])
        return self._window

    def of(self, data: bytes) -> Sliceable[bytes]:
        """See `ReadBuffer`."""
        return data


class ViewBuffer:
    """Slices are read-only views; a window is used again when nobody holds a view of it."""

    def __init__(self) -> None:
        self._windows: list[bytearray] = []

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[memoryview[int]]:
        """See `ReadBuffer`."""
        view = memoryview(self._free())[:size]
        read(view)
        return view.toreadonly()

    def of(self, data: bytes) -> Sliceable[memoryview[int]]:
        """See `ReadBuffer`."""
        return memoryview(data)

    def _free(self) -> bytearray:
        # Two in turns: who asks for the next sample still has the last one in hand.
        for window in self._windows:
            try:
                window.append(window.pop())  # its size cannot change while there are views of it
            except BufferError:
                continue
            return window
        fresh = bytearray(READ_BYTES)
        self._windows = [*self._windows[-1:], fresh]
        return fresh


class SequentialReader(Generic[T]):
    """A way through a shard set, of copies or of views. Used by one thread."""

    def __init__(self, shards: ShardSet, window: ReadBuffer[T]) -> None:
        self._shards = shards
        self._window: ReadBuffer[T] = window

    def batches(self, positions: range) -> Iterator[SampleRange[T]]:
        """Stretches of `positions` in turn, each to be taken to its end before the next.

        Raises ShardError, also while a batch is taken.
        """
        at = 0
        while at < len(positions):
            number, local = self._shards.locate(positions[at])
            stop = local + 1
            if positions.step == 1:
                stop = min(local + len(positions) - at, self._shards.shards[number].samples)
            at += stop - local
            index = self._shards.index(number)
            while local < stop:
                run, batch = self._next(number, index, range(local, stop))
                yield number, run, batch
                local = run.stop
                del batch  # it holds a window

    def _next(
        self, number: int, index: Index, wanted: range
    ) -> tuple[range, Iterator[dict[str, T]]]:
        """The longest run from the first wanted sample on that one read can give."""
        first = wanted.start
        base, size, frame = index.offsets[first], READ_BYTES, -1
        if index.frames is not None:
            frame = index.frames.at(base)
            size = min(index.frames.contents[frame + 1] - base, MAX_FRAME)
        run = range(first, _fitting(index, first, wanted.stop, size))
        need = index.offsets[run.stop - 1] + index.sizes[run.stop - 1] - base
        if need > size:
            return run, self._one_by_one(number, run)
        try:
            tar = self._shards.tar(number, index)
            if not isinstance(tar, ZstdTar):
                data = self._window.fill(need, partial(tar.read_into, base))
                return run, self._cut(number, index, run, data, base)
            if tar.held(frame):
                data = self._window.of(tar.frame(frame))
                return run, self._cut(number, index, run, data, tar.table.contents[frame])
        except ShardError:
            pass  # said again, of the sample it belongs to
        return run, self._one_by_one(number, run)

    def _one_by_one(self, number: int, run: range) -> Iterator[dict[str, T]]:
        for local in run:
            members = self._shards.members(number, local)
            yield {name: self._window.of(data)[:] for name, data in members.items()}

    def _cut(
        self, number: int, index: Index, run: range, data: Sliceable[T], base: int
    ) -> Iterator[dict[str, T]]:
        """The members of each sample of a run that lies in `data`, which begins at `base`."""
        # The hottest loop of reading: names are local, and nothing is looked up twice.
        offsets, sizes, names = index.member_offsets, index.member_sizes, index.names
        ends, digests, verify = index.member_starts, index.digests, self._shards.verify
        at = ends[run.start]
        for local in run:
            found: dict[str, T] = {}
            # Goes on where the last sample ended: range() has read `at` before it is a loop's.
            for at in range(at, ends[local + 1]):  # noqa: B020
                start = offsets[at] - base
                member = data[start : start + sizes[at]]
                if verify and xxh3_128_digest(member) != digests[16 * at : 16 * at + 16]:
                    raise self._shards.differs(number, index, local, at)
                found[names[at]] = member
            at += 1
            yield found


def _fitting(index: Index, start: int, stop: int, size: int) -> int:
    """The end of the run of samples from `start` on, at most to `stop`, that fits `size` bytes;
    `start + 1` where not even the first does."""
    limit = index.offsets[start] + size
    last = bisect.bisect_right(index.offsets, limit, start + 1, stop) - 1
    fits = index.offsets[last] + index.sizes[last] <= limit
    return max(last + 1 if fits else last, start + 1)
