"""Random access to the tar inside a compressed shard: only the frames needed are decompressed, and
the last few are cached, since the next read is usually nearby.

`ZstdTar` is a `File`, so that code that reads a tar need not know whether it is compressed.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import zstandard

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.shards.frames import (
    LONGEST_HEADER,
    MAX_FRAME,
    MAX_WINDOW,
    Decompressor,
    FrameSize,
    FrameTable,
    block_size,
    check_growth,
    cut_in_frame,
    damaged,
    frame_head,
)
from ocrdata.storage.file import File
from ocrdata.storage.location import Location
from ocrdata.storage.recently_used import RecentlyUsed

LARGEST_IN_MEMORY = MAX_FRAME
"""Largest content, in bytes, of a frame that is decompressed whole; a larger one is streamed."""

CACHE_BYTES = 1 << 22
"""Decompressed bytes kept; the frame read last is always kept."""

PIECE = 1 << 20
"""Bytes of content decompressed at a time when a frame is streamed."""

_READ = 1 << 16
"""Compressed bytes read at a time when a frame is streamed."""

_CHECKSUM = 4
"""Bytes of the checksum at the end of a frame (RFC 8878, section 3.1.1)."""

_Key = tuple[Location, int]


class FrameCache:
    """The frames read last, from any number of files: `whole` ones, and one that is streamed. Safe
    to share between threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.decompressor = Decompressor()
        self.whole: RecentlyUsed[_Key, bytes] = RecentlyUsed(limit, len)
        self._streamed: tuple[_Key, ForwardReader] | None = None
        self._stream_lock = threading.Lock()

    def part(self, key: _Key, start: Callable[[], ForwardReader], offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of a frame too large to cache, which `start` opens. One such
        frame is open at a time. Forward reads are linear; seeking back restarts the frame."""
        with self._stream_lock:
            known, forward = self._streamed or (None, None)
            if known != key or forward is None or offset < forward.position:
                forward = start()
            self._streamed = None  # a reader that fails below is not used again
            data = forward.part(offset, size)
            self._streamed = key, forward
            return data


class ZstdTar:
    """The tar inside a compressed shard, as a `File`. `size` is that of the tar. Safe to share
    between threads.

    `samples(start, stop)` names the samples in these bytes of the tar, as text for the error about
    a corrupted frame: all of them are lost.
    """

    def __init__(
        self,
        file: File,
        table: FrameTable,
        *,
        cache: FrameCache | None = None,
        samples: Callable[[int, int], str] = lambda _start, _stop: "",
    ) -> None:
        self.file, self.table = file, table
        self.name, self.location = file.name, file.location
        self.size, self.version = table.tar_size, file.version
        self._cache = cache or FrameCache()
        self._samples = samples

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the tar at `offset`, at most MAX_FRAME at once.

        Raises ShardError: DigestError for a corrupted frame, TruncatedError past the tar's end.
        """
        if size > MAX_FRAME:
            raise ShardError(
                self.name,
                f"cannot read {size:,} bytes at byte {offset:,} of its tar: a compressed shard "
                f"allows {MAX_FRAME:,} at once",
                remedy="decompress it with zstd -d and use the .tar",
            )
        if offset + size > self.size:
            raise TruncatedError(
                self.name,
                f"its tar ends at byte {self.size:,}, but {offset + size:,} bytes are needed",
            )
        pieces = []
        end = offset + size
        while offset < end:
            number = self.table.at(offset)  # never an empty frame
            stop = min(end, self.table.contents[number + 1])
            pieces.append(self._part(number, offset, stop))
            offset = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size). Raises like `read`."""
        return [self.read(offset, size) for offset, size in ranges]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the tar's bytes at `offset`. Raises like `read`."""
        view[:] = self.read(offset, len(view))

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announce the frames of these ranges to the file, as ranges of compressed bytes; but for
        those that are cached, and those that are not read whole."""
        self.file.hint([stored for number, stored in self._stored(ranges) if self._is_read(number)])

    def unhint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announce that these frames will not be read."""
        self.file.unhint([stored for _, stored in self._stored(ranges)])

    def _stored(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
        """The frames of these ranges of the tar: their numbers, and (offset, size) in the file."""
        numbers = dict.fromkeys(
            number for offset, size in ranges if size for number in self._frames(offset, size)
        )
        starts = self.table.starts
        return [(at, (starts[at], starts[at + 1] - starts[at])) for at in numbers]

    def _is_read(self, number: int) -> bool:
        """Whether a frame will be read whole from the file when it is needed next."""
        cached = (self.file.location, number) in self._cache.whole
        return self.fits_in_memory(number) and not cached

    def forget(self, offset: int, size: int) -> None:
        """Read the frames of these bytes from their origin next time."""
        for number in self._frames(offset, size):
            self._cache.whole.drop((self.file.location, number))
            start = self.table.starts[number]
            self.file.forget(start, self.table.starts[number + 1] - start)

    def stored_range(self, offset: int, size: int) -> tuple[int, int]:
        """The bytes `[start, stop)` of the file that hold these bytes of the tar."""
        frames = self._frames(offset, size)
        return self.table.starts[frames[0]], self.table.starts[frames[-1] + 1]

    def _frames(self, offset: int, size: int) -> range:
        """The frames of some bytes of the tar, at least one."""
        return range(self.table.at(offset), self.table.at(offset + max(1, size) - 1) + 1)

    def close(self) -> None:
        """Close the file. Cached frames stay readable."""
        self.file.close()

    def fits_in_memory(self, number: int) -> bool:
        """Whether a frame is small enough to be decompressed whole."""
        return self.table.content(number) <= LARGEST_IN_MEMORY

    def frame(self, number: int) -> bytes:
        """The content of a frame that `fits_in_memory`. Raises DigestError if it is corrupted."""
        key = self.file.location, number
        return self._cache.whole.get(key, partial(self._decompress, number))

    def _decompress(self, number: int) -> bytes:
        start, stop = self.table.starts[number], self.table.starts[number + 1]
        data = self.file.read(start, stop - start)
        with self._naming_samples(number):
            return self._cache.decompressor.frame(
                self.name, data, start, self.table.content(number)
            )

    def _part(self, number: int, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)` of the tar, all of which are in frame `number`."""
        base = self.table.contents[number]
        if self.fits_in_memory(number):
            return self.frame(number)[start - base : stop - base]
        begin, end = self.table.starts[number], self.table.starts[number + 1]
        with self._naming_samples(number):
            return self._cache.part(
                (self.file.location, number),
                lambda: ForwardReader(self.file, begin, end),
                start - base,
                stop - start,
            )

    @contextmanager
    def _naming_samples(self, number: int) -> Iterator[None]:
        """Add the samples of frame `number` to the error about its corruption."""
        try:
            yield
        except DigestError as exc:
            lost = self._samples(self.table.contents[number], self.table.contents[number + 1])
            if not lost:
                raise
            detail = f"{exc.detail}; it holds {lost}"
            raise DigestError(exc.shard, detail, remedy=exc.remedy) from exc


def scan(file: File) -> FrameTable:
    """The frames of a whole file. Raises ShardError if it is truncated, not zstd, or a compression
    bomb."""
    frames: list[FrameSize] = []
    at = total = 0
    while at < file.size:
        size, content = _frame(file, at)
        if content is None:
            content = _count(file, at, at + size, total)
        frames.append((size, content))
        at += size
        total += content
        check_growth(file.name, file.size, total)
    if not frames:
        raise cut_in_frame(file.name, 0)
    return FrameTable.of(frames)


def _frame(file: File, start: int) -> tuple[int, int | None]:
    """(compressed bytes, bytes of content or None if its header omits them) of the frame at byte
    `start`."""
    data = file.read(start, min(LONGEST_HEADER, file.size - start))
    head = frame_head(file.name, data, start)
    at = start + head.payload
    if head.skippable is not None:
        at += head.skippable
    else:
        last = False
        while not last:
            if at + 3 > file.size:
                raise cut_in_frame(file.name, start)
            size, last = block_size(file.name, file.read(at, 3), at)
            at += size
        at += _CHECKSUM if head.checksum else 0
    if at > file.size:
        raise cut_in_frame(file.name, start)
    return at - start, head.content


def _count(file: File, start: int, stop: int, before: int) -> int:
    """Bytes of content of a frame whose header omits them, found by decompressing it."""
    forward, count = ForwardReader(file, start, stop), 0
    while piece := forward.piece():
        count += len(piece)
        check_growth(file.name, file.size, before + count)
    return count


class ForwardReader:
    """Streams the content of the frame at bytes `[start, stop)` of a file, forward only.

    For frames too large to decompress whole. zstd verifies the checksum, if there is one, at the
    end of the frame; `scan` has made sure that the frame is complete. For one thread at a time.
    `position` is the smallest offset that can still be read.
    """

    def __init__(self, file: File, start: int, stop: int) -> None:
        self._file, self._start = file, start
        source = io.BufferedReader(_Part(file, start, stop), _READ)
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._stream = decompressor.stream_reader(source, read_size=_READ, read_across_frames=False)
        self._buffer, self.position = b"", 0

    def piece(self) -> bytes:
        """The next PIECE bytes of content, fewer at the end, then b"". Raises DigestError."""
        try:
            return bytes(self._stream.read(PIECE))
        except zstandard.ZstdError as exc:
            raise damaged(self._file.name, self._start, str(exc)) from exc

    def part(self, offset: int, size: int) -> bytes:
        """`size` bytes of content at `offset`, which must not be before `position`."""
        while (end := self.position + len(self._buffer)) < offset + size:
            keep = max(0, end - offset)
            piece = self.piece()
            if not piece:
                raise damaged(self._file.name, self._start, f"its content ends at byte {end:,}")
            self._buffer = self._buffer[len(self._buffer) - keep :] + piece
            self.position = end - keep
        at = offset - self.position
        return self._buffer[at : at + size]


class _Part(io.RawIOBase):
    """Bytes `[start, stop)` of a file, as a stream."""

    def __init__(self, file: File, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop

    def readable(self) -> bool:
        return True

    # io passes a memoryview; its stub allows any buffer, and None if no data is ready.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._stop - self._at)
        self._file.read_into(self._at, memoryview(buffer)[:count])
        self._at += count
        return count
