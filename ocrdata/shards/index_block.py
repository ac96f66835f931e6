"""An index in flat blocks: what the reader works on, and what the cache folder keeps of an index.

A block holds `BLOCK_ROWS` adjacent rows of an index as plain columns, so that one sample of a shard
costs a few microseconds, where the Parquet file has to be decoded whole. Blocks are a cache: the
integers are those of this machine, and no other program reads them. A block has no checksum of its
own; `ocrdata.reading.index_cache` verifies those it keeps on disk.

    19 uint32 start of each column below, in bytes, and the end of the last
    int64     offset, size [rows]; offset, size [members]
    16 bytes  xxh3_128 [members]
    int32     first member, end of its key, end of its names, first image [rows + 1]
    int32     turns, source [rows]; format, width, height [images]
    UTF-8     keys, names, each followed by a NUL; distinct sources, distinct formats, as JSON lists
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from ocrdata.errors import ShardError
from ocrdata.images.decode import ImageInfo
from ocrdata.shards.arrow import Int64
from ocrdata.shards.frames import FrameTable
from ocrdata.shards.index import Index, IndexMember, IndexRow, rows_between

BLOCK_ROWS = 256
"""Rows of a block, fewer in the last one of a shard. Read in order, this many short texts still
fill a read buffer; for one sample at random, 80 KB of a block of charts are read and verified in
about 8 us."""

_HEAD, _PAIR = struct.Struct("=19I"), struct.Struct("=2i")
(_OFFSETS, _SIZES, _MEMBER_OFFSETS, _MEMBER_SIZES, _DIGESTS, _MEMBER_STARTS, _KEY_ENDS, _NAME_ENDS,
 _IMAGE_STARTS, _TURNS, _SOURCE, _FORMAT, _WIDTHS, _HEIGHTS,
 _KEYS, _NAMES, _SOURCES, _FORMATS) = range(18)  # fmt: skip


class IndexBlock:
    """Rows `[first, first + len(self))` of a shard's index. `frames` are those of a compressed
    shard. Positions given to its methods count from `first`."""

    def __init__(self, data: bytes, first: int, frames: FrameTable | None) -> None:
        self.first, self.frames = first, frames
        self._data, self._ends = data, _HEAD.unpack_from(data)

    def __len__(self) -> int:
        return len(self.offsets)

    def _longs(self, column: int) -> memoryview:
        return memoryview(self._data)[self._ends[column] : self._ends[column + 1]].cast("q")

    def _integers(self, column: int) -> memoryview:
        return memoryview(self._data)[self._ends[column] : self._ends[column + 1]].cast("i")

    def _strings(self, column: int) -> list[str]:
        text = self._data[self._ends[column] : self._ends[column + 1]]
        return text.decode().split("\0")[:-1]

    def _list(self, column: int) -> list[str]:
        found: list[str] = json.loads(self._data[self._ends[column] : self._ends[column + 1]])
        return found

    def _text(self, ends: int, column: int, at: int) -> str:
        """The strings of one row, without decoding the others."""
        start, stop = _PAIR.unpack_from(self._data, self._ends[ends] + 4 * at)
        base = self._ends[column]
        return self._data[base + start : base + stop - 1].decode()

    @cached_property
    def offsets(self) -> memoryview:
        """Where each sample starts in the tar."""
        return self._longs(_OFFSETS)

    @cached_property
    def sizes(self) -> memoryview:
        """Bytes of each sample in the tar, with headers and padding."""
        return self._longs(_SIZES)

    @cached_property
    def member_offsets(self) -> memoryview:
        """Where the payload of each member starts in the tar."""
        return self._longs(_MEMBER_OFFSETS)

    @cached_property
    def member_sizes(self) -> memoryview:
        """Payload bytes of each member."""
        return self._longs(_MEMBER_SIZES)

    @cached_property
    def member_starts(self) -> memoryview:
        """The first member of each sample, and the number of all members."""
        return self._integers(_MEMBER_STARTS)

    @cached_property
    def digests(self) -> bytes:
        """The xxh3_128 of all members, one after the other."""
        return self._data[self._ends[_DIGESTS] : self._ends[_MEMBER_STARTS]]

    @cached_property
    def keys(self) -> list[str]:
        """The key of each sample."""
        return self._strings(_KEYS)

    @cached_property
    def names(self) -> list[str]:
        """The name of each member."""
        return self._strings(_NAMES)

    @cached_property
    def _sources(self) -> list[str]:
        return self._list(_SOURCES)

    @cached_property
    def _formats(self) -> list[str]:
        return self._list(_FORMATS)

    def key(self, at: int) -> str:
        """The key of one sample."""
        return self._text(_KEY_ENDS, _KEYS, at)

    def names_of(self, at: int) -> list[str]:
        """The names of one sample's members."""
        return self._text(_NAME_ENDS, _NAMES, at).split("\0")

    def members(self, at: int) -> list[IndexMember]:
        """The members of one sample, in the tar's order."""
        data, start = self._data, self.member_starts[at]
        digest = self._ends[_DIGESTS] + 16 * start
        offsets, sizes, found = self.member_offsets, self.member_sizes, []
        for n, name in enumerate(self.names_of(at), start):
            found.append(IndexMember(name, offsets[n], sizes[n], data[digest : digest + 16]))
            digest += 16
        return found

    def row(self, at: int) -> IndexRow:
        """The entry of one sample."""
        first, last = self._integers(_IMAGE_STARTS)[at : at + 2]
        formats, widths, heights = (
            self._integers(column)[first:last] for column in (_FORMAT, _WIDTHS, _HEIGHTS)
        )
        return IndexRow(
            key=self.key(at),
            offset=self.offsets[at],
            size=self.sizes[at],
            members=tuple(self.members(at)),
            images=tuple(
                ImageInfo(self._formats[kind], width, height)
                for kind, width, height in zip(formats, widths, heights, strict=True)
            ),
            turns=self._integers(_TURNS)[at],
            source=self._sources[self._integers(_SOURCE)[at]],
        )

    @property
    def payload_sizes(self) -> Int64:
        """Payload bytes of each sample: the sum over its members."""
        ends = np.concatenate([[0], np.cumsum(np.asarray(self.member_sizes), dtype=np.int64)])
        sizes: Int64 = np.diff(ends[np.asarray(self.member_starts, np.int64)])
        return sizes

    @property
    def image_counts(self) -> Int64:
        """Number of images of each sample."""
        starts: Int64 = np.asarray(self._integers(_IMAGE_STARTS), np.int64)
        return starts[1:] - starts[:-1]

    def keys_between(self, start: int, stop: int) -> list[str]:
        """The keys of the samples in bytes `[start, stop)` of the tar."""
        return self.keys[rows_between(self.offsets, self.sizes, start, stop)]


