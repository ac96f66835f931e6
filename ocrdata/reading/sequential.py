"""Reads samples in order, many with one read: the fastest way through a shard set.

A range of adjacent samples is read into a read buffer; each member is cut out of it and verified
before it is returned. Samples larger than the buffer, and files that cannot be read, are left to
`ShardSet.members`, which raises the errors.
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
from ocrdata.shards.index_block import IndexBlock

READ_BYTES = 1 << 20
"""Bytes read at once when samples are read in order. A quarter of this takes a fifth longer where
system calls are slow, as in a virtual machine; four times this gains nothing."""

T = TypeVar("T", bytes, "memoryview[int]")
T_co = TypeVar("T_co", bytes, "memoryview[int]", covariant=True)
SampleRange = tuple[int, range, Iterator[dict[str, T]]]
"""(shard number, positions in that shard, an iterator over the members of each sample)."""


class Sliceable(Protocol[T_co]):
    """Bytes whose slices become the members: bytes or memoryviews."""

    def __getitem__(self, part: slice, /) -> T_co: ...


class ReadBuffer(Protocol[T_co]):
    """The read buffer; decides whether members are copies or views."""

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[T_co]:
        """Call `read` to fill in `size` bytes, at most READ_BYTES, and return them."""

    def wrap(self, data: bytes) -> Sliceable[T_co]:
        """The same for bytes that are in memory already."""


class CopyBuffer:
    """Slices are copies, so that one buffer can be reused for every read."""

    def __init__(self) -> None:
        # Anonymous memory, not a mapped file. Slicing it gives bytes directly; slices of a
        # bytearray would have to be converted, a quarter of a microsecond per member.
        self._memory = mmap.mmap(-1, READ_BYTES)

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[bytes]:
        """See `ReadBuffer`."""
        with memoryview(self._memory) as view:
            read(view[:size])
        return self._memory

    def wrap(self, data: bytes) -> Sliceable[bytes]:
        """See `ReadBuffer`."""
        return data


class ViewBuffer:
    """Slices are read-only views; a buffer is reused once no view of it is held any more."""

    def __init__(self) -> None:
        self._buffers: list[bytearray] = []

    def fill(self, size: int, read: Callable[[memoryview], None]) -> Sliceable[memoryview[int]]:
        """See `ReadBuffer`."""
        view = memoryview(self._unused())[:size]
        read(view)
        return view.toreadonly()

    def wrap(self, data: bytes) -> Sliceable[memoryview[int]]:
        """See `ReadBuffer`."""
        return memoryview(data)

    def _unused(self) -> bytearray:
        # Two buffers alternate: a caller asking for the next sample still holds the last one.
        for buffer in self._buffers:
            try:
                buffer.append(buffer.pop())  # BufferError if there are views of it
            except BufferError:
                continue
            return buffer
        fresh = bytearray(READ_BYTES)
        self._buffers = [*self._buffers[-1:], fresh]
        return fresh


class SequentialReader(Generic[T]):
    """Reads a shard set in order, as copies or as views. For one thread."""

    def __init__(self, shards: ShardSet, buffer: ReadBuffer[T]) -> None:
        self._shards = shards
        self._buffer: ReadBuffer[T] = buffer

    def batches(self, positions: range) -> Iterator[SampleRange[T]]:
        """Split `positions` into ranges that are read together, in order. Exhaust the iterator of
        one range before taking the next.

        Raises ShardError, also while such an iterator is consumed.
        """
        at = 0
        while at < len(positions):
            number, local = self._shards.locate(positions[at])
            block, start = self._shards.block(number, local)
            stop = start + 1
            if positions.step == 1:
                stop = min(start + len(positions) - at, len(block))
            at += stop - start
            while start < stop:
                samples, batch = self._next(number, block, range(start, stop))
                yield number, range(block.first + start, block.first + samples.stop), batch
                start = samples.stop
                del batch  # it holds a read buffer

    def _next(
        self, number: int, block: IndexBlock, wanted: range
    ) -> tuple[range, Iterator[dict[str, T]]]:
        """The samples of a block from the first wanted one on that fit one read, and their
        members."""
        first = wanted.start
        base, size, frame = block.offsets[first], READ_BYTES, -1
        if block.frames is not None:
            frame = block.frames.at(base)
            size = min(block.frames.contents[frame + 1] - base, MAX_FRAME)
        samples = range(first, _fitting_end(block, first, wanted.stop, size))
        need = block.offsets[samples.stop - 1] + block.sizes[samples.stop - 1] - base
        if need > size:
            return samples, self._one_by_one(number, block, samples)
        try:
            tar = self._shards.tar(number, block)
            if not isinstance(tar, ZstdTar):
                data = self._buffer.fill(need, partial(tar.read_into, base))
                return samples, self._cut(number, block, samples, data, base)
            if tar.fits_in_memory(frame):
                data = self._buffer.wrap(tar.frame(frame))
                return samples, self._cut(number, block, samples, data, tar.table.contents[frame])
        except ShardError:
            pass  # raised again below, with the key of the sample it concerns
        return samples, self._one_by_one(number, block, samples)

    def _one_by_one(self, number: int, block: IndexBlock, samples: range) -> Iterator[dict[str, T]]:
        for at in samples:
            members = self._shards.members(number, block.first + at)
            yield {name: self._buffer.wrap(data)[:] for name, data in members.items()}

    def _cut(
        self, number: int, block: IndexBlock, samples: range, data: Sliceable[T], base: int
    ) -> Iterator[dict[str, T]]:
        """Cut the members of `samples` out of `data`, whose first byte is the tar's byte `base`."""
        # The hottest loop of reading: names are local, and nothing is looked up twice.
        offsets, sizes, names = block.member_offsets, block.member_sizes, block.names
        ends, digests, verify = block.member_starts, block.digests, self._shards.verify
        at = ends[samples.start]
        for local in samples:
            found: dict[str, T] = {}
            # Continues where the last sample ended: range() reads `at` before the loop assigns it.
            for at in range(at, ends[local + 1]):  # noqa: B020
                start = offsets[at] - base
                member = data[start : start + sizes[at]]
                if verify and xxh3_128_digest(member) != digests[16 * at : 16 * at + 16]:
                    wrong = block.members(local)[at - ends[local]]
                    raise self._shards.mismatch_error(number, block, local, wrong)
                found[names[at]] = member
            at += 1
            yield found


def _fitting_end(block: IndexBlock, start: int, stop: int, size: int) -> int:
    """The largest end, at most `stop`, for which the samples `[start, end)` fit in `size` bytes;
    `start + 1` if not even the first fits."""
    limit = block.offsets[start] + size
    last = bisect.bisect_right(block.offsets, limit, start + 1, stop) - 1
    fits = block.offsets[last] + block.sizes[last] <= limit
    return max(last + 1 if fits else last, start + 1)
