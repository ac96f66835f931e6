"""Writes a shard's bytes to its file: as they are, or in zstd frames.

Buffers them, computes the digest of the file, and decides which samples share a frame. It knows
nothing about tar: a sample is a run of bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import xxhash

from ocrdata.shards.frames import FRAME_BYTES, LEVEL, FrameSize, compress, seek_table
from ocrdata.storage.files import explain_disk
from ocrdata.storage.location import Location

_FLUSH_BYTES = 1 << 20
_FLUSH_BUFFERS = 512  # below IOV_MAX, 1,024 on Linux


@dataclass(frozen=True)
class Written:
    """A finished file: its size, its digest, and its frames if it is compressed."""

    size: int
    digest: str
    frames: tuple[FrameSize, ...] = ()


class PlainOutput:
    """Writes bytes as they are, about a megabyte at a time."""

    def __init__(self, handle: int, location: Location) -> None:
        self._handle, self._location = handle, location
        self._hasher = xxhash.xxh3_128()
        self._size = self._buffered = 0
        self._buffers: list[bytes] = []

    def put(self, *pieces: bytes) -> None:
        """Append bytes."""
        self._buffers += pieces
        self._buffered += sum(map(len, pieces))

    def end_sample(self) -> None:
        """Write the buffered bytes to the file if they are many."""
        if self._buffered >= _FLUSH_BYTES or len(self._buffers) >= _FLUSH_BUFFERS:
            self._flush()

    def _flush(self) -> None:
        for data in self._buffers:
            self._hasher.update(data)
        buffers = self._buffers
        with explain_disk(self._location.path):
            while buffers:
                written = os.writev(self._handle, buffers[:_FLUSH_BUFFERS])
                buffers = _rest(buffers, written)
        self._size += self._buffered
        self._buffers, self._buffered = [], 0

    def finish(self, end: bytes) -> Written:
        """Append the last bytes, and write everything out."""
        self.put(end)
        self._flush()
        return Written(self._size, str(self._hasher.hexdigest()))


def _rest(buffers: list[bytes], written: int) -> list[bytes]:
    """`buffers` without their first `written` bytes."""
    for number, data in enumerate(buffers):
        if written < len(data):
            return [data[written:], *buffers[number + 1 :]]
        written -= len(data)
    return []


@dataclass(frozen=True)
class ZstdOptions:
    """How samples are compressed: the largest content of a frame in bytes, and zstd's level."""

    size: int = FRAME_BYTES
    level: int = LEVEL


DEFAULT_ZSTD = ZstdOptions()


class ZstdOutput:
    """Writes zstd frames of whole samples, then a seek table.

    A frame ends before the sample that would make it too large; a larger sample is a frame of its
    own. The tar's end mark is in the last frame.
    """

    def __init__(self, out: PlainOutput, how: ZstdOptions) -> None:
        self._out, self._how = out, how
        self._content: list[bytes] = []
        self._size = 0
        self._sample: list[bytes] = []
        self._frames: list[FrameSize] = []

    def put(self, *pieces: bytes) -> None:
        """Append bytes."""
        self._sample += pieces

    def end_sample(self) -> None:
        """Mark the bytes since the last call as one sample."""
        size = sum(map(len, self._sample))
        if self._content and self._size + size > self._how.size:
            self._close_frame()
        self._content += self._sample
        self._size += size
        self._sample = []

    def _close_frame(self) -> None:
        frame = compress(b"".join(self._content), self._how.level)
        self._out.put(frame)
        self._out.end_sample()
        self._frames.append((len(frame), self._size))
        self._content, self._size = [], 0

    def finish(self, end: bytes) -> Written:
        """Append the tar's last bytes, then the seek table."""
        self._content.append(end)
        self._size += len(end)
        self._close_frame()
        table = seek_table(self._frames)
        written = self._out.finish(table)
        return Written(written.size, written.digest, (*self._frames, (len(table), 0)))
