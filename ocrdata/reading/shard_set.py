"""A set of shards behind the views of `ocrdata.reading.view`: files, indexes, and verified bytes.

Owner of what is kept open and in memory. Counts come from the manifest or from index footers; the
rows of an index are loaded when a sample of its shard is first asked for.
"""

from __future__ import annotations

import bisect
import itertools
import shlex
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xxhash import xxh3_128_digest

from ocrdata.errors import DigestError, ShardError, TransportError, TruncatedError
from ocrdata.reading.index_tar import find_index
from ocrdata.reading.spec import Resolved
from ocrdata.reading.zstd_tar import FrameCache, ZstdTar
from ocrdata.shards.frames import MAX_FRAME
from ocrdata.shards.index import Index, index_path, read_header, read_index, read_key_range
from ocrdata.shards.members import IMAGE_SUFFIXES, kind_of
from ocrdata.shards.names import is_compressed, set_name, shard_number
from ocrdata.storage.file import File, FilePool, size_of
from ocrdata.storage.location import Location

INDEX_ROWS = 1 << 17
"""Samples whose index rows are kept in memory, about 0.4 KB each; one index is always kept."""

BETWEEN_MEMBERS = 1 << 13
"""Bytes between two members of a sample, for which they are still read together: headers and
padding take 2 KB at most, unless a name is very long."""

