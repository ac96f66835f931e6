"""The shards behind a view of `ocrdata.reading.view`: open files, indexes and verified bytes.

Bounds what is kept open and in memory. Sample counts come from the manifest or from index footers;
a block of an index is loaded when one of its samples is first read.
"""

from __future__ import annotations

import bisect
import itertools
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from xxhash import xxh3_128_digest

from ocrdata.errors import DigestError, ShardError, TransportError
from ocrdata.reading.index_cache import IndexBlocks
from ocrdata.reading.index_tar import find_index
from ocrdata.reading.shard_entry import copy_again, entries
from ocrdata.reading.spec import Resolved
from ocrdata.reading.zstd_tar import FrameCache, ZstdTar
from ocrdata.shards.index import IndexMember, name_samples, read_key_range
from ocrdata.shards.index_block import BLOCK_ROWS, IndexBlock
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.members import IMAGE_SUFFIXES, kind_of
from ocrdata.shards.names import set_title, shard_number
from ocrdata.storage.fetching import FetchedFile
from ocrdata.storage.file import File, FilePool

Members = dict[str, bytes]
Place = tuple[int, int]
"""A sample: shard number, position in that shard."""

SAMPLES_AHEAD = 64
"""Single samples that are fetched ahead: twice as many as there are threads."""


def is_text(member: IndexMember) -> bool:
    """Whether a member is no image."""
    return kind_of(member.name) not in IMAGE_SUFFIXES


