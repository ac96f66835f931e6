"""Verifies whole shards: every header, payload and index row, the end of the tar, the digests of
tar, index, token counts and manifest. One pass over each tar, in bounded memory; damage is reported
sample by sample and never ends the pass. It writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ocrdata.errors import DigestError, ShardError, SpecError
from ocrdata.reading.index_tar import (
    HashingReader,
    ZstdTarReader,
    cached_index_path,
    index_tar,
    load_member,
)
from ocrdata.reading.spec import Resolved, resolve
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.shards.index import Index, IndexRow, index_path, read_index
from ocrdata.shards.index_rows import LoadedMember, make_row
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.members import split_name
from ocrdata.shards.names import KEY_DIGITS, is_compressed
from ocrdata.shards.tar import Walker
from ocrdata.storage.file import File, exists, open_file, read_all, size_of
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of
from ocrdata.tokens.counts import all_counts, read_counts

BINS_PER_DOUBLING = 8
"""Of the histogram of sizes: quantiles are right to 9 %, whatever the number of samples."""


@dataclass
class ShardStatistics:
    """What is in shards, summed over samples."""

    shards: int = 0
    samples: int = 0
    turns: int = 0
    bytes: int = 0
    images: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sample_bytes: Counter[int] = field(default_factory=Counter)
    long_sides: Counter[int] = field(default_factory=Counter)

    def add(self, index: Index) -> None:
        """Count one shard."""
        self.shards += 1
        self.samples += len(index)
        self.bytes += index.header.shard_size
        self.turns += sum(index.turns)
        self.images.update(index.image_formats)
        self.sources.update(index.sources)
        self.sample_bytes.update(_bins(np.asarray(index.sizes)))
        self.long_sides.update(_bins(index.long_sides))


def _bins(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    logs = np.log2(np.maximum(values, 1)) * BINS_PER_DOUBLING
    binned: list[int] = np.round(logs).astype(int).tolist()
    return binned


def quantile(bins: Counter[int], share: float) -> int:
    """The value below which `share` of what was counted lies; 0 where nothing was."""
    wanted = share * bins.total()
    for number in sorted(bins):
        wanted -= bins[number]
        if wanted <= 0:
            return round(float(2 ** (number / BINS_PER_DOUBLING)))
    return 0


def find(spec: str | Sequence[str]) -> Resolved:
    """The whole shards a spec names. Raises SpecError, also for a slice."""
    found = resolve(spec)
    if found.slice is not None:
        raise SpecError(f"{found.base}: whole shards are checked; leave the slice out")
    return found


def verify_shards(
    found: Resolved, contents: ShardStatistics, progress: Callable[[int], object] = lambda _: None
) -> Iterator[ShardError]:
    """Verify shards and count what is in them; one error for each damaged sample or file.

    `progress` is called with the bytes of each shard when it is done.
    """
    for path in found.files:
        listed = found.listed.get(path)
        yield from verify_shard(path, listed.info if listed else None, contents)
        progress(size_of(path) if exists(path) else 0)


def verify_shard(
    path: Location, info: ShardInfo | None, contents: ShardStatistics
) -> Iterator[ShardError]:
    """Verify one tar with its index, and both against the manifest's entry, if any."""
    index_file = index_path(path)
    try:
        file = open_file(path)
        if not exists(index_file):
            index_file = cached_index_path(path)
        index = read_index(index_file, file.size) if exists(index_file) else index_tar(path)
        if is_compressed(path.name) != (index.frames is not None):
            raise ShardError(str(index_file), "the index of the other variant (.tar or .tar.zst)")
    except ShardError as exc:
        yield exc
        if exc.shard == str(index_file):
            # The tar may be sound all the same; without its index that is all that can be said.
            yield from _without_index(path, contents)
        return
    contents.add(index)
    if info is not None:
        yield from _against_manifest(path, index_file, index, info)
    yield from _counts(path, index)
    yield from TarVerifier(file, index, ours=info is not None).run()


def _without_index(path: Location, contents: ShardStatistics) -> Iterator[ShardError]:
    try:
        contents.add(index_tar(path))
    except ShardError as exc:
        yield exc


def _counts(path: Location, index: Index) -> Iterator[ShardError]:
    """The token counts beside a shard, of every tokenizer: whole, and of these samples."""
    for file, fingerprint in all_counts(path):
        try:
            read_counts(
                file,
                rows_digest=index.header.rows_digest,
                fingerprint=fingerprint,
                tar_size=index.header.tar_size,
            )
        except ShardError as exc:
            yield exc