Members = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a set, and what manifest or footer say of it; `bytes` and `digest` are of the
    file on the disk."""

    location: Location
    samples: int
    bytes: int
    digest: str
    rows_digest: str

    @property
    def name(self) -> str:
        """As errors show it."""
        return str(self.location)


class ShardSet:
    """All samples of the shards a spec names, by position. Safe to share between threads."""

    def __init__(self, found: Resolved, *, verify: bool) -> None:
        self.base, self.verify = found.base, verify
        self._listed, self.manifest = found.listed, found.manifest
        self.shards = tuple(_describe(found))
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
        """'chartqa'."""
        return self.manifest.name if self.manifest else set_name(self.shards[0].location.name)

    def locate(self, position: int) -> tuple[int, int]:
        """(shard number, position in it) of a position in the set."""
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
        file = find_index(shard.location)
        index = read_index(file, shard.bytes)
        if is_compressed(shard.location.name) != (index.frames is not None):
            raise ShardError(
                shard.name, f"{file.name} is the index of the other variant (.tar or .tar.zst)"
            )
        found = index.header
        if (found.samples, found.shard_size, found.shard_digest, found.rows_digest) != (
            shard.samples,
            shard.bytes,
            shard.digest,
            shard.rows_digest,
        ):
            listed = shard.location in self._listed
            said = "the manifest lists" if listed else "there was when the set was opened"
            raise ShardError(shard.name, f"its index {file.name} is not the one {said}")
        return index

    def find(self, key: str) -> list[int]:
        """The positions of the samples with this key, rising."""
        if not self._key_ranges:
            self._key_ranges = [
                read_key_range(find_index(shard.location), shard.bytes) for shard in self.shards
            ]
        ranges = enumerate(self._key_ranges)
        likely = [number for number, found in ranges if found and found[0] <= key <= found[1]]
        # No digest is compared for the ranges: they say where to look first, never that it is not.
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
        """`members` of one sample, but b"" for each image, whose bytes are not read."""
        index = self.index(number)
        starts = index.member_starts
        found = dict.fromkeys(index.names[starts[local] : starts[local + 1]], b"")
        first = None
        for at in range(starts[local], starts[local + 1] + 1):
            is_text = at < starts[local + 1] and kind_of(index.names[at]) not in IMAGE_SUFFIXES
            if is_text and first is None:
                first = at
            if not is_text and first is not None:
                found |= self._read(number, index, local, range(first, at))
                first = None
        return found

    def _read(self, number: int, index: Index, local: int, members: range) -> Members:
        """The verified bytes of neighbouring members of sample `local`, in one read where only
        headers and padding lie between them."""
        offsets, sizes = index.member_offsets, index.member_sizes
        base, last = offsets[members[0]], members[-1]
        size = offsets[last] + sizes[last] - base
        payload = sum(sizes[at] for at in members)
        together = size <= MAX_FRAME and size - payload <= BETWEEN_MEMBERS * len(members)
        data = b""
        if together:
            try:
                data = self.tar(number, index).read(base, size)
            except ShardError:
                together = False  # read again one by one: the error names the member
        found: Members = {}
        for at in members:
            start = offsets[at] - base
            found[index.names[at]] = (
                self._verified(number, index, local, at, data[start : start + sizes[at]])
                if together
                else self._member(number, index, local, at)
            )
        return found

    def _member(self, number: int, index: Index, local: int, at: int) -> bytes:
        """The verified bytes of the index's member `at`, which is one of sample `local`."""
        try:
            data = self.tar(number, index).read(index.member_offsets[at], index.member_sizes[at])
        except ShardError as exc:
            place = {"key": index.keys[local], "member": index.names[at]}
            remedy = self.remedy(number) if isinstance(exc, DigestError) else exc.remedy
            raise type(exc)(exc.shard, exc.detail, remedy=remedy, **place) from exc
        return self._verified(number, index, local, at, data)

    def _verified(self, number: int, index: Index, local: int, at: int, data: bytes) -> bytes:
        """`data`, if its digest is that of the index's member `at`. Raises DigestError."""
        if self.verify and xxh3_128_digest(data) != index.digests[16 * at : 16 * at + 16]:
            raise self.differs(number, index, local, at)
        return data

    def tar(self, number: int, index: Index) -> File:
        """A shard's tar, however it lies on the disk."""
        file = self._file(number)
        if index.frames is None:
            return file
        return ZstdTar(file, index.frames, cache=self._frames, samples=index.between)

    def _file(self, number: int) -> File:
        shard = self.shards[number]
        file = self._files.get(shard.location)
        if file.size != shard.bytes:
            # Of the way to its samples, not of one of them: no reason to skip any.
            raise TransportError(
                shard.name,
                f"has {file.size:,} bytes, {shard.bytes:,} when the set was opened",
                remedy="it was replaced meanwhile; put the original back, or open the set again",
            )
        return file

    def differs(self, number: int, index: Index, local: int, at: int) -> DigestError:
        """The error for a member, the index's number `at`, whose digest is not the stored one."""
        return DigestError(
            self.shards[number].name,
            f"digest differs at byte {index.member_offsets[at]:,}",
            key=index.keys[local],
            member=index.names[at],
            remedy=self.remedy(number),
        )

    def remedy(self, number: int) -> str:
        """What to do about a damaged shard: the command that makes it again, where it is known."""
        listed = self._listed.get(self.shards[number].location)
        command = str(listed.manifest.provenance.get("command", "")) if listed else ""
        location = self.shards[number].location
        file = location.name
        if command and shard_number(file) is not None:
            out = shlex.quote(str(location.folder))
            how = f"make it again with\n  {command} --out {out} --only {shard_number(file)}"
        else:
            how = "make or copy it again"
        return f"the file changed or was damaged after it was written; {how}"


def _describe(found: Resolved) -> Iterator[ShardEntry]:
    for path in found.files:
        listed = found.listed.get(path)
        if listed is not None:
            info = listed.info
            said, source = (info.samples, info.bytes, info.digest, info.rows_digest), "the manifest"
        else:
            file = find_index(path)
            head = read_header(file)
            said = (head.samples, head.shard_size, head.shard_digest, head.rows_digest)
            source = f"its index {file.name}"
        size = size_of(path)
        if size != said[1]:
            raise _size_error(path, size, said[1], f"according to {source}")
        yield ShardEntry(path, *said)


def _size_error(path: Location, size: int, expected: int, when: str) -> ShardError:
    kind = TruncatedError if size < expected else ShardError
    return kind(
        str(path),
        f"has {size:,} bytes, {expected:,} {when}",
        remedy="make or copy it again; if the tar is right and its index is old, delete "
        f"{index_path(path).name}",
    )
