"""The blocks of a shard's index in the cache folder: one file per shard, written when the index is
first loaded, so that later a single block can be read.

    header   magic, rows per block, identity of the index; (offset, size, xxh3_128) of each part;
             xxh3_128 of all this
    parts    the frames of a compressed shard (starts in the file, then of the content, int64), or
             nothing; then each block (`ocrdata.shards.index_block`)

What is read is verified and belongs to the index that was asked for; a file that is missing,
damaged, or of another index is written again. So nothing here needs to be synced, and deleting the
files is safe at any time.
"""

from __future__ import annotations

import itertools
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from xxhash import xxh3_128_digest

from ocrdata.errors import DiskError, TransportError
from ocrdata.reading.shard_entry import ShardEntry, identity, load_index
from ocrdata.reading.spec import Listed
from ocrdata.shards.frames import FrameTable
from ocrdata.shards.index import Index
from ocrdata.shards.index_block import BLOCK_ROWS, IndexBlock, pack_blocks
from ocrdata.storage.cache import CACHE_VARIABLE, scratch_folder
from ocrdata.storage.files import make_folder, open_regular, replace_file
from ocrdata.storage.location import Location
from ocrdata.storage.recently_used import RecentlyUsed
from ocrdata.storage.sealed import digest_of
from ocrdata.storage.small_files import get_small, put_small

_MAGIC = int.from_bytes(b"ocrblk02", "little")
"""A number of this machine, so that a file of another byte order does not match."""

_HEAD, _PART, _DIGEST = struct.Struct("=QQ16s"), struct.Struct("=QQ16s"), 16

FETCHES = 16
"""Indexes fetched from URLs at once."""

INDEX_ROWS = 1 << 17
"""Index rows kept in memory, about 0.4 KB each."""

_log = logging.getLogger(__name__)


class IndexBlocks:
    """The index blocks of a set: from memory, from the cache folder, or from the indexes
    themselves. Safe to share between threads.

    Without a cache folder, each block that is not in memory costs loading a whole index.
    """

    def __init__(self, shards: Sequence[ShardEntry], listed: Mapping[Location, Listed]) -> None:
        self._shards, self._listed = shards, listed
        self._recent: RecentlyUsed[tuple[int, int], IndexBlock] = RecentlyUsed(INDEX_ROWS, len)
        self._folders: dict[str, str] = {}
        self._writable = True

    def get(self, number: int, block: int) -> IndexBlock:
        """A block of the index of shard `number`. Raises ShardError."""
        return self._recent.get((number, block), partial(self._load, number, block))

    def of_shard(self, number: int) -> Iterator[IndexBlock]:
        """All blocks of the index of shard `number`, in order. Raises ShardError."""
        for block in range(blocks_of(self._shards[number].samples)):
            yield self.get(number, block)

    def _load(self, number: int, block: int) -> IndexBlock:
        shard = self._shards[number]
        if shard.location.scheme:
            return self._load_far(number, block)
        path = self._path(shard)
        if path and (found := read_block(path, shard, block)):
            return found
        packed = self._pack(shard)
        if path and self._writable:
            self._write(path, packed.file(identity(shard)))
        self._remember(number, packed, block)
        return packed.block(block)

    def _load_far(self, number: int, block: int) -> IndexBlock:
        """A block of the index of a shard at a URL, whose blocks are kept as one small file."""
        shard = self._shards[number]
        kept = get_small(_small_name(shard))
        if kept is not None and (found := block_in(kept, shard, block)):
            return found
        packed = self._pack(shard)
        put_small(_small_name(shard), packed.file(identity(shard)))
        self._remember(number, packed, block)
        return packed.block(block)

    def _remember(self, number: int, packed: PackedIndex, block: int) -> None:
        """Keep the blocks of an index in memory, but for the one that is about to be."""
        for other in range(len(packed)):
            if other != block:
                self._recent.put((number, other), packed.block(other))

    def _pack(self, shard: ShardEntry) -> PackedIndex:
        """Load a whole index."""
        return PackedIndex.of(shard.name, load_index(shard, self._listed.get(shard.location)))

    def fetch(self, numbers: Sequence[int]) -> None:
        """Fetch and keep the indexes of these shards at URLs, several at once. Raises
        ShardError."""

        def fetch_one(number: int) -> None:
            shard = self._shards[number]
            kept = get_small(_small_name(shard))
            if kept is None or block_in(kept, shard, 0) is None:
                put_small(_small_name(shard), self._pack(shard).file(identity(shard)))

        with ThreadPoolExecutor(FETCHES, "indexes") as pool:
            for _ in pool.map(fetch_one, [at for at in numbers if self._shards[at].samples]):
                pass

    def _path(self, shard: ShardEntry) -> str:
        """The file of a shard's blocks; "" without a cache folder."""
        folder, name = os.path.split(shard.location.text)
        try:
            known = self._folders.get(folder)
            if known is None:
                known = self._folders[folder] = str(scratch_folder(folder))
        except OSError:
            return ""
        return f"{known}/{digest_of(os.fsencode(name))}.blocks"

    def _write(self, path: str, data: bytes) -> None:
        file = Location(path).path
        try:
            make_folder(file.parent)
            replace_file(file, data)
        except (OSError, DiskError) as exc:
            self._writable = False
            _log.warning(
                "%s: index blocks cannot be kept in the cache folder: %s; samples read at random "
                "will cost a millisecond more where a set has over %s; choose another folder with "
                "%s", file.parent, exc, f"{INDEX_ROWS:,}", CACHE_VARIABLE)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackedIndex:
    """An index as the parts of such a file: its frames, then its blocks."""

    parts: Sequence[bytes]

    @staticmethod
    def of(name: str, index: Index) -> PackedIndex:
        """Pack an index. Raises ShardError, naming the index file `name`, if that is impossible."""
        frames = b""
        if index.frames is not None:
            frames = np.array([index.frames.starts, index.frames.contents], np.int64).tobytes()
        return PackedIndex([frames, *pack_blocks(name, index)])

    def block(self, number: int) -> IndexBlock:
        """One of its blocks."""
        return _block(self.parts[0], self.parts[1 + number], number)

    def __len__(self) -> int:
        """Its number of blocks."""
        return len(self.parts) - 1

    def file(self, of: bytes) -> bytes:
        """The whole file; `of` is the identity of the index."""
        first = _HEAD.size + _PART.size * len(self.parts) + _DIGEST
        starts = itertools.accumulate(map(len, self.parts), initial=first)
        table = [
            _PART.pack(start, len(part), xxh3_128_digest(part))
            for start, part in zip(starts, self.parts, strict=False)  # the last start is the end
        ]
        head = _HEAD.pack(_MAGIC, BLOCK_ROWS, of) + b"".join(table)
        return b"".join([head, xxh3_128_digest(head), *self.parts])


