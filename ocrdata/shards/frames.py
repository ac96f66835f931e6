"""The zstd frames of a compressed shard: parsing their headers, compressing and decompressing one.

Also the limits that make a malicious `.tar.zst` harmless, the table of frames, and the seek table
at the end of our own files (zstd's seekable format 0.1.0). A frame is decompressed whole, and its
size and content checksum are verified. No file is opened here.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from ocrdata.errors import DigestError, ShardError, TruncatedError

FRAME_BYTES = 1 << 17
"""Content of one of our frames in bytes, unless a single sample is larger. Measured by
`benchmarks/compress.py` on real chats: twice as much saves 6 %, but doubles the cost of one
sample."""

LEVEL = 9
"""zstd's level. On real chats 8 % smaller than level 3; level 15 saves 3 % more in 7 times the
time."""

MAX_FRAME = 1 << 24
"""Largest content that is decompressed or read at once, and largest sample that is compressed, in
bytes."""

MAX_WINDOW = 1 << 24
"""Largest compression window of a frame, in bytes: twice what zstd uses without --long and
--ultra."""

MAX_GROWTH = 1000
FREE_GROWTH = 1 << 26
"""A file may decompress to MAX_GROWTH times its own size plus FREE_GROWTH bytes. Text grows by
5, tars of empty files by 100, a decompression bomb by 32,768."""

MAGIC = 0xFD2FB528
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
SEEK_TABLE = 0x184D2A5E
SEEKABLE = 0x8F92EAB1
LONGEST_HEADER = 18
_RLE, _RESERVED = 1, 3
_DAMAGED = "the file was modified or corrupted after it was written; recreate it, or copy it again"

FrameSize = tuple[int, int]
"""(bytes in the file, bytes of content); content is 0 for a frame without any of the tar."""


class FrameTable:
    """Where each frame begins, in the file (`starts`) and in the tar inside (`contents`); both
    end with one extra entry, the end of the last frame."""

    def __init__(self, starts: Sequence[int], contents: Sequence[int]) -> None:
        self.starts, self.contents = starts, contents

    @staticmethod
    def of(frames: Sequence[FrameSize]) -> FrameTable:
        """The table of frames of these sizes."""
        return FrameTable(
            list(itertools.accumulate((size for size, _ in frames), initial=0)),
            list(itertools.accumulate((size for _, size in frames), initial=0)),
        )

    @property
    def sizes(self) -> tuple[FrameSize, ...]:
        """The size of each frame, in the file and of its content."""
        return tuple(
            (self.starts[at + 1] - self.starts[at], self.content(at))
            for at in range(len(self.starts) - 1)
        )

    @property
    def tar_size(self) -> int:
        """Bytes of the tar inside."""
        return self.contents[-1]

    def at(self, offset: int) -> int:
        """The number of the frame that holds byte `offset` of the tar; `offset` must be below
        `tar_size`."""
        return bisect.bisect_right(self.contents, offset) - 1

    def content(self, number: int) -> int:
        """Content of a frame in bytes."""
        return self.contents[number + 1] - self.contents[number]


@dataclass(frozen=True)
class FrameHead:
    """A frame's header. `payload` is the offset of its first block in the frame; `content` is None
    if the header does not give it. A skippable frame has no blocks and content 0;
    `skippable` is its size."""

    payload: int
    content: int | None
    checksum: bool
    skippable: int | None = None


def frame_head(shard: str, data: bytes, offset: int) -> FrameHead:
    """Parse the header at the start of `data`: LONGEST_HEADER bytes from byte `offset` of the
    file, fewer at its end. Raises ShardError if it is not a zstd frame, or needs too large a
    window."""
    magic = int.from_bytes(data[:4], "little")
    if len(data) < 4 or (magic in SKIPPABLE and len(data) < 8):
        raise cut_in_frame(shard, offset)
    if magic in SKIPPABLE:
        return FrameHead(8, 0, False, int.from_bytes(data[4:8], "little"))
    if magic != MAGIC:
        raise ShardError(shard, f"not a zstd frame at byte {offset:,}", remedy=_DAMAGED)
    try:
        size = zstandard.frame_header_size(data)
        found = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as exc:
        if len(data) < LONGEST_HEADER:
            raise cut_in_frame(shard, offset) from exc
        raise ShardError(shard, f"invalid zstd frame at byte {offset:,}: {exc}") from exc
    if found.dict_id:
        raise ShardError(shard, f"the frame at byte {offset:,} needs a dictionary")
    known = found.content_size != zstandard.CONTENTSIZE_UNKNOWN
    # The window of a single-segment frame is its content.
    if found.window_size > MAX_WINDOW:
        raise ShardError(
            shard,
            f"the frame at byte {offset:,} needs a window of {found.window_size:,} bytes, at most "
            f"{MAX_WINDOW:,} are allowed",
            remedy="compress it again without --long and --ultra",
        )
    return FrameHead(size, found.content_size if known else None, bool(found.has_checksum))


def block_size(shard: str, head: bytes, offset: int) -> tuple[int, bool]:
    """(bytes of a block with its 3-byte header, whether it is the last of its frame)."""
    word = int.from_bytes(head, "little")
    kind, size = word >> 1 & 3, word >> 3
    if kind == _RESERVED:
        raise ShardError(shard, f"the zstd block at byte {offset:,} is of an unknown type")
    return 3 + (1 if kind == _RLE else size), bool(word & 1)


def cut_in_frame(shard: str, offset: int) -> TruncatedError:
    """The error for a file that ends inside the frame at `offset`."""
    return TruncatedError(
        shard,
        f"truncated or damaged: the file ends inside the zstd frame at byte {offset:,}",
        remedy="recreate the shard, or copy it again",
    )


def most_content(file_size: int) -> int:
    """The largest tar that a compressed shard of `file_size` bytes may hold, in bytes."""
    return MAX_GROWTH * file_size + FREE_GROWTH


def check_growth(shard: str, file_size: int, tar_size: int) -> None:
    """Raise ShardError if a file decompresses to more than `most_content`."""
    if tar_size > most_content(file_size):
        raise ShardError(
            shard,
            f"decompression bomb: {file_size:,} bytes decompress to {tar_size:,} or more",
            remedy="no legitimate shard compresses this well; treat the file as malicious",
        )


def compress(data: bytes, level: int) -> bytes:
    """One frame with content size and content checksum. The same bytes give the same frame with the
    same version of zstd."""
    options = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return options.compress(data)


class Decompressor:
    """Decompresses whole frames. Safe to share between threads."""

    def __init__(self) -> None:
        # zstandard's objects must not be used by two threads at once; a list's pop is atomic.
        self._idle: list[zstandard.ZstdDecompressor] = []

    def frame(self, shard: str, data: bytes, offset: int, content: int) -> bytes:
        """The content of the frame `data`, which is at byte `offset` of its file. Raises
        DigestError if it cannot be decompressed, or if its size or checksum does not match."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        try:
            found = zstandard.frame_content_size(data)
            if found in (-1, content):
                result = worker.decompress(data, max_output_size=content, allow_extra_data=False)
                if len(result) == content:
                    return result
                found = len(result)
            detail = f"{found:,} bytes of content, expected {content:,}"
        except zstandard.ZstdError as exc:
            detail = str(exc).removeprefix("decompression error: ")
        finally:
            self._idle.append(worker)
        raise damaged(shard, offset, detail)


def damaged(shard: str, offset: int, detail: str) -> DigestError:
    """The error for a corrupted frame."""
    return DigestError(
        shard, f"the zstd frame at byte {offset:,} is damaged ({detail})", remedy=_DAMAGED
    )


def seek_table(frames: Sequence[FrameSize]) -> bytes:
    """The skippable frame at the end of our own files.

    Its entries hold no checksums, since each frame has that of its content.
    """
    entries = b"".join(struct.pack("<II", *frame) for frame in frames)
    footer = struct.pack("<IBI", len(frames), 0, SEEKABLE)
    return struct.pack("<II", SEEK_TABLE, len(entries) + len(footer)) + entries + footer
