"""The shards behind a view of `ocrdata.reading.view`: open files, indexes and verified bytes.

Bounds what is kept open and in memory. Sample counts come from the manifest or from index footers;
the rows of an index are loaded when a sample of its shard is first read.
"""

from __future__ import annotations

import bisect
import itertools
import shlex
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xxhash import xxh3_128_digest

from ocrdata.errors import DigestError, ShardError, TransportError, TruncatedError
from ocrdata.reading.index_tar import find_index, other_kind
from ocrdata.reading.spec import Resolved
from ocrdata.reading.zstd_tar import FrameCache, ZstdTar
from ocrdata.shards.index import (
    Index,
    IndexHeader,
    index_path,
    read_header,
    read_index,
    read_key_range,
)
from ocrdata.shards.members import IMAGE_SUFFIXES, kind_of
from ocrdata.shards.names import is_compressed, set_title, shard_number
from ocrdata.storage.file import File, FilePool, size_of
from ocrdata.storage.location import Location

INDEX_ROWS = 1 << 17
"""Index rows kept in memory, about 0.4 KB each; the index used last is always kept."""

Members = dict[str, bytes]


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


class ShardSet:
    """All samples of the shards a spec names, by position. Safe to share between threads."""

    def __init__(self, found: Resolved, *, verify: bool) -> None:
        self.base, self.verify = found.base, verify
        self._listed, self.manifest = found.listed, found.manifest
        self.shards = tuple(_entries(found))
        self.starts = tuple(itertools.accumulate((s.samples for s in self.shards), initial=0))
        self._files, self._frames = FilePool(), FrameCache()
        self._indexes: OrderedDict[int, Index] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()
        self._key_ranges: list[tuple[str, str] | None] = []

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def name(self) -> str:
        """The name of the set, such as 'chartqa'."""
        return self.manifest.name if self.manifest else set_title(self.shards[0].location)

    def locate(self, position: int) -> tuple[int, int]:
        """A position in the set -> (shard number, position in that shard)."""
        shard = bisect.bisect_right(self.starts, position) - 1
        return shard, position - self.starts[shard]

    def index(self, number: int) -> Index:
        """The index of a shard, from memory or disk. Raises ShardError."""
        with self._lock:
            index = self._indexes.get(number)
            if index is not None:
                self._indexes.move_to_end(number)
                return index
        index = self._load(number)
        with self._lock:
            if number not in self._indexes:
                self._indexes[number] = index
                self._rows += len(index)
            while self._rows > INDEX_ROWS and len(self._indexes) > 1:
                self._rows -= len(self._indexes.popitem(last=False)[1])
        return index

    def _load(self, number: int) -> Index:
        shard = self.shards[number]
        file = self._find_index(shard)
        index = read_index(file, shard.bytes)
        if is_compressed(shard.location.name) != (index.frames is not None):
            raise ShardError(
                shard.name,
                f"its index {file.name} belongs to the same shard in the other format "
                "(.tar or .tar.zst)",
            )
        if _entry(shard.location, index.header) != shard:
            listed = shard.location in self._listed
            expected = "the one the manifest lists" if listed else "the one read at opening"
            raise ShardError(shard.name, f"its index {file.name} does not match {expected}")
        return index

    def _find_index(self, shard: ShardEntry) -> Location:
        return find_index(shard.location, listed=shard.location in self._listed)

    def find(self, key: str) -> list[int]:
        """The positions of the samples with this key, in ascending order."""
        if not self._key_ranges:
            self._key_ranges = [
                read_key_range(self._find_index(shard), shard.bytes) for shard in self.shards
            ]
        ranges = enumerate(self._key_ranges)
        likely = [number for number, found in ranges if found and found[0] <= key <= found[1]]
        # No digest covers the key ranges, so they only decide which shards are searched first.
        return self._find_in(key, likely) or self._find_in(key, range(len(self.shards)))

    def _find_in(self, key: str, numbers: Iterable[int]) -> list[int]:
        found = ((number, self.index(number).find(key)) for number in numbers)
        return [self.starts[number] + local for number, local in found if local is not None]

    def members(self, number: int, local: int) -> Members:
        """The verified members of one sample, in the tar's order. Raises ShardError."""
        index = self.index(number)
        starts = index.member_starts
        return self._read(number, index, local, range(starts[local], starts[local + 1]))

    def text_members(self, number: int, local: int) -> Members:
        """Like `members`, but with b"" for each image, whose bytes are not read."""
        index = self.index(number)
        starts, names = index.member_starts, index.names
        members = range(starts[local], starts[local + 1])
        texts = [at for at in members if kind_of(names[at]) not in IMAGE_SUFFIXES]
        return dict.fromkeys([names[at] for at in members], b"") | self._read(
            number, index, local, texts
        )

    def _read(self, number: int, index: Index, local: int, members: Sequence[int]) -> Members:
        """The verified bytes of these members of sample `local`, in one call to the file."""
        names, digests = index.names, index.digests
        offsets, sizes = index.member_offsets, index.member_sizes
        try:
            read = self.tar(number, index).read_ranges([(offsets[at], sizes[at]) for at in members])
        except ShardError:  # read them one by one, so that the error names the member
            read = [self._read_member(number, index, local, at) for at in members]
        found: Members = {}
        for at, data in zip(members, read, strict=True):
            if self.verify and xxh3_128_digest(data) != digests[16 * at : 16 * at + 16]:
                raise self.mismatch_error(number, index, local, at)
            found[names[at]] = data
        return found

    def _read_member(self, number: int, index: Index, local: int, at: int) -> bytes:
        """The bytes of member `at` of the index, which belongs to sample `local`."""
        try:
            return self.tar(number, index).read(index.member_offsets[at], index.member_sizes[at])
        except ShardError as exc:
            place = {"key": index.keys[local], "member": index.names[at]}
            remedy = self.remedy(number) if isinstance(exc, DigestError) else exc.remedy
            raise type(exc)(exc.shard, exc.detail, remedy=remedy, **place) from exc

    def tar(self, number: int, index: Index) -> File:
        """A shard's tar, compressed on disk or not."""
        file = self._file(number)
        if index.frames is None:
            return file
        return ZstdTar(file, index.frames, cache=self._frames, samples=index.between)

    def _file(self, number: int) -> File:
        shard = self.shards[number]
        file = self._files.get(shard.location)
        if file.size != shard.bytes:
            # A TransportError, because this is no reason to skip single samples.
            raise TransportError(
                shard.name,
                f"has {file.size:,} bytes, but had {shard.bytes:,} when the set was opened",
                remedy="it was replaced meanwhile; restore the original, or open the set again",
            )
        return file

    def mismatch_error(self, number: int, index: Index, local: int, at: int) -> DigestError:
        """The error for member `at` of the index, of sample `local`, with a wrong checksum."""
        return DigestError(
            self.shards[number].name,
            f"checksum mismatch at byte {index.member_offsets[at]:,}",
            key=index.keys[local],
            member=index.names[at],
            remedy=self.remedy(number),
        )

    def remedy(self, number: int) -> str:
        """How to repair a corrupted shard, with the command that recreates it if it is known."""
        shard = self.shards[number].location
        listed = self._listed.get(shard)
        command = str(listed.manifest.provenance.get("command", "")) if listed else ""
        repair = "recreate or copy it again"
        if command and shard_number(shard.name) is not None:
            out = shlex.quote(str(shard.folder))
            repair = f"recreate it with\n  {command} --out {out} --only {shard_number(shard.name)}"
        return f"the file was modified or corrupted after it was written; {repair}"


def _entries(found: Resolved) -> Iterator[ShardEntry]:
    """The entries of all shards. Raises ShardError if a file does not have the size recorded."""
    for shard in found.files:
        listed = found.listed.get(shard)
        if listed is not None:
            info, source = listed.info, "the manifest"
            entry = ShardEntry(shard, info.samples, info.bytes, info.digest, info.rows_digest)
        else:
            index_file = find_index(shard)
            entry = _entry(shard, read_header(index_file))
            source = f"its index {index_file.name}"
        size = size_of(shard)
        if size != entry.bytes:
            kind = TruncatedError if size < entry.bytes else ShardError
            raise kind(
                entry.name,
                other_kind(shard)
                or f"has {size:,} bytes, but {entry.bytes:,} according to {source}",
                remedy="recreate or copy it again; if the tar is right and its index is old, "
                f"delete {index_path(shard).name}",
            )
        yield entry


def _entry(shard: Location, header: IndexHeader) -> ShardEntry:
    return ShardEntry(
        shard, header.samples, header.shard_size, header.shard_digest, header.rows_digest
    )
