"""The frames of a compressed shard: where they lie, and one frame's bytes, in and out.

Owner of the limits that make a hostile `.tar.zst` harmless, of the frame table, and of the seek
table at the end of our own files (zstd's seekable format, version 0.1.0). A frame is decompressed
whole, its size and its content checksum verified, or not at all. It opens no file and keeps none.
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
"""Content of one of our frames, unless a single sample is larger. From the table of
`benchmarks/compress.py`: twice that saves 6 % of real chats, and one costs twice as much."""

LEVEL = 9
"""Of zstd: on real chats 8 % smaller than level 3; level 15 saves 3 % more for 7 times the time."""

MAX_FRAME = 1 << 24
"""Largest content decompressed or read in one go, in bytes, and largest sample we compress."""

MAX_WINDOW = 1 << 24
"""Largest window of a frame, in bytes: what zstd's levels 1 to 19 use without --long is half."""

MAX_GROWTH = 1000
FREE_GROWTH = 1 << 26
"""What a file may decompress to: MAX_GROWTH times its own size and FREE_GROWTH bytes. Text grows
fivefold, tars of empty files a hundredfold; a bomb 32,768-fold."""

MAGIC = 0xFD2FB528
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
SEEK_TABLE = 0x184D2A5E
SEEKABLE = 0x8F92EAB1
LONGEST_HEADER = 18
_RLE, _RESERVED = 1, 3
_DAMAGED = "the file changed or was damaged after it was written; make or copy it again"

FrameSize = tuple[int, int]
"""(bytes in the file, bytes of content); a frame that holds none of the tar has content 0."""


class FrameTable:
    """Where the frames of a file begin, in the file (`starts`) and in the tar it holds
    (`contents`); both have one entry more, the end."""

    def __init__(self, frames: Sequence[FrameSize]) -> None:
        self.sizes = tuple(frames)
        self.starts = list(itertools.accumulate((size for size, _ in frames), initial=0))
        self.contents = list(itertools.accumulate((size for _, size in frames), initial=0))

    @property
    def tar_size(self) -> int:
        """Bytes of the tar in it."""
        return self.contents[-1]

    def at(self, offset: int) -> int:
        """The number of the frame that holds the tar's byte `offset`, which is in the tar."""
        return bisect.bisect_right(self.contents, offset) - 1

    def content(self, number: int) -> int:
        """Bytes of content of a frame."""
        return self.contents[number + 1] - self.contents[number]


@dataclass(frozen=True)
class FrameHead:
    """What a frame's first bytes say. `content` is None where they do not say it; `payload` is
    where its first block begins; a skippable frame has neither blocks nor content."""

    payload: int
    content: int | None
    checksum: bool
    skippable: int | None = None


def frame_head(shard: str, data: bytes, offset: int) -> FrameHead:
    """Read the header at the begin of `data`, LONGEST_HEADER bytes from `offset` on, or less at
    the end of the file. Raises ShardError for what is no frame, or needs too large a window."""
    magic = int.from_bytes(data[:4], "little")
    if len(data) < 4 or (magic in SKIPPABLE and len(data) < 8):
        raise cut_in_frame(shard, offset)
    if magic in SKIPPABLE:
        return FrameHead(8, 0, False, int.from_bytes(data[4:8], "little"))
    if magic != MAGIC:
        raise ShardError(shard, f"no zstd frame at byte {offset:,}", remedy=_DAMAGED)
    try:
        size = zstandard.frame_header_size(data)
        found = zstandard.get_frame_parameters(data)
    except zstandard.ZstdError as exc:
        if len(data) < LONGEST_HEADER:
            raise cut_in_frame(shard, offset) from exc
        raise ShardError(shard, f"no zstd frame at byte {offset:,}: {exc}") from exc
    if found.dict_id:
        raise ShardError(shard, f"the frame at byte {offset:,} needs a dictionary")
    known = found.content_size != zstandard.CONTENTSIZE_UNKNOWN
    # A single-segment frame has its content as its window, and is never kept beside it.
    if found.window_size > MAX_WINDOW:
        raise ShardError(
            shard,
            f"the frame at byte {offset:,} needs a window of {found.window_size:,} bytes, at most "
            f"{MAX_WINDOW:,} are allowed",
            remedy="compress it again without --long and --ultra",
        )
    return FrameHead(size, found.content_size if known else None, bool(found.has_checksum))


def block_size(shard: str, head: bytes, offset: int) -> tuple[int, bool]:
    """(bytes of a block with its 3 bytes of header, whether it is the frame's last)."""
    word = int.from_bytes(head, "little")
    kind, size = word >> 1 & 3, word >> 3
    if kind == _RESERVED:
        raise ShardError(shard, f"the zstd block at byte {offset:,} is of no known kind")
    return 3 + (1 if kind == _RLE else size), bool(word & 1)


def cut_in_frame(shard: str, offset: int) -> TruncatedError:
    """The error for a file that ends in the frame which begins at `offset`."""
    return TruncatedError(
        shard,
        f"truncated or damaged: the file ends in the zstd frame from byte {offset:,} on",
        remedy="make or copy it again",
    )


def most_content(file_size: int) -> int:
    """Bytes of the largest tar in a compressed shard of `file_size` bytes."""
    return MAX_GROWTH * file_size + FREE_GROWTH


def check_growth(shard: str, file_size: int, tar_size: int) -> None:
    """Raise ShardError where a file decompresses to more than a shard does."""
    if tar_size > most_content(file_size):
        raise ShardError(
            shard,
            f"a compression bomb: its {file_size:,} bytes decompress to {tar_size:,} or more",
            remedy="no shard is like that; do not use this file",
        )


def compress(data: bytes, level: int) -> bytes:
    """One frame, with its content's size and checksum in it. The same bytes give the same frame
    for one version of zstd."""
    options = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return options.compress(data)


class Decompressor:
    """Decompresses whole frames. Safe to share between threads."""

    def __init__(self) -> None:
        # zstandard's objects must not be used by two threads at once; a list's pop is atomic.
        self._idle: list[zstandard.ZstdDecompressor] = []

    def frame(self, shard: str, data: bytes, offset: int, content: int) -> bytes:
        """The content of the frame `data`, which begins at `offset` in its file. Raises
        DigestError where its bytes, its size or its checksum are not as written."""
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
            detail = f"it holds {found:,} bytes, {content:,} are expected"
        except zstandard.ZstdError as exc:
            detail = str(exc).removeprefix("decompression error: ")
        finally:
            self._idle.append(worker)
        raise damaged(shard, offset, detail)


def damaged(shard: str, offset: int, detail: str) -> DigestError:
    """The error for a frame that is not as it was written."""
    return DigestError(
        shard, f"the zstd frame at byte {offset:,} is damaged ({detail})", remedy=_DAMAGED
    )


def seek_table(frames: Sequence[FrameSize]) -> bytes:
    """The skippable frame that ends a file of our own.

    Entries hold no checksums: each frame carries that of its content, the very same number.
    """
    entries = b"".join(struct.pack("<II", *frame) for frame in frames)
    footer = struct.pack("<IBI", len(frames), 0, SEEKABLE)
    return struct.pack("<II", SEEK_TABLE, len(entries) + len(footer)) + entries + footer
