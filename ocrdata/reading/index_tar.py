"""Indexes a tar in one strict pass: ours or any WebDataset tar, plain or compressed.

The members of a sample are adjacent, and their names are equal up to the first dot of the file
name. Directories, hidden files and names without a dot belong to no sample. A corrupted tar, a
duplicate name, a sample in two places or a link raises ShardError.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import lru_cache

import xxhash

from ocrdata.errors import DiskError, ShardError
from ocrdata.reading.zstd_tar import ZstdTar, scan
from ocrdata.shards.frames import LONGEST_HEADER, frame_head
from ocrdata.shards.index import SUFFIX, Index, index_path, is_outdated, write_index
from ocrdata.shards.index_rows import IndexBuilder, LoadedMember, document_of, make_row
from ocrdata.shards.members import IMAGE_SUFFIXES, TEXT_SUFFIXES, kind_of, samples
from ocrdata.shards.names import PLAIN, is_compressed
from ocrdata.shards.output import Written
from ocrdata.shards.tar import TarMember, Walker
from ocrdata.storage.cache import cached_path
from ocrdata.storage.file import File, digest_of_file, exists, open_file
from ocrdata.storage.files import make_folder
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.locks import only_one
from ocrdata.storage.signatures import TAR, ZSTD, recognise
from ocrdata.tokens.counts import all_counts, check_counts

CHUNK = 1 << 20
"""Bytes read at a time."""

AHEAD = 16 * CHUNK
"""Bytes that are announced before they are read."""

_NEEDED = IMAGE_SUFFIXES.union(TEXT_SUFFIXES, ["json"])

_log = logging.getLogger(__name__)


class HashingReader:
    """Reads a file once, forward only, and computes the digest of the whole file on the way."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._start, self._buffer = 0, b""
        self._hasher = xxhash.xxh3_128()
        self._announced = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, which must not be before the offset of an earlier read."""
        at = offset - self._start
        if at + size > len(self._buffer):
            self._advance(offset, size)
            at = offset - self._start
        return self._buffer[at : at + size]

    def _advance(self, offset: int, size: int) -> None:
        while (end := self._start + len(self._buffer)) < offset:
            self._load(end, 1)
        self._load(offset, size)

    def _load(self, start: int, size: int) -> None:
        """Make the buffer begin at `start`, which is inside it or at its end, and hold at least
        `size` bytes. The buffer is unchanged if the read fails."""
        end = self._start + len(self._buffer)
        keep = end - start
        self._announce(end)
        fresh = self.file.read(end, max(size - keep, min(CHUNK, self.file.size - end)))
        self._hasher.update(fresh)
        self._buffer = self._buffer[len(self._buffer) - keep :] + fresh if keep else fresh
        self._start = start

    def _announce(self, end: int) -> None:
        """Tell the file what will be read after byte `end`."""
        start = self._announced or end
        stop = min(end + AHEAD, self.file.size)
        if stop - start >= CHUNK or (start < stop == self.file.size):
            chunks = range(start, stop, CHUNK)
            self.file.hint([(at, min(CHUNK, stop - at)) for at in chunks])
            self._announced = stop

    def finish(self) -> str:
        """Read the rest; returns the digest of the whole file."""
        while (end := self._start + len(self._buffer)) < self.file.size:
            self._load(end, 1)
        return str(self._hasher.hexdigest())


class ZstdTarReader:
    """The same interface for the tar inside a compressed shard, which caches frames itself."""

    def __init__(self, file: ZstdTar) -> None:
        self.file, self.read = file, file.read

    def finish(self) -> str:
        """The digest of the whole file on disk, that is, of its compressed bytes."""
        return digest_of_file(self.file.file)


Reader = HashingReader | ZstdTarReader


def load_member(reader: Reader, member: TarMember) -> LoadedMember:
    """Read a member and compute its digest. The bytes of a large member are dropped, unless the
    index needs them (images, JSON, captions)."""
    if kind_of(member.name) in _NEEDED or member.size <= CHUNK:
        data = reader.read(member.offset, member.size)
        return LoadedMember(member, xxhash.xxh3_128_digest(data), data)
    hasher = xxhash.xxh3_128()
    for at in range(member.offset, member.offset + member.size, CHUNK):
        hasher.update(reader.read(at, min(CHUNK, member.offset + member.size - at)))
    return LoadedMember(member, hasher.digest(), b"")


def index_tar(tar: LocationLike) -> Index:
    """Read a whole tar and index it. Raises ShardError if any part of it is corrupted, or if it is
    no tar."""
    file = open_file(tar)
    try:
        return _index(file)
    except ShardError as exc:
        if _begins_as_named(file) or not (other := other_kind(file.location)):
            raise
        raise ShardError(file.name, other) from exc


def other_kind(tar: Location) -> str:
    """What a file named like a tar is instead, and the remedy; "" if it is not known as another
    kind of file."""
    expected = ZSTD if is_compressed(tar.name) else TAR
    other = recognise(tar, expected)
    return other and f"is not {expected} but {other}"


def _begins_as_named(file: File) -> bool:
    """Whether a file begins as its name says: as a tar or, compressed, as a zstd frame."""
    try:
        if is_compressed(file.location.name):
            frame_head(file.name, file.read(0, min(file.size, LONGEST_HEADER)), 0)
        else:
            Walker(file.name, file.read, file.size).member(0, file.size)
    except ShardError:
        return False
    return True


def _index(file: File) -> Index:
    table = scan(file) if is_compressed(file.location.name) else None
    reader = HashingReader(file) if table is None else ZstdTarReader(ZstdTar(file, table))
    walker = Walker(file.name, reader.read, reader.file.size)
    builder = IndexBuilder()
    key, loaded = "", list[LoadedMember]()
    for sample_key, member in samples(file.name, walker.all()):
        if sample_key != key and loaded:
            builder.add(make_row(key, loaded), document_of(loaded))
            loaded = []
        key = sample_key
        loaded.append(load_member(reader, member))
    if loaded:
        builder.add(make_row(key, loaded), document_of(loaded))
    digest = reader.finish()
    now = open_file(file.location)
    if (now.size, now.version) != (file.size, file.version):
        raise ShardError(file.name, "the file changed while it was being indexed")
    return builder.finish(Written(file.size, digest, table.sizes if table else ()))


def cached_index_path(tar: LocationLike) -> Location:
    """Where the cache keeps the index of a tar with its present size and time."""
    return cached_path(tar, SUFFIX)


def find_index(tar: LocationLike, *, listed: bool = False) -> Location:
    """The index file of a tar, beside it or in the cache; created by reading the tar if missing,
    or if it was made by older rules for other people's tars.

    `listed` says that a manifest lists the tar: then our writer made it, and its index is right.
    Raises ShardError if the tar is corrupted, DiskError if no index can be written.
    """
    beside = index_path(tar)
    if _is_current(beside, listed=listed):
        return beside
    cached = cached_index_path(tar)
    if _is_current(cached, listed=listed):
        return cached
    try:
        return _make_index(tar, beside)
    except (OSError, DiskError):
        make_folder(cached.folder.path)
        return _make_index(tar, cached)


def _is_current(index: Location, *, listed: bool) -> bool:
    """Whether there is an index, and by the present rules."""
    return exists(index) and (listed or not _is_outdated(index, open_file(index).version))


@lru_cache(maxsize=1 << 14)
def _is_outdated(index: Location, _version: str) -> bool:
    """`is_outdated`, once for each version of an index file."""
    return is_outdated(index)


def _make_index(tar: LocationLike, index: Location) -> Location:
    with only_one(index.path):
        old = exists(index)
        if not _is_current(index, listed=False):
            reason = "an index made by older rules" if old else "no index"
            _log.warning("%s has %s; reading the whole tar once to create it", tar, reason)
            fresh = index_tar(tar)
            write_index(index, fresh)
            _remove_old_counts(tar, fresh.header.rows_digest)
    return index


def _remove_old_counts(tar: LocationLike, rows_digest: str) -> None:
    """Remove token counts of samples as older rules read them; they are counted again."""
    for file, fingerprint in [*all_counts(tar), *all_counts(cached_path(tar, PLAIN))]:
        try:
            check_counts(file, rows_digest=rows_digest, fingerprint=fingerprint)
        except ShardError:
            with suppress(OSError):
                file.path.unlink()
