"""The index of a shard: `NAME-000.index.parquet`, one entry per sample (docs/formats.md).

It depends on the tar alone: `ShardWriter` and `index_tar` make the same index. In memory it is a
few arrays, about 0.4 KB per sample. Offsets are bytes in the tar; `offset` and `size` of a sample
span its headers, payloads and padding, those of a member its payload. For a compressed shard they
are bytes of the tar inside, and the header lists the frames.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.errors import ShardError
from ocrdata.images.decode import ImageInfo
from ocrdata.shards.arrow import (
    SCHEMA,
    Columns,
    Int64,
    explain_parquet,
    fixed_bytes,
    numbers,
    starts,
    strings,
    terminated,
    words,
)
from ocrdata.shards.frames import FrameSize, FrameTable, check_growth
from ocrdata.shards.members import follows_our_layout
from ocrdata.shards.names import beside
from ocrdata.shards.parquet_limits import (
    INDEX_STRINGS,
    check_column_bytes,
    check_row_count,
    read_footer,
)
from ocrdata.shards.tar import BLOCK
from ocrdata.storage.file import read_all
from ocrdata.storage.files import atomic_file
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.sealed import (
    COMPRESSED_VERSION,
    FORMAT,
    VERSION,
    WEIGHTED_VERSION,
    check_seal,
    check_version,
    is_count,
    parse_object,
    seal,
)

SUFFIX = ".index.parquet"

NAMED_KEYS = 16
"""An error lists up to this many keys; of more it names the first and the last."""


@dataclass(frozen=True)
class IndexHeader:
    """The metadata of an index file, readable without its rows.

    `shard_size` and `shard_digest` are those of the shard's file on disk, `rows_digest` that of the
    index's rows. `frames` are those of a compressed shard, in order and without gaps, including the
    seek table; a plain tar has none.
    """

    shard_size: int
    shard_digest: str
    samples: int
    rows_digest: str
    version: str = VERSION
    frames: tuple[FrameSize, ...] = ()

    @property
    def tar_size(self) -> int:
        """Bytes of the tar: the file's size, or the content of all frames."""
        return sum(size for _, size in self.frames) if self.frames else self.shard_size

    def document(self) -> dict[str, Any]:
        """The sealed JSON document in the file's metadata. A plain tar's has no frames."""
        body = {"format": FORMAT, **asdict(self), "tar_size": self.tar_size}
        if not self.frames:
            del body["frames"], body["tar_size"]
        return seal(body)


class IndexMember(NamedTuple):
    """One member of a sample: where its payload is in the tar, and its xxh3_128 (16 bytes)."""

    name: str
    offset: int
    size: int
    digest: bytes


class IndexRow(NamedTuple):
    """The index entry of one sample. `offset` and `size` span headers and padding."""

    key: str
    offset: int
    size: int
    members: Sequence[IndexMember]
    images: Sequence[ImageInfo]
    turns: int
    source: str


