"""The tar in a compressed shard, read by position: only the frames that are asked for are
decompressed, and those that were asked for last are kept, since neighbours follow.

It has the ways of `File`, so that who reads a tar need not know how it lies on the disk.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

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

LARGEST_HELD = MAX_FRAME
"""Content of a frame that is decompressed whole; what is larger is read forward, in pieces."""

CACHE_BYTES = 1 << 22
"""Content kept decompressed, at least the frame that was read last."""

_Key = tuple[Location, int]


class FrameCache:
    """The frames that were read last, of any number of files. Safe to share between threads."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.decompressor = Decompressor()
        self._frames: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._forward: tuple[_Key, ForwardReader] | None = None
        self._one_reader = threading.Lock()

    def get(self, key: _Key) -> bytes | None:
        """A frame's content, if it is here."""
        with self._lock:
            content = self._frames.get(key)
            if content is not None:
                self._frames.move_to_end(key)
            return content

    def put(self, key: _Key, content: bytes) -> None:
        """Keep a frame's content, and let go of older ones."""
        with self._lock:
            if key not in self._frames:
                self._frames[key] = content
                self._bytes += len(content)
            while self._bytes > self.limit and len(self._frames) > 1:
                self._bytes -= len(self._frames.popitem(last=False)[1])

    def part(self, key: _Key, start: Callable[[], ForwardReader], offset: int, size: int) -> bytes:
        """A part of a frame too large to be kept. Only one such frame is open at a time; reading
        forward costs what it is worth, each step back begins at the frame's begin."""
        with self._one_reader:
            known, forward = self._forward or (None, None)
            if known != key or forward is None or offset < forward.begin:
                forward = start()
            self._forward = None  # what fails below is not gone on with
            data = forward.part(offset, size)
            self._forward = key, forward
            return data


class ZstdTar:
    """A compressed shard, as the tar it holds. `size` is the tar's. Safe to share between threads.

    `samples(start, stop)` says in words which samples lie in these bytes of the tar; it is asked
    where a frame is damaged, since all of them are lost.
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

        Raises ShardError; DigestError for a damaged frame, TruncatedError past the tar's end.
        """
        if size > MAX_FRAME:
            raise ShardError(
                self.name,
                f"{size:,} bytes at byte {offset:,} of its tar: of a compressed shard at most "
                f"{MAX_FRAME:,} are read at once",
                remedy="unpack it with zstd -d and use the .tar",
            )
        if offset + size > self.size:
            raise TruncatedError(
                self.name, f"its tar ends at byte {self.size:,}, byte {offset + size:,} is needed"
            )
        pieces = []
        end = offset + size
        while offset < end:
            number = self.table.at(offset)  # never one without content
            stop = min(end, self.table.contents[number + 1])
            pieces.append(self._part(number, offset, stop))
            offset = stop
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the tar's bytes at `offset`. Raises as `read` does."""
        view[:] = self.read(offset, len(view))

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Hand on which frames will be read soon, as bytes of the file."""
        numbers = dict.fromkeys(
            number
            for offset, size in ranges
            if size
            for number in range(self.table.at(offset), self.table.at(offset + size - 1) + 1)
        )
        starts = self.table.starts
        self.file.hint([(starts[at], starts[at + 1] - starts[at]) for at in numbers])

    def close(self) -> None:
        """Close the file. Frames in the cache stay readable."""
        self.file.close()

    def held(self, number: int) -> bool:
        """Whether a frame is one that is decompressed whole."""
        return self.table.content(number) <= LARGEST_HELD

    def frame(self, number: int) -> bytes:
        """The content of a frame that is `held`. Raises DigestError where it is damaged."""
        key = self.file.location, number
        content = self._cache.get(key)
        if content is None:
            start, stop = self.table.starts[number], self.table.starts[number + 1]
            data = self.file.read(start, stop - start)
            with self._naming(number):
                content = self._cache.decompressor.frame(
                    self.name, data, start, self.table.content(number)
                )
            self._cache.put(key, content)
        return content

    def _part(self, number: int, start: int, stop: int) -> bytes:
        """Bytes `[start, stop)` of the tar, which lie in one frame."""
        base = self.table.contents[number]
        if self.held(number):
            return self.frame(number)[start - base : stop - base]
        begin, end = self.table.starts[number], self.table.starts[number + 1]
        with self._naming(number):
            return self._cache.part(
                (self.file.location, number),
                lambda: ForwardReader(self.file, begin, end),
                start - base,
                stop - start,
            )

    def _naming(self, number: int) -> _Naming:
        return _Naming(self, number)

    def lost(self, number: int) -> str:
        """The samples of a frame in words."""
        return self._samples(self.table.contents[number], self.table.contents[number + 1])


class _Naming:
    """A damaged frame's error names all its samples."""

    def __init__(self, file: ZstdTar, number: int) -> None:
        self.file, self.number = file, number

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        if isinstance(exc, DigestError) and (lost := self.file.lost(self.number)):
            detail = f"{exc.detail}, and with it {lost}"
            raise DigestError(exc.shard, detail, remedy=exc.remedy) from exc


PIECE = 1 << 20


_READ = 1 << 16


_CHECKSUM = 4


def scan(file: File) -> FrameTable:
    """The frames of a whole file. Raises ShardError where it is cut, no zstd, or a bomb."""
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
    return FrameTable(frames)


def _frame(file: File, start: int) -> tuple[int, int | None]:
    """(bytes in the file, content where its header says it) of the frame that begins at `start`."""
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
    """The content of a frame whose header does not say it."""
    forward, count = ForwardReader(file, start, stop), 0
    while piece := forward.piece():
        count += len(piece)
        check_growth(file.name, file.size, before + count)
    return count


class ForwardReader:
    """The content of the frame in `[start, stop)` of a file, forward only, a piece at a time.

    For frames too large to be held. zstd verifies the checksum, if there is one, at the frame's
    end. That the frame has its end was seen by `scan`. Used by one thread at a time.
    """

    def __init__(self, file: File, start: int, stop: int) -> None:
        self._file, self._start = file, start
        source = io.BufferedReader(_Part(file, start, stop), _READ)
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        self._stream = decompressor.stream_reader(source, read_size=_READ, read_across_frames=False)
        self._window, self.begin = b"", 0

    def piece(self) -> bytes:
        """The next PIECE bytes of content, fewer at its end, then none. Raises DigestError."""
        try:
            return bytes(self._stream.read(PIECE))
        except zstandard.ZstdError as exc:
            raise damaged(self._file.name, self._start, str(exc)) from exc

    def part(self, offset: int, size: int) -> bytes:
        """Content at `offset`, which never lies before `begin`."""
        while (end := self.begin + len(self._window)) < offset + size:
            keep = max(0, end - offset)
            piece = self.piece()
            if not piece:
                raise damaged(self._file.name, self._start, f"its content ends at byte {end:,}")
            self._window = self._window[len(self._window) - keep :] + piece
            self.begin = end - keep
        at = offset - self.begin
        return self._window[at : at + size]


class _Part(io.RawIOBase):
    """The bytes `[start, stop)` of a file as a stream."""

    def __init__(self, file: File, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop

    def readable(self) -> bool:
        return True

    # io passes a memoryview; its stub allows any buffer, and None where nothing is ready.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._stop - self._at)
        self._file.read_into(self._at, memoryview(buffer)[:count])
        self._at += count
        return count