def read_block(path: str, shard: ShardEntry, number: int) -> IndexBlock | None:
    """Block `number` of a shard's index, from the file of its blocks; None if that is missing,
    damaged or of another index."""
    try:
        handle = open_regular(path)
    except (OSError, TransportError):
        return None
    try:
        return _read_block(lambda at, size: os.pread(handle, size, at), path, shard, number)
    except OSError as exc:
        _log.warning("%s cannot be read: %s; using the index instead", path, exc.strerror)
        return None
    finally:
        os.close(handle)


def block_in(data: bytes, shard: ShardEntry, number: int) -> IndexBlock | None:
    """The same, from the bytes of the whole file."""
    return _read_block(
        lambda at, size: data[at : at + size], f"the kept index of {shard.name}", shard, number
    )


def _small_name(shard: ShardEntry) -> str:
    return f"{shard.location} index blocks"


def _read_block(
    read: Callable[[int, int], bytes], path: str, shard: ShardEntry, number: int
) -> IndexBlock | None:
    size = _HEAD.size + _PART.size * (1 + blocks_of(shard.samples)) + _DIGEST
    head = read(0, size)
    if head[: _HEAD.size] != _HEAD.pack(_MAGIC, BLOCK_ROWS, identity(shard)):
        return None
    parts = []
    if len(head) == size and xxh3_128_digest(head[:-_DIGEST]) == head[-_DIGEST:]:
        for part in (0, 1 + number):
            start, length, digest = _PART.unpack_from(head, _HEAD.size + _PART.size * part)
            data = read(start, length) if length else b""
            if xxh3_128_digest(data) == digest:
                parts.append(data)
    if len(parts) != 2:
        _log.warning("%s is damaged; using the index instead, and writing it again", path)
        return None
    return _block(parts[0], parts[1], number)


def blocks_of(samples: int) -> int:
    """The number of blocks of so many samples."""
    return -(-samples // BLOCK_ROWS)


def _block(frames: bytes, data: bytes, number: int) -> IndexBlock:
    table = None
    if frames:
        ends = memoryview(frames).cast("q")
        half = len(ends) // 2
        table = FrameTable(ends[:half], ends[half:])
    return IndexBlock(data, number * BLOCK_ROWS, table)
