"""Writes a shard: a tar and its index, complete or absent (docs/formats.md).

Each sample is `KEY.json`, then `KEY.png`, `KEY.1.jpg`, ... in the order of the conversation's
images. The extension is the format found in an image's bytes, which are written unchanged.
Buffering and compression are in `ocrdata.shards.output`.
"""

from __future__ import annotations

import os
from types import TracebackType

import xxhash

from ocrdata.errors import DiskError, RejectedRow, UsageError
from ocrdata.images.decode import read_header
from ocrdata.sample import Sample
from ocrdata.shards.frames import MAX_FRAME
from ocrdata.shards.index import IndexMember, IndexRow, index_path, write_index
from ocrdata.shards.index_rows import IndexBuilder
from ocrdata.shards.manifest import ShardInfo, shard_info
from ocrdata.shards.names import (
    KEY_DIGITS,
    image_names,
    is_compressed,
    is_key,
    is_shard,
    make_key,
)
from ocrdata.shards.output import DEFAULT_ZSTD, PlainOutput, ZstdOptions, ZstdOutput
from ocrdata.shards.tar import BLOCK, END, header, padding
from ocrdata.storage.files import create_file, discard, explain_disk, publish, temporary_name
from ocrdata.storage.location import Location, LocationLike

_PADDING = [bytes(size) for size in range(BLOCK)]


def _json(sample: Sample) -> bytes:
    try:
        return sample.to_json()
    except ValueError as exc:  # a lone surrogate in a text, a NaN in the meta
        raise RejectedRow(f"cannot be written as JSON: {exc}"[:200]) from exc


def _check_fits(payloads: list[bytes]) -> None:
    size = sum(BLOCK + len(data) + padding(len(data)) for data in payloads)
    if size > MAX_FRAME:
        raise RejectedRow(
            f"{size:,} bytes in the tar, at most {MAX_FRAME:,} are allowed in a compressed shard"
        )


class ShardWriter:
    """Writes one shard under a temporary name beside its final one.

    A context manager: leaving it normally closes the shard, an exception removes what was written.
    Keys are decimal numbers of nine digits or more, in rising order. A name that ends in .tar.zst
    makes a compressed shard with the given `frames`. Raises DiskError if the disk refuses to write.
    """

    def __init__(self, path: LocationLike, *, frames: ZstdOptions = DEFAULT_ZSTD) -> None:
        self.location = Location.of(path)
        if not is_shard(self.location.name):
            raise UsageError(f"{self.location}: a shard name must end in .tar or .tar.zst")
        self._path = self.location.path
        if not self._path.parent.is_dir():
            raise DiskError(f"{self._path.parent}: no such folder")
        self.info: ShardInfo | None = None
        self._temporary = temporary_name(self._path)
        self._index = IndexBuilder()
        self._offset = 0
        self._last_key = -1
        with explain_disk(self._path):
            self._handle = create_file(self._temporary, 0o644)
        self._compressed = is_compressed(self.location.name)
        plain = PlainOutput(self._handle, self.location)
        self._output = ZstdOutput(plain, frames) if self._compressed else plain

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, key: str, sample: Sample) -> int:
        """Append one sample; returns the bytes of its JSON and images.

        Raises ImageError for an image whose header cannot be read, and RejectedRow for a sample
        that JSON cannot hold or that is too large for a compressed shard; nothing of it is written
        then. Raises UsageError for a key out of order, or if the shard is closed.
        """
        if self._handle < 0:
            raise UsageError(f"{self.location}: the shard is closed")
        if not is_key(key):
            raise UsageError(f"key {key!r}: must be a row number of {KEY_DIGITS} digits or more")
        if (number := int(key)) <= self._last_key:
            raise UsageError(f"key {key!r} must be above the last one, {make_key(self._last_key)}")
        images = [read_header(data) for data in sample.images]
        names = [f"{key}.json", *image_names(key, images)]
        payloads = [_json(sample), *sample.images]
        if self._compressed:
            _check_fits(payloads)
        start = self._offset
        members = list(map(self._member, names, payloads))
        self._output.end_sample()
        self._last_key = number
        size = self._offset - start
        row = IndexRow(key, start, size, members, images, sample.turns, sample.source)
        self._index.add(row, payloads[0])
        return sum(map(len, payloads))

    def _member(self, name: str, data: bytes) -> IndexMember:
        size = len(data)
        head, pad = header(name, size), _PADDING[padding(size)]
        offset = self._offset + len(head)
        self._output.put(head, data, pad)
        self._offset = offset + size + len(pad)
        return IndexMember(name, offset, size, xxhash.xxh3_128_digest(data))

    @property
    def tar_size(self) -> int:
        """Uncompressed bytes of the tar so far; with its end mark once it is closed."""
        return self._offset if self.info is None else self._offset + len(END)

    def close(self) -> ShardInfo:
        """Finish the tar, then its index, and give both their final names. Idempotent."""
        if self.info is not None:
            return self.info
        if self._handle < 0:
            raise UsageError(f"{self.location}: the shard was aborted")
        try:
            index = self._index.finish(self._output.finish(END))
            with explain_disk(self._path):
                os.fsync(self._handle)
                self._close_handle()
                # An older index must never be beside a newer tar.
                index_path(self.location).path.unlink(missing_ok=True)
                publish(self._temporary, self._path)
            write_index(index_path(self.location), index)
        except BaseException:
            self.abort()
            raise
        self.info = shard_info(self.location)
        return self.info

    def abort(self) -> None:
        """Remove everything written of a shard that was not closed."""
        self._close_handle()
        discard(self._temporary)

    def _close_handle(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