class Index:
    """The entries of one index as arrays. What the reader uses of it is in an `IndexBlock`."""

    def __init__(self, table: pa.Table, header: IndexHeader) -> None:
        self.table, self.header = table, header
        self.frames = FrameTable.of(header.frames) if header.frames else None
        self._columns = Columns(table)
        find = self._columns.find
        self.offsets, self.sizes = numbers(find("offset")), numbers(find("size"))
        self.member_starts = starts(find("members"))
        self.member_offsets = numbers(find("members", "offset"))
        self.member_sizes = numbers(find("members", "size"))
        self.digests = fixed_bytes(find("members", "xxh3_128"))

    # Columns that reading payloads does not need are converted on first use.

    @cached_property
    def keys(self) -> list[str]:
        """The key of each sample."""
        return strings(self._columns.find("key"))

    @cached_property
    def names(self) -> list[str]:
        """The name of each member."""
        return strings(self._columns.find("members", "name"))

    @cached_property
    def key_text(self) -> tuple[bytes, Int64]:
        """The keys, see `terminated`."""
        return terminated(self._columns.find("key"))

    @cached_property
    def name_text(self) -> tuple[bytes, Int64]:
        """The names of all members, see `terminated`."""
        return terminated(self._columns.find("members", "name"))

    @cached_property
    def image_starts(self) -> memoryview:
        """Sample n has the images `[image_starts[n], image_starts[n + 1])` of all images."""
        return starts(self._columns.find("images"))

    @cached_property
    def turns(self) -> memoryview:
        """Number of user/assistant pairs of each sample."""
        return numbers(self._columns.find("turns"))

    @cached_property
    def _formats(self) -> list[str]:
        return words(self._columns.find("images", "format"))

    @cached_property
    def widths(self) -> memoryview:
        """The width of each image, in pixels."""
        return numbers(self._columns.find("images", "width"))

    @cached_property
    def heights(self) -> memoryview:
        """The height of each image, in pixels."""
        return numbers(self._columns.find("images", "height"))

    @cached_property
    def _sources(self) -> list[str]:
        return words(self._columns.find("source"))

    def rows_digest(self) -> str:
        """The digest of the rows, see `ocrdata.shards.arrow`."""
        return self._columns.digest()

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, position: int) -> IndexRow:
        """The entry of one sample."""
        first, last = self.image_starts[position], self.image_starts[position + 1]
        return IndexRow(
            key=self.keys[position],
            offset=self.offsets[position],
            size=self.sizes[position],
            members=tuple(self.members(position)),
            images=tuple(
                ImageInfo(self._formats[at], self.widths[at], self.heights[at])
                for at in range(first, last)
            ),
            turns=self.turns[position],
            source=self._sources[position],
        )

    @property
    def sources(self) -> list[str]:
        """The source of each sample."""
        return list(self._sources)

    @property
    def image_formats(self) -> list[str]:
        """The format of each image."""
        return list(self._formats)

    @property
    def long_sides(self) -> Int64:
        """The longer side of each image, in pixels."""
        sides: Int64 = np.asarray([self.widths, self.heights], np.int64).max(axis=0)
        return sides

    def members(self, position: int) -> Iterator[IndexMember]:
        """The members of one sample, in the tar's order."""
        for at in range(self.member_starts[position], self.member_starts[position + 1]):
            digest = self.digests[16 * at : 16 * at + 16]
            yield IndexMember(
                self.names[at], self.member_offsets[at], self.member_sizes[at], digest
            )

    def between(self, start: int, stop: int) -> str:
        """Names the samples in bytes `[start, stop)` of the tar, for an error; "" if there are
        none."""
        return name_samples(self.keys[rows_between(self.offsets, self.sizes, start, stop)])


def rows_between(offsets: Sequence[int], sizes: Sequence[int], start: int, stop: int) -> slice:
    """The rows whose samples overlap bytes `[start, stop)` of the tar."""
    first = bisect.bisect_right(offsets, start) - 1
    if first < 0 or offsets[first] + sizes[first] <= start:
        first += 1
    return slice(first, bisect.bisect_left(offsets, stop))


def name_samples(keys: Sequence[str]) -> str:
    """Names samples for an error; "" if there are none."""
    if len(keys) > NAMED_KEYS:
        return f"samples {keys[0]} to {keys[-1]} ({len(keys):,} of them)"
    return f"sample{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if keys else ""


def index_path(shard: LocationLike) -> Location:
    """The index file of a shard: NAME-000.tar or .tar.zst -> NAME-000.index.parquet."""
    return beside(shard, SUFFIX)


def write_index(path: LocationLike, index: Index) -> None:
    """Write an index atomically. The same rows give the same bytes with the same pyarrow
    version."""
    document = index.header.document()
    table = index.table.replace_schema_metadata({FORMAT: json.dumps(document, sort_keys=True)})
    with atomic_file(Location.of(path).path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=["source", "images.list.element.format"],
            write_page_checksum=True,
        )


def read_header(path: LocationLike) -> IndexHeader:
    """The header of an index file, from its footer alone. Raises ShardError."""
    with _explain(path):
        return _header(path, read_footer(path))


def is_outdated(path: LocationLike) -> bool:
    """Whether an index was made by older rules for other people's tars (docs/formats.md), so that
    it has to be made again. False for a damaged one, which is to be reported."""
    try:
        if read_header(path).version not in (VERSION, COMPRESSED_VERSION):
            return False
        with _explain(path), _opened(path, None) as (file, _):
            table = file.read(columns=["key", "members.list.element.name"], use_threads=False)
        columns = Columns(table)
        names, bounds = columns.find("members", "name").to_pylist(), starts(columns.find("members"))
        return not all(
            follows_our_layout(key, names[bounds[at] : bounds[at + 1]])
            for at, key in enumerate(columns.find("key").to_pylist())
        )
    except ShardError:
        return False