def _against_manifest(
    path: Location, index_file: Location, index: Index, info: ShardInfo
) -> Iterator[ShardError]:
    found = index.header
    for what, here, said in (
        ("samples in its index", found.samples, info.samples),
        ("bytes of the shard in its index", found.shard_size, info.bytes),
        ("digest of the shard in its index", found.shard_digest, info.digest),
        ("digest of the index's rows", found.rows_digest, info.rows_digest),
    ):
        if here != said:
            yield ShardError(str(path), f"{what}: {here}, the manifest says {said}")
    if not exists(index_file):
        yield ShardError(str(path), "its index is missing")
    elif digest_of(read_all(index_file)) != info.index_digest:
        yield ShardError(str(index_file), "not the index file whose digest the manifest holds")


class TarVerifier:
    """One pass over a tar, sample by sample as its index places them."""

    def __init__(self, file: File, index: Index, *, ours: bool) -> None:
        self.name, self.index, self.ours = file.name, index, ours
        self._file = file
        self._reader = (
            HashingReader(file)
            if index.frames is None
            else ZstdTarReader(ZstdTar(file, index.frames, samples=index.between))
        )
        self._tar_size = self._reader.file.size
        self._walker = Walker(file.name, self._reader.read, self._tar_size)
        self._padded: list[str] = []

    def run(self) -> Iterator[ShardError]:
        """All that is wrong, in the tar's order."""
        size, expected = self._file.size, self.index.header.shard_size
        if size != expected:
            yield ShardError(self.name, f"has {size:,} bytes, its index was made of {expected:,}")
        damaged = False
        end, last_key = 0, ""
        for position in range(len(self.index)):
            row = self.index.row(position)
            try:
                self._gap(end, row.offset)
                self._sample(row)
                if self.ours:
                    self._layout(row, last_key)
            except ShardError as exc:
                damaged = True
                yield type(exc)(
                    self.name, exc.detail, key=row.key, member=exc.member, remedy=exc.remedy
                )
            end, last_key = row.offset + row.size, row.key
        try:
            self._tail(end)
        except ShardError as exc:
            # The end lies in a frame with samples, which are named already where it is damaged.
            if not (damaged and isinstance(exc, DigestError)):
                yield exc
            damaged = True
        if self._reader.finish() != self.index.header.shard_digest and not damaged:
            yield from self._unexplained()

    def _gap(self, start: int, stop: int) -> None:
        """Between samples lies nothing but members that belong to none."""
        for member in self._walker.part(start, stop):
            if member.regular and split_name(member.name) is not None:
                raise ShardError(
                    self.name, "stands before this sample and not in the index", member=member.name
                )
            self._reader.read(member.end, 0)

    def _tail(self, end: int) -> None:
        while (member := self._walker.member(end, self._tar_size)) is not None:
            if self.ours or (member.regular and split_name(member.name) is not None):
                raise ShardError(
                    self.name, "stands after the last sample of the index", member=member.name
                )
            end = member.end
        self._walker.check_end(end)

    def _sample(self, row: IndexRow) -> None:
        loaded: list[LoadedMember] = []
        for member in self._walker.part(row.offset, row.offset + row.size):
            if not member.regular or split_name(member.name) is None:
                continue
            number = len(loaded)
            if number == len(row.members) or row.members[number][:3] != (
                member.name,
                member.offset,
                member.size,
            ):
                raise ShardError(self.name, "is not what the index has here", member=member.name)
            loaded.append(load_member(self._reader, member))
            if loaded[-1].digest != row.members[number].digest:
                raise DigestError(
                    self.name, f"digest differs at byte {member.offset:,}", member=member.name
                )
            end = member.offset + member.size
            if any(self._reader.read(end, member.end - end)):
                self._padded.append(row.key)
        if len(loaded) != len(row.members):
            raise ShardError(
                self.name, "is in the index and not in the tar", member=row.members[-1].name
            )
        if make_row(row.key, loaded) != row:
            raise ShardError(self.name, "its images, turns or source are not those of its index")

    def _layout(self, row: IndexRow, last_key: str) -> None:
        """What our own writer promises beyond a sound tar (docs/formats.md)."""
        expected = [f"{row.key}.json"] + [
            f"{row.key}{f'.{number}' if number else ''}.{image.format}"
            for number, image in enumerate(row.images)
        ]
        if [member.name for member in row.members] != expected:
            raise ShardError(self.name, f"its members are not {', '.join(expected)}, in this order")
        if not (row.key.isdigit() and len(row.key) >= KEY_DIGITS) or (
            last_key and int(row.key) <= int(last_key)
        ):
            raise ShardError(self.name, "its key does not follow the one before")

    def _unexplained(self) -> Iterator[ShardError]:
        for key in self._padded:
            yield ShardError(self.name, "the padding after a member is not zero", key=key)
        if not self._padded:
            yield DigestError(
                self.name, "the file's digest differs: headers or its end are not as written"
            )
