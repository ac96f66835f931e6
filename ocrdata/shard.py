"""Writes shards: a tar and its index, complete or absent.

Owner of the layout of our own tars (DESIGN section 5): `KEY.json` first, then `KEY.png`,
`KEY.1.jpg`, ... in the order of the conversation's images, named by the format found in their
bytes. It never looks at pixels and never changes a byte of an image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import xxhash

from ocrdata.errors import DiskError, ShardError, UsageError
from ocrdata.files import explain_disk, publish, temporary_name
from ocrdata.format import digest_of
from ocrdata.image import read_header
from ocrdata.index import IndexMember, IndexRow, index_path, write_index
from ocrdata.index import read_header as read_index_header
from ocrdata.indexing import IndexBuilder
from ocrdata.sample import Sample
from ocrdata.tar import END, header, padding

KEY_DIGITS = 9
_FLUSH_BYTES = 1 << 20
_FLUSH_BUFFERS = 512  # below IOV_MAX, 1,024 on Linux


@dataclass(frozen=True)
class ShardInfo:
    """What a manifest says of one shard. `file` is a name without folder, `bytes` the tar's size;
    digests are of the tar, of its index file, and of the index's rows."""

    file: str
    samples: int
    bytes: int
    digest: str
    index_digest: str
    rows_digest: str


def make_key(row: int) -> str:
    """The key of an origin row: 3127 -> '000003127'."""
    return f"{row:0{KEY_DIGITS}d}"


class ShardWriter:
    """Writes one shard under a temporary name beside its final one.

    A context manager: a normal end closes it, an exception removes what was written. Keys are
    decimal, of nine digits or more, and rise. The disk's refusals are DiskErrors.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".tar":
            raise UsageError(f"{path}: a shard's name ends in .tar")
        if not path.parent.is_dir():
            raise DiskError(f"{path.parent}: no such folder")
        self.path = path
        self.info: ShardInfo | None = None
        self._temporary = temporary_name(path)
        self._index = IndexBuilder()
        self._hasher = xxhash.xxh3_128()
        self._offset = 0
        self._last_key = -1
        self._buffers: list[bytes] = []
        self._buffered = 0
        with explain_disk(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._handle = os.open(self._temporary, flags, 0o644)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, key: str, sample: Sample) -> None:
        """Append one sample. Raises ImageError for bytes that are no image; then nothing of the
        sample was written."""
        if self._handle < 0:
            raise UsageError(f"{self.path}: the shard is closed")
        if not (key.isascii() and key.isdigit() and len(key) >= KEY_DIGITS):
            raise UsageError(f"key {key!r}: a key is a row number of {KEY_DIGITS} digits or more")
        if int(key) <= self._last_key:
            raise UsageError(f"key {key!r} does not follow {make_key(self._last_key)}: keys rise")
        images = tuple(read_header(data) for data in sample.images)
        payloads = [(f"{key}.json", sample.to_json())]
        for number, (info, data) in enumerate(zip(images, sample.images, strict=True)):
            middle = f".{number}" if number else ""
            payloads.append((f"{key}{middle}.{info.format}", data))
        start = self._offset
        members = tuple(self._member(name, data) for name, data in payloads)
        self._last_key = int(key)
        self._index.add(
            IndexRow(
                key=key,
                offset=start,
                size=self._offset - start,
                members=members,
                images=images,
                turns=sample.turns,
                source=sample.source,
            )
        )
        if self._buffered >= _FLUSH_BYTES or len(self._buffers) >= _FLUSH_BUFFERS:
            self._flush()

    def _member(self, name: str, data: bytes) -> IndexMember:
        head = header(name, len(data))
        pad = bytes(padding(len(data)))
        offset = self._offset + len(head)
        self._put(head)
        self._put(data)
        self._put(pad)
        return IndexMember(name, offset, len(data), xxhash.xxh3_128_digest(data))

    def _put(self, data: bytes) -> None:
        if data:
            self._buffers.append(data)
            self._buffered += len(data)
            self._offset += len(data)

    def _flush(self) -> None:
        for data in self._buffers:
            self._hasher.update(data)
        buffers = self._buffers
        with explain_disk(self.path):
            while buffers:
                written = os.writev(self._handle, buffers[:_FLUSH_BUFFERS])
                buffers = _rest(buffers, written)
        self._buffers, self._buffered = [], 0

    def close(self) -> ShardInfo:
        """Finish the tar, then its index, and give both their final names."""
        if self.info is not None:
            return self.info
        if self._handle < 0:
            raise UsageError(f"{self.path}: the shard was given up")
        try:
            self._put(END)
            self._flush()
            index = self._index.finish(self._offset, str(self._hasher.hexdigest()))
            with explain_disk(self.path):
                os.fsync(self._handle)
                self._close_handle()
                # An older index must never stand beside a newer tar.
                index_path(self.path).unlink(missing_ok=True)
                publish(self._temporary, self.path)
            write_index(index_path(self.path), index)
        except BaseException:
            self.abort()
            raise
        self.info = shard_info(self.path)
        return self.info

    def abort(self) -> None:
        """Give up: nothing is left of a shard that was not closed."""
        self._close_handle()
        self._temporary.unlink(missing_ok=True)

    def _close_handle(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def _rest(buffers: list[bytes], written: int) -> list[bytes]:
    """What of `buffers` is left when their first `written` bytes are gone."""
    for number, data in enumerate(buffers):
        if written < len(data):
            return [data[written:], *buffers[number + 1 :]]
        written -= len(data)
    return []


def shard_info(path: Path) -> ShardInfo:
    """The manifest's entry for a finished shard, from its index; the tar's payload is not read.

    Raises ShardError where the index is missing, damaged, or not that of a tar of this size.
    """
    file = index_path(path)
    for needed in (path, file):
        if not needed.is_file():
            raise ShardError(str(needed), "the file is missing")
    found, size = read_index_header(file), path.stat().st_size
    if size != found.shard_size:
        raise ShardError(
            str(path), f"has {size:,} bytes, its index was made of {found.shard_size:,}"
        )
    return ShardInfo(
        file=path.name,
        samples=found.samples,
        bytes=size,
        digest=found.shard_digest,
        index_digest=digest_of(file.read_bytes()),
        rows_digest=found.rows_digest,
    )
