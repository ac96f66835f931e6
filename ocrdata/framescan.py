"""Anybody's `.tar.zst`, one frame or many: where its frames lie, and what is too large to hold.

A file is walked block by block, so that one that was cut is known for it before a byte is
decompressed. What its frames hold is in their headers, or is counted by decompressing them once.
Memory depends on MAX_WINDOW, never on what a file claims or holds.
"""

from __future__ import annotations

import io

import zstandard

from ocrdata.frames import (
    LONGEST_HEADER,
    MAX_WINDOW,
    FrameSize,
    FrameTable,
    block_size,
    check_growth,
    cut_in_frame,
    damaged,
    frame_head,
)
from ocrdata.storage import LocalFile

PIECE = 1 << 20
_READ = 1 << 16
_CHECKSUM = 4


def scan(file: LocalFile) -> FrameTable:
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


def _frame(file: LocalFile, start: int) -> tuple[int, int | None]:
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


def _count(file: LocalFile, start: int, stop: int, before: int) -> int:
    """The content of a frame whose header does not say it."""
    forward, count = Forward(file, start, stop), 0
    while piece := forward.piece():
        count += len(piece)
        check_growth(file.name, file.size, before + count)
    return count


class Forward:
    """The content of the frame in `[start, stop)` of a file, forward only, a piece at a time.

    For frames too large to be held. zstd verifies the checksum, if there is one, at the frame's
    end. That the frame has its end was seen by `scan`. Used by one thread at a time.
    """

    def __init__(self, file: LocalFile, start: int, stop: int) -> None:
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

    def __init__(self, file: LocalFile, start: int, stop: int) -> None:
        self._file, self._at, self._stop = file, start, stop

    def readable(self) -> bool:
        return True

    # io passes a memoryview; its stub allows any buffer, and None where nothing is ready.
    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._stop - self._at)
        self._file.read_into(self._at, memoryview(buffer)[:count])
        self._at += count
        return count