def pack_blocks(name: str, index: Index) -> Iterator[bytes]:
    """The blocks of an index, in order. Raises ShardError, naming `name`, if a key or member name
    contains a NUL: no tar has such a name."""
    (keys, key_starts), (names, name_starts) = index.key_text, index.name_text
    if keys.count(b"\0") != len(index) or names.count(b"\0") != len(index.member_offsets):
        raise ShardError(name, "a key or member name contains a NUL")
    sources, formats = index.sources, index.image_formats
    for first in range(0, len(index), BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, len(index)))
        row_ends = slice(first, rows.stop + 1)
        member_starts = np.asarray(index.member_starts)[row_ends]
        image_starts = np.asarray(index.image_starts)[row_ends]
        members, images = (slice(ends[0], ends[-1]) for ends in (member_starts, image_starts))
        own_keys, own_names = key_starts[row_ends], name_starts[member_starts]
        own_sources, source = _distinct(sources[rows])
        own_formats, form = _distinct(formats[images])
        texts = [
            keys[own_keys[0] : own_keys[-1]],
            names[own_names[0] : own_names[-1]],
            *(json.dumps(strings).encode() for strings in (own_sources, own_formats)),
        ]
        columns = (
            *(np.asarray(column).astype(np.int64).tobytes() for column in (
                index.offsets[rows], index.sizes[rows],
                index.member_offsets[members], index.member_sizes[members],
            )),
            index.digests[16 * members.start : 16 * members.stop],
            *(np.asarray(column).astype(np.int32).tobytes() for column in (
                *(ends - ends[0] for ends in (member_starts, own_keys, own_names, image_starts)),
                index.turns[rows], source, form, index.widths[images], index.heights[images],
            )),
            *texts,
        )  # fmt: skip
        ends = itertools.accumulate(map(len, columns), initial=_HEAD.size)
        yield b"".join((_HEAD.pack(*ends), *columns))


def _distinct(strings: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct strings, and the number of each string among them."""
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(string, len(numbers)) for string in strings]
    return list(numbers), found
