"""Neighbours read in one go: the fastest way through a shard set, in order.

Owner of the windows that runs of samples are read into, one ahead of the other, and of the loop
that cuts members out of them and verifies each before it is handed out. What a run cannot give (a
sample larger than a window, a file that is damaged) is left to `ShardSet.members`, which knows how
to say it.
"""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Generic, Protocol, TypeVar

from xxhash import xxh3_128_digest

from ocrdata.ahead import ahead
from ocrdata.errors import ShardError
from ocrdata.framefile import FrameFile
from ocrdata.frames import MAX_FRAME
from ocrdata.index import Index
from ocrdata.shardset import ShardSet

RUN_BYTES = 1 << 21
"""Bytes read at once when neighbours are read in order. Half of that is handed from thread to
thread twice as often, which costs a twentieth of the time; four times that is out of the cache."""

DEPTH = 2
"""Windows at once: one being taken, one being read."""

T = TypeVar("T", bytes, "memoryview[int]")
T_co = TypeVar("T_co", bytes, "memoryview[int]", covariant=True)
Batch = tuple[int, Index, range, Iterator[dict[str, T]]]
"""(shard number, its index, positions in the shard, the members of each)."""


class Sliceable(Protocol[T_co]):
    """Bytes whose slices are what is handed out."""

    def __getitem__(self, part: slice, /) -> T_co: ...


class Window(Protocol[T_co]):
    """Where runs are read into."""

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[T_co]:
        """`size` bytes, at most RUN_BYTES, as `read` fills them in."""

    def of(self, data: bytes) -> Sliceable[T_co]:
        """The same of bytes that are there."""


class Copies:
    """Slices are copies; DEPTH windows in turns serve for all runs."""

    def __init__(self) -> None:
        # Anonymous memory, of no file. Its slices are bytes at once, where those of a bytearray
        # have to be made into such: a quarter of a microsecond a member.
        self._windows = cycle([mmap.mmap(-1, RUN_BYTES) for _ in range(DEPTH)])

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[bytes]:
        """See `Window`."""
        window = next(self._windows)
        with memoryview(window) as view:
            read(view[:size])
        return window

    def of(self, data: bytes) -> Sliceable[bytes]:
        """See `Window`."""
        return data


class Views:
    """Slices are read-only views; a window is used again when nobody holds a view of it."""

    def __init__(self) -> None:
        self._windows: list[bytearray] = []

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[memoryview[int]]:
        """See `Window`."""
        view = memoryview(self._free())[:size]
        read(view)
        return view.toreadonly()

    def of(self, data: bytes) -> Sliceable[memoryview[int]]:
        """See `Window`."""
        return memoryview(data)

    def _free(self) -> bytearray:
        # One more than are read ahead: who asks for the next sample still has the last one in hand.
        for window in self._windows:
            try:
                window.append(window.pop())  # its size cannot change while there are views of it
            except BufferError:
                continue
            return window
        fresh = bytearray(RUN_BYTES)
        self._windows = [*self._windows[-DEPTH:], fresh]
        return fresh


@dataclass(frozen=True, slots=True)
class _Read(Generic[T]):
    """Neighbours in one shard. `data` is what was read for them, which begins at byte `base` of
    the tar; None where one read could not give them."""

    number: int
    index: Index
    run: range
    data: Sliceable[T] | None = None
    base: int = 0


class Runs(Generic[T]):
    """A way through a shard set, of copies or of views. Used by one thread."""

    def __init__(self, shards: ShardSet, window: Window[T]) -> None:
        self._shards = shards
        self._window: Window[T] = window

    def batches(self, positions: range) -> Iterator[Batch[T]]:
        """Stretches of `positions` in turn, each to be taken to its end before the next.

        Raises ShardError, also while a batch is taken.
        """
        reads = self._reads(positions)
        for read in ahead(reads, DEPTH) if self._long(positions) else reads:
            yield read.number, read.index, read.run, self._samples(read)
            del read  # it holds a window

    def _long(self, positions: range) -> bool:
        """Whether reading ahead is worth a thread: two windows and more, of neighbours."""
        if positions.step != 1 or not positions:
            return False
        shards, starts, size = self._shards.shards, self._shards.starts, 0
        for number in range(self._shards.locate(positions[0])[0], len(shards)):
            first, last = max(starts[number], positions.start), starts[number + 1]
            count = min(last, positions.stop) - first
            if count > 0:
                size += shards[number].bytes * count // shards[number].samples
            if size >= 2 * RUN_BYTES or last >= positions.stop:
                break
        return size >= 2 * RUN_BYTES

    def _reads(self, positions: range) -> Generator[_Read[T]]:
        """What is read for `positions`, read by read. Raises ShardError where an index is bad."""
        at = 0
        while at < len(positions):
            number, local = self._shards.locate(positions[at])
            stop = local + 1
            if positions.step == 1:
                stop = min(local + len(positions) - at, self._shards.shards[number].samples)
            at += stop - local
            index = self._shards.index(number)
            while local < stop:
                # Nothing here may hold what was read: its window would not come free.
                run, size, frame = _run(index, local, stop)
                yield self._read(number, index, run, size, frame)
                local = run.stop

    def _read(self, number: int, index: Index, run: range, size: int, frame: int) -> _Read[T]:
        base = index.offsets[run.start]
        need = index.offsets[run.stop - 1] + index.sizes[run.stop - 1] - base
        if need > size:
            return _Read(number, index, run)
        try:
            tar = self._shards.tar(number, index)
            if not isinstance(tar, FrameFile):
                data = self._window.fill(need, partial(tar.read_into, base))
                return _Read(number, index, run, data, base)
            if tar.held(frame):
                data = self._window.of(tar.frame(frame))
                return _Read(number, index, run, data, tar.table.contents[frame])
        except ShardError:
            pass  # said again, of the sample it belongs to
        return _Read(number, index, run)

    def _samples(self, read: _Read[T]) -> Iterator[dict[str, T]]:
        if read.data is None:
            return self._one_by_one(read.number, read.run)
        return self._cut(read.number, read.index, read.run, read.data, read.base)

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
            for at in range(at, ends[local + 1]):  # noqa: B020
                start = offsets[at] - base
                member = data[start : start + sizes[at]]
                if verify and xxh3_128_digest(member) != digests[16 * at : 16 * at + 16]:
                    raise self._shards.differs(number, index, local, at)
                found[names[at]] = member
            at += 1
            yield found


def _run(index: Index, first: int, stop: int) -> tuple[range, int, int]:
    """The longest run from sample `first` on, at most to `stop`, that one read can give, the most
    bytes such a read has, and the frame it is of (-1: the shard is a plain tar)."""
    base, size, frame = index.offsets[first], RUN_BYTES, -1
    if index.frames is not None:
        frame = index.frames.at(base)
        size = min(index.frames.contents[frame + 1] - base, MAX_FRAME)
    return range(first, _fitting(index, first, stop, size)), size, frame


def _fitting(index: Index, start: int, stop: int, size: int) -> int:
    """The end of the run of samples from `start` on, at most to `stop`, that fits `size` bytes;
    `start + 1` where not even the first does."""
    limit = index.offsets[start] + size
    last = bisect.bisect_right(index.offsets, limit, start + 1, stop) - 1
    fits = index.offsets[last] + index.sizes[last] <= limit
    return max(last + 1 if fits else last, start + 1)
