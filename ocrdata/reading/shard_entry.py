"""The shards of a set as their manifest or their index footers describe them, and their indexes.

Nothing is kept here; `ocrdata.reading.shard_set` bounds what is open and in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xxhash import xxh3_128_digest

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.reading.index_tar import find_index, other_kind
from ocrdata.reading.spec import Listed, Resolved
from ocrdata.shards.index import Index, IndexHeader, index_path, read_header, read_index
from ocrdata.shards.names import is_compressed
from ocrdata.storage.file import read_all, size_of
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a set, as its manifest or index footer describes it. `bytes` and `digest` are
    those of the file on disk."""

    location: Location
    samples: int
    bytes: int
    digest: str
    rows_digest: str

    @property
    def name(self) -> str:
        """The name shown in errors."""
        return str(self.location)


def entries(found: Resolved) -> Iterator[ShardEntry]:
    """The entries of all shards. Raises ShardError if a file does not have the size recorded; that
    of one at a URL is compared when it is first read."""
    for shard in found.files:
        listed = found.listed.get(shard)
        if listed is not None:
            info, source = listed.info, "the manifest"
            entry = ShardEntry(shard, info.samples, info.bytes, info.digest, info.rows_digest)
        else:
            index_file = find_index(shard)
            entry = _entry(shard, read_header(index_file))
            source = f"its index {index_file.name}"
        if shard.scheme:
            yield entry
            continue
        size = size_of(shard)
        if size != entry.bytes:
            kind = TruncatedError if size < entry.bytes else ShardError
            raise kind(
                entry.name,
                other_kind(shard)
                or f"has {size:,} bytes, but {entry.bytes:,} according to {source}",
                remedy=copy_again(shard),
            )
        yield entry


def copy_again(shard: Location) -> str:
    """The remedy for a tar that does not match the index beside it."""
    return (
        "recreate or copy it again; if the tar is right and its index is old, delete "
        f"{index_path(shard).name}"
    )


def identity(entry: ShardEntry) -> bytes:
    """16 bytes that identify a shard's tar and its index, whatever library wrote it."""
    text = f"{entry.samples}\0{entry.bytes}\0{entry.digest}\0{entry.rows_digest}"
    return xxh3_128_digest(text.encode())


def load_index(entry: ShardEntry, listed: Listed | None) -> Index:
    """The verified index of a shard, from its Parquet file. `listed` is the shard's entry in a
    manifest. Raises ShardError, also if it is not the index that the entry describes."""
    if entry.location.scheme:
        assert listed is not None  # from afar a manifest is required
        file = index_path(entry.location)
        index = read_index(file, entry.bytes, fetch_listed(file, listed.info.index_digest))
    else:
        file = find_index(entry.location, listed=listed is not None)
        index = read_index(file, entry.bytes)
    if is_compressed(entry.location.name) != (index.frames is not None):
        raise ShardError(
            entry.name,
            f"its index {file.name} belongs to the same shard in the other format "
            "(.tar or .tar.zst)",
        )
    if _entry(entry.location, index.header) != entry:
        expected = "the one the manifest lists" if listed else "the one read at opening"
        raise ShardError(entry.name, f"its index {file.name} does not match {expected}")
    return index


def fetch_listed(file: Location, digest: str) -> bytes:
    """All bytes of a small file at a URL, which must have this digest. Bytes that are wrong under
    right headers are fetched once more. Raises DigestError, TransportError."""
    for _ in range(2):
        data = read_all(file)
        if digest_of(data) == digest:
            return data
    raise DigestError(
        str(file),
        "checksum mismatch: not the file that the manifest lists",
        remedy="copy the set there again, its manifest last",
    )


def _entry(shard: Location, header: IndexHeader) -> ShardEntry:
    return ShardEntry(
        shard, header.samples, header.shard_size, header.shard_digest, header.rows_digest
    )
