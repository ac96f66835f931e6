"""Reads samples in order, many with one read: the fastest way through a shard set.

A range of adjacent samples is read into a read buffer; each member is cut out of it and verified
before it is returned. Samples larger than the buffer, and files that cannot be read, are left to
`ShardSet.members`, which raises the errors.
"""

from __future__ import annotations

import bisect
import mmap
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from xxhash import xxh3_128_digest

from ocrdata.errors import ShardError, TransportError
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.shards.frames import MAX_FRAME
from ocrdata.shards.index_block import IndexBlock
from ocrdata.storage.file import File

READ_BYTES = 1 << 20
"""Bytes read at once when samples are read in order. A quarter of this takes a fifth longer where
system calls are slow, as in a virtual machine; four times this gains nothing."""

READS_AHEAD = 20
"""Reads of shards at URLs that are announced before they are needed."""

T = TypeVar("T", bytes, "memoryview[int]")
T_co = TypeVar("T_co", bytes, "memoryview[int]", covariant=True)
SampleRange = tuple[int, range, Iterator[dict[str, T]]]
"""(shard number, positions in that shard, an iterator over the members of each sample)."""


@dataclass(frozen=True, slots=True)
class _Read:
    """Samples `[start, stop)` of an index block that are read at once, if they fit `size` bytes."""

    number: int
    block: IndexBlock
    start: int
    stop: int
    size: int

    @property
    def base(self) -> int:
        """The first byte of the samples in the tar."""
        return self.block.offsets[self.start]

    @property
    def need(self) -> int:
        """Bytes of the samples in the tar."""
        return self.block.offsets[self.stop - 1] + self.block.sizes[self.stop - 1] - self.base


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
        reads = self._reads(positions)
        for read in self._ahead(reads) if self._shards.is_remote else reads:
            batch = self._perform(read)
            first = read.block.first
            yield read.number, range(first + read.start, first + read.stop), batch
            del batch  # it holds a read buffer

    def _reads(self, positions: range) -> Iterator[_Read]:
        """The reads for `positions`, in order."""
        at = 0
        while at < len(positions):
            number, local = self._shards.locate(positions[at])
            block, start = self._shards.block(number, local)
            stop = start + 1
            if positions.step == 1:
                stop = min(start + len(positions) - at, len(block))
            at += stop - start
            while start < stop:
                size = READ_BYTES
                if block.frames is not None:
                    base = block.offsets[start]
                    size = min(block.frames.contents[block.frames.at(base) + 1] - base, MAX_FRAME)
                end = _fitting_end(block, start, stop, size)
                yield _Read(number, block, start, end, size)
                start = end

    def _ahead(self, reads: Iterator[_Read]) -> Iterator[_Read]:
        """The same reads, the next READS_AHEAD of which have been announced to their files."""
        coming: deque[tuple[_Read, File]] = deque()
        try:
            for read in reads:
                tar = self._shards.tar(read.number, read.block)
                tar.hint([(read.base, read.need)])
                coming.append((read, tar))
                if len(coming) > READS_AHEAD:
                    yield coming.popleft()[0]
            while coming:
                yield coming.popleft()[0]
        finally:  # the caller may stop here
            for read, tar in coming:
                tar.unhint([(read.base, read.need)])

    def _perform(self, read: _Read) -> Iterator[dict[str, T]]:
        """The members of the samples of a read."""
        if read.need <= read.size:
            try:
                filled = self._fill(read)
                if filled is not None:
                    return self._cut(read, *filled, again=self._shards.is_remote)
            except ShardError as exc:
                if self._shards.is_remote and isinstance(exc, TransportError):
                    raise
                # Raised again below, with the key of the sample it concerns.
        return self._one_by_one(read)

    def _fill(self, read: _Read) -> tuple[Sliceable[T], int] | None:
        """The bytes of a read, and the tar's byte that is their first; None for a frame that is too
        large for memory."""
        tar = self._shards.tar(read.number, read.block)
        if not isinstance(tar, ZstdTar):
            return self._buffer.fill(read.need, partial(tar.read_into, read.base)), read.base
        frame = tar.table.at(read.base)
        if not tar.fits_in_memory(frame):
            return None
        return self._buffer.wrap(tar.frame(frame)), tar.table.contents[frame]

    def _one_by_one(self, read: _Read) -> Iterator[dict[str, T]]:
        for at in range(read.start, read.stop):
            members = self._shards.members(read.number, read.block.first + at)
            yield {name: self._buffer.wrap(data)[:] for name, data in members.items()}

    def _cut(
        self, read: _Read, data: Sliceable[T], base: int, *, again: bool
    ) -> Iterator[dict[str, T]]:
        """Cut the members of a read out of `data`, whose first byte is the tar's byte `base`.
        `again`: from the first that is wrong on, the rest is read once more. Raises DigestError."""
        block = read.block
        # The hottest loop of reading: names are local, and nothing is looked up twice.
        offsets, sizes, names = block.member_offsets, block.member_sizes, block.names
        ends, digests, verify = block.member_starts, block.digests, self._shards.verify
        at = ends[read.start]
        for local in range(read.start, read.stop):
            found: dict[str, T] = {}
            # Continues where the last sample ended: range() reads `at` before the loop assigns it.
            for at in range(at, ends[local + 1]):  # noqa: B020
                start = offsets[at] - base
                member = data[start : start + sizes[at]]
                if verify and xxh3_128_digest(member) != digests[16 * at : 16 * at + 16]:
                    if not again:
                        wrong = block.members(local)[at - ends[local]]
                        raise self._shards.mismatch_error(read.number, block, local, wrong)
                    yield from self._cut_again(replace(read, start=local))
                    return
                found[names[at]] = member
            at += 1
            yield found

    def _cut_again(self, read: _Read) -> Iterator[dict[str, T]]:
        """The rest of a read that had a wrong member, from the server. Raises DigestError if one is
        wrong there too."""
        self._shards.tar(read.number, read.block).forget(read.base, read.need)
        try:
            filled = self._fill(read)
        except TransportError:
            raise
        except ShardError:
            filled = None
        if filled is None:
            return self._one_by_one(read)
        return self._cut(read, *filled, again=False)


def _fitting_end(block: IndexBlock, start: int, stop: int, size: int) -> int:
    """The largest end, at most `stop`, for which the samples `[start, end)` fit in `size` bytes;
    `start + 1` if not even the first fits."""
    limit = block.offsets[start] + size
    last = bisect.bisect_right(block.offsets, limit, start + 1, stop) - 1
    fits = block.offsets[last] + block.sizes[last] <= limit
    return max(last + 1 if fits else last, start + 1)