class ShardSet:
    """All samples of the shards a spec names, by position. Safe to share between threads."""

    def __init__(self, found: Resolved, *, verify: bool) -> None:
        self.base, self.verify = found.base, verify
        self.listed, self.manifest = found.listed, found.manifest
        self.shards = tuple(entries(found))
        self.starts = tuple(itertools.accumulate((s.samples for s in self.shards), initial=0))
        self._files, self._frames = FilePool(), FrameCache()
        self._far: dict[int, FetchedFile] = {}
        self._blocks = IndexBlocks(self.shards, found.listed)
        self.is_remote = any(shard.location.scheme for shard in self.shards)
        self._key_ranges: list[tuple[str, str] | None] = []

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def name(self) -> str:
        """The name of the set, such as 'chartqa'."""
        return self.manifest.name if self.manifest else set_title(self.shards[0].location)

    def info(self, number: int) -> ShardInfo | None:
        """What the manifest says of a shard; None without a manifest."""
        listed = self.listed.get(self.shards[number].location)
        return listed.info if listed else None

    def locate(self, position: int) -> tuple[int, int]:
        """A position in the set -> (shard number, position in that shard)."""
        shard = bisect.bisect_right(self.starts, position) - 1
        return shard, position - self.starts[shard]

    def block(self, number: int, local: int) -> tuple[IndexBlock, int]:
        """The index block that holds sample `local` of a shard, and its place there. Raises
        ShardError."""
        number_of_block, at = divmod(local, BLOCK_ROWS)
        return self._blocks.get(number, number_of_block), at

    def blocks(self, number: int) -> Iterator[IndexBlock]:
        """The index blocks of a shard, in order. Raises ShardError."""
        return self._blocks.of_shard(number)

    def load_indexes(self, numbers: Sequence[int]) -> None:
        """Fetch the indexes of these shards in parallel, as far as they are at URLs and not in the
        cache folder yet; where that is left out, each is fetched when it is first needed."""
        if self.is_remote:
            self._blocks.fetch(numbers)

    def find(self, key: str) -> list[int]:
        """The positions of the samples with this key, in ascending order."""
        if self.is_remote:
            self.load_indexes(range(len(self.shards)))
            return self._find_in(key, range(len(self.shards)))
        if not self._key_ranges:
            self._key_ranges = [
                read_key_range(
                    find_index(shard.location, listed=shard.location in self.listed), shard.bytes
                )
                for shard in self.shards
            ]
        ranges = enumerate(self._key_ranges)
        likely = [number for number, found in ranges if found and found[0] <= key <= found[1]]
        # No digest covers the key ranges, so they only decide which shards are searched first.
        return self._find_in(key, likely) or self._find_in(key, range(len(self.shards)))

    def _find_in(self, key: str, numbers: Iterable[int]) -> list[int]:
        found = []
        for number in numbers:
            for block in self.blocks(number):
                if key in block.keys:
                    found.append(self.starts[number] + block.first + block.keys.index(key))
        return found

    def members(self, number: int, local: int) -> Members:
        """The verified members of one sample, in the tar's order. Raises ShardError."""
        block, at = self.block(number, local)
        return self._read(number, block, at, block.members(at))

    def text_members(self, number: int, local: int) -> Members:
        """Like `members`, but with b"" for each image, whose bytes are not read."""
        block, at = self.block(number, local)
        members = block.members(at)
        texts = list(filter(is_text, members))
        return dict.fromkeys([member.name for member in members], b"") | self._read(
            number, block, at, texts
        )

    def each_members(self, places: Iterable[Place]) -> Iterator[Members]:
        """`members` of samples here and there, in this order; those at URLs are fetched ahead."""
        if not self.is_remote:
            for place in places:
                yield self.members(*place)
            return
        coming: deque[tuple[Place, Callable[[], None]]] = deque()
        try:
            for place in places:
                coming.append((place, self.announce(*place)))
                if len(coming) > SAMPLES_AHEAD:
                    yield self.members(*coming.popleft()[0])
            while coming:
                yield self.members(*coming.popleft()[0])
        finally:  # the caller may stop here
            for _, take_back in coming:
                take_back()

    def announce(self, number: int, local: int) -> Callable[[], None]:
        """Tell the file of a shard that a sample will be read soon, once. Returns what takes this
        back."""
        block, at = self.block(number, local)
        members, tar = block.members(at), self.tar(number, block)
        start = min(member.offset for member in members)
        stop = max(member.offset + member.size for member in members)
        tar.hint([(start, stop - start)])
        return partial(tar.unhint, [(start, stop - start)])

    def _read(
        self, number: int, block: IndexBlock, at: int, members: Sequence[IndexMember]
    ) -> Members:
        """The verified bytes of these members of one sample, in one call to the file. Wrong bytes
        from a cache or a server are read once more, from the server."""
        if not self.is_remote:
            return self._read_once(number, block, at, members)
        try:
            return self._read_once(number, block, at, members, again=True)
        except DigestError:
            self.tar(number, block).forget(block.offsets[at], block.sizes[at])
        return self._read_once(number, block, at, members)

    def _read_once(
        self,
        number: int,
        block: IndexBlock,
        at: int,
        members: Sequence[IndexMember],
        again: bool = False,
    ) -> Members:
        """The same, without a second attempt; `again` says that there will be one."""
        try:
            tar = self.tar(number, block)
            read = tar.read_ranges([(member.offset, member.size) for member in members])
        except ShardError as exc:
            if again or (self.is_remote and isinstance(exc, TransportError)):
                raise
            if self.is_remote:  # a third request might bring others
                key, remedy = block.key(at), self.remedy(number)
                raise type(exc)(exc.shard, exc.detail, key=key, remedy=remedy) from exc
            # Read them one by one, so that the error names the member.
            read = [self._read_member(number, block, at, member) for member in members]
        found: Members = {}
        for member, data in zip(members, read, strict=True):
            if self.verify and xxh3_128_digest(data) != member.digest:
                raise self.mismatch_error(number, block, at, member)
            found[member.name] = data
        return found

    def _read_member(self, number: int, block: IndexBlock, at: int, member: IndexMember) -> bytes:
        try:
            return self.tar(number, block).read(member.offset, member.size)
        except ShardError as exc:
            place = {"key": block.key(at), "member": member.name}
            remedy = self.remedy(number) if isinstance(exc, DigestError) else exc.remedy
            raise type(exc)(exc.shard, exc.detail, remedy=remedy, **place) from exc

    def tar(self, number: int, block: IndexBlock) -> File:
        """A shard's tar, compressed on disk or not."""
        file = self._file(number)
        if block.frames is None:
            return file
        return ZstdTar(
            file, block.frames, cache=self._frames, samples=partial(self._named_between, number)
        )

    def _named_between(self, number: int, start: int, stop: int) -> str:
        """Names the samples in bytes `[start, stop)` of a shard's tar, for an error."""
        blocks = self.blocks(number)
        return name_samples([key for block in blocks for key in block.keys_between(start, stop)])

    def _file(self, number: int) -> File:
        shard = self.shards[number]
        if shard.location.scheme:
            known = self._far.get(number)
            if known is None:  # one a shard, since it remembers the version that was read first
                made = FetchedFile(shard.location, shard.bytes, shard.digest)
                known = self._far.setdefault(number, made)
            return known
        file = self._files.get(shard.location)
        if file.size != shard.bytes:
            # A TransportError, because this is no reason to skip single samples.
            raise TransportError(
                shard.name,
                f"has {file.size:,} bytes, but had {shard.bytes:,} when the set was opened",
                remedy="it was replaced meanwhile; restore the original, or open the set again",
            )
        return file

    def mismatch_error(
        self, number: int, block: IndexBlock, at: int, member: IndexMember
    ) -> DigestError:
        """The error for a member of sample `at` of the block with a wrong checksum."""
        return DigestError(
            self.shards[number].name,
            f"checksum mismatch at byte {member.offset:,}",
            key=block.key(at),
            member=member.name,
            remedy=self.remedy(number),
        )

    def remedy(self, number: int) -> str:
        """How to repair a corrupted shard, with the command that recreates it if it is known."""
        shard = self.shards[number].location
        if shard.scheme:
            return "the same bytes came twice; copy the shard there again"
        listed = self.listed.get(shard)
        command = str(listed.manifest.provenance.get("command", "")) if listed else ""
        repair = "recreate or copy it again" if listed else copy_again(shard)
        if command and shard_number(shard.name) is not None:
            out = shlex.quote(str(shard.folder))
            repair = f"recreate it with\n  {command} --out {out} --only {shard_number(shard.name)}"
        return f"the file was modified or corrupted after it was written; {repair}"