def read_key_range(path: LocationLike, shard_size: int | None = None) -> tuple[str, str] | None:
    """The smallest and the largest key; None for an index without entries. Raises as `read_index`
    does.

    Read from the keys, not from the footer's statistics: pyarrow aborts the process on damaged
    ones."""
    with _explain(path), _opened(path, shard_size) as (file, _):
        keys = file.read(columns=["key"], use_threads=False).column("key").to_pylist()
        return (min(keys), max(keys)) if keys else None


@contextmanager
def _opened(
    path: LocationLike, size: int | None, data: bytes | None = None
) -> Iterator[tuple[pq.ParquetFile, IndexHeader]]:
    """An open index file and its header, checked against what a tar of its size can need."""
    # From one buffer: three times as fast as pyarrow's small reads of a file.
    data = read_all(path) if data is None else data
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        header = _header(path, file.metadata.metadata)
        if not file.schema_arrow.equals(SCHEMA):
            raise ShardError(str(path), "its columns are not those of an index file")
        # A sample takes at least one header block in the tar, whatever the index claims.
        check_row_count(str(path), file.metadata, min(header.samples, header.tar_size // BLOCK))
        tar_size = header.tar_size if size in (None, header.shard_size) else 0
        check_column_bytes(str(path), data, tar_size, INDEX_STRINGS)
        yield file, header


def read_index(
    path: LocationLike, shard_size: int | None = None, data: bytes | None = None
) -> Index:
    """Read and verify an index. Raises ShardError if it is damaged, contradicts itself, or would
    take more memory than a tar of its size can need. `shard_size`, if known, is the size of the
    shard's file; `data` are the bytes of the index file, where they have been read."""
    with _explain(path):
        with _opened(path, shard_size, data) as (file, header):
            table = file.read(use_threads=False)
        index = Index(table, header)
        if index.rows_digest() != header.rows_digest:
            raise ShardError(str(path), "checksum mismatch in its rows")
        _check_bounds(str(path), index)
        return index


def _explain(path: LocationLike) -> AbstractContextManager[None]:
    remedy = "delete it; it is recreated from the tar on the next use"
    return explain_parquet(path, "index", remedy)


def _header(path: LocationLike, metadata: dict[bytes, bytes] | None) -> IndexHeader:
    raw = (metadata or {}).get(FORMAT.encode())
    if raw is None:
        raise ShardError(str(path), "not an index: its metadata does not describe a shard")
    document = parse_object(str(path), raw)
    check_version(str(path), document.get("version"), WEIGHTED_VERSION)
    check_seal(str(path), document)
    names = ("shard_size", "shard_digest", "samples", "rows_digest", "version")
    frames = tuple((int(size), int(content)) for size, content in document.get("frames", ()))
    header = IndexHeader(**{name: document[name] for name in names}, frames=frames)
    if not (is_count(header.samples) and is_count(header.tar_size) and is_count(header.shard_size)):
        raise ShardError(str(path), "sample or byte counts are out of range")
    if frames and not (
        sum(size for size, _ in frames) == header.shard_size
        and header.tar_size == document["tar_size"]
        and all(size > 0 and content >= 0 for size, content in frames)
    ):
        raise ShardError(str(path), "its frames do not add up to the size of the shard")
    check_growth(str(path), header.shard_size, header.tar_size)
    return header


def _check_bounds(name: str, index: Index) -> None:
    """Check that offsets rise, members are inside their samples, and samples inside the tar."""
    end = index.header.tar_size
    offsets, sizes = np.asarray(index.offsets), np.asarray(index.sizes)
    starts, lengths = np.asarray(index.member_offsets), np.asarray(index.member_sizes)
    owner = np.repeat(np.arange(len(index)), np.diff(index.member_starts))
    # Each number alone first, so that no sum below can overflow.
    fine = len(index) == index.header.samples and all(
        bool(((numbers >= 0) & (numbers <= end)).all())
        for numbers in (offsets, sizes, starts, lengths)
    )
    fine = fine and (
        bool((np.append(offsets, end)[1:] >= offsets + sizes).all())
        and bool((starts >= offsets[owner]).all())
        and bool((starts + lengths <= (offsets + sizes)[owner]).all())
        and bool((np.diff(index.member_starts) > 0).all())
    )
    if not fine:
        raise ShardError(name, "the index contradicts itself: offsets or sizes are out of range")
