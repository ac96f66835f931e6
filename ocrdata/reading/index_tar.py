"""From a tar to its index: one strict pass over any tar, ours or anybody's WebDataset, plain or
compressed.

Members of one sample are adjacent and share the part of their name before the first dot of the
file name. Directories, hidden files and names without a dot belong to no sample. What makes a tar
unfit (damage, a name twice, a sample in two places, links) is a ShardError.
"""

from __future__ import annotations

import logging

import xxhash

from ocrdata.errors import DiskError, ShardError
from ocrdata.reading.zstd_tar import ZstdTar, scan
from ocrdata.shards.index import SUFFIX, Index, index_path, write_index
from ocrdata.shards.index_rows import IndexBuilder, LoadedMember, make_row
from ocrdata.shards.members import IMAGE_SUFFIXES, kind_of, samples
from ocrdata.shards.names import is_compressed
from ocrdata.shards.output import Written
from ocrdata.shards.tar import TarMember, Walker
from ocrdata.storage.cache import cached_path
from ocrdata.storage.file import File, digest_of_file, exists, open_file
from ocrdata.storage.files import make_folder
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.locks import only_one

CHUNK = 1 << 20


class HashingReader:
    """Reads a file forward only, once, with the digest of all that went by."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._start, self._window = 0, b""
        self._hasher = xxhash.xxh3_128()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, which never lies before that of an earlier read."""
        at = offset - self._start
        if at + size > len(self._window):
            self._advance(offset, size)
            at = offset - self._start
        return self._window[at : at + size]

    def _advance(self, offset: int, size: int) -> None:
        while (end := self._start + len(self._window)) < offset:
            self._load(end, 1)
        self._load(offset, size)

    def _load(self, start: int, size: int) -> None:
        """Move the window to `start`, in it or at its end, with at least `size` bytes from there;
        the window is as it was where the file does not hold them."""
        end = self._start + len(self._window)
        keep = end - start
        fresh = self.file.read(end, max(size - keep, min(CHUNK, self.file.size - end)))
        self._hasher.update(fresh)
        self._window = self._window[len(self._window) - keep :] + fresh if keep else fresh
        self._start = start

    def finish(self) -> str:
        """Read what is left; the digest of the whole file."""
        while (end := self._start + len(self._window)) < self.file.size:
            self._load(end, 1)
        return str(self._hasher.hexdigest())


class ZstdTarReader:
    """Reads the tar in a compressed shard; what was read last is kept by the file itself."""

    def __init__(self, file: ZstdTar) -> None:
        self.file, self.read = file, file.read

    def finish(self) -> str:
        """The digest of the whole file, as it lies on the disk."""
        return digest_of_file(self.file.file)


Reader = HashingReader | ZstdTarReader


def load_member(reader: Reader, member: TarMember) -> LoadedMember:
    """Read and digest a member; its bytes are kept where they say something for the index."""
    kind = kind_of(member.name)
    if kind in IMAGE_SUFFIXES or kind == "json" or member.size <= CHUNK:
        data = reader.read(member.offset, member.size)
        return LoadedMember(member, xxhash.xxh3_128_digest(data), data)
    hasher = xxhash.xxh3_128()
    for at in range(member.offset, member.offset + member.size, CHUNK):
        hasher.update(reader.read(at, min(CHUNK, member.offset + member.size - at)))
    return LoadedMember(member, hasher.digest(), b"")


def index_tar(path: LocationLike) -> Index:
    """Read a whole tar and index it. Raises ShardError where it is not sound to its last byte."""
    file = open_file(path)
    table = scan(file) if is_compressed(file.location.name) else None
    reader = HashingReader(file) if table is None else ZstdTarReader(ZstdTar(file, table))
    walker = Walker(file.name, reader.read, reader.file.size)
    builder = IndexBuilder()
    key, loaded = "", list[LoadedMember]()
    for owner, member in samples(file.name, walker.all()):
        if owner != key and loaded:
            builder.add(make_row(key, loaded))
            loaded = []
        key = owner
        loaded.append(load_member(reader, member))
    if loaded:
        builder.add(make_row(key, loaded))
    digest = reader.finish()
    now = open_file(path)
    if (now.size, now.version) != (file.size, file.version):
        raise ShardError(file.name, "the file changed while it was being indexed")
    return builder.finish(Written(file.size, digest, table.sizes if table else ()))


_log = logging.getLogger(__name__)


def cached_index_path(tar: LocationLike) -> Location:
    """The cache's name for the index of a tar as it is now."""
    return cached_path(tar, SUFFIX)


def find_index(tar: LocationLike) -> Location:
    """The index file of a tar; made now, by reading the tar whole once, where there is none.

    Raises ShardError where the tar is not sound, DiskError where no index can be written.
    """
    beside = index_path(tar)
    if exists(beside):
        return beside
    cached = cached_index_path(tar)
    if exists(cached):
        return cached
    try:
        return _make_index(tar, beside)
    except (OSError, DiskError):
        make_folder(cached.folder.path)
        return _make_index(tar, cached)


def _make_index(tar: LocationLike, index: Location) -> Location:
    with only_one(index.path):
        if not exists(index):
            _log.warning("%s has no index; reading it whole, once, to make one", tar)
            write_index(index, index_tar(tar))
    return index
