"""Verifies whole shards: every header, payload and index row, the end of the tar, and the digests
of tar, index, token counts and manifest. One pass over each tar, in bounded memory. Errors are
reported sample by sample and do not end the pass. Nothing is written.
"""

from __future__ import annotations

import itertools
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
from ocrdata.reading.shard_entry import fetch_listed
from ocrdata.reading.spec import Resolved, resolve
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.shards.index import Index, IndexRow, index_path, is_outdated, read_index
from ocrdata.shards.index_rows import LoadedMember, make_row
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.members import fields_of, roles, split_name
from ocrdata.shards.names import KEY_DIGITS, image_names, is_compressed, is_key
from ocrdata.shards.tar import Walker
from ocrdata.storage.fetching import FetchedFile
from ocrdata.storage.file import File, exists, list_names, open_file, read_all, size_of
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of
from ocrdata.tokens.counts import all_counts, counts_path, read_counts
from ocrdata.tokens.counts_list import REMEDY as LIST_REMEDY
from ocrdata.tokens.counts_list import CountsList, named_as_list, read_counts_list

BINS_PER_DOUBLING = 8
"""Resolution of the size histograms: quantiles are within 9 %, for any number of samples."""


@dataclass
class ShardStatistics:
    """Totals and histograms over all samples of the shards. `sample_bytes` and `long_sides` count
    the bins of `_bins`; `images` counts formats, `unused` fields that are not part of a sample.
    `unanswered` samples have no turn; `first_unanswered` says where the first is."""

    shards: int = 0
    samples: int = 0
    turns: int = 0
    unanswered: int = 0
    first_unanswered: str = ""
    bytes: int = 0
    images: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sample_bytes: Counter[int] = field(default_factory=Counter)
    long_sides: Counter[int] = field(default_factory=Counter)

    def add(self, shard: Location, index: Index) -> None:
        """Add one shard."""
        without = [at for at, turns in enumerate(index.turns) if not turns]
        if without and not self.unanswered:
            self.first_unanswered = f"{shard.name}: sample {index.keys[without[0]]}"
        self.unanswered += len(without)
        self.shards += 1
        self.samples += len(index)
        self.bytes += index.header.shard_size
        self.turns += sum(index.turns)
        self.images.update(index.image_formats)
        self.unused.update(_unused_fields(index))
        self.sources.update(index.sources)
        self.sample_bytes.update(_bins(np.asarray(index.sizes)))
        self.long_sides.update(_bins(index.long_sides))


def _unused_fields(index: Index) -> Iterator[str]:
    """The fields of an index's members that are no part of their samples."""
    for start, stop in itertools.pairwise(index.member_starts):
        fields = fields_of(index.names[start:stop])
        yield from (fields[at] for at in roles(fields).unused)


def _bins(values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    logs = np.log2(np.maximum(values, 1)) * BINS_PER_DOUBLING
    binned: list[int] = np.round(logs).astype(int).tolist()
    return binned


def quantile(bins: Counter[int], share: float) -> int:
    """The value that the fraction `share` of the counted values does not exceed; 0 if there are
    none."""
    wanted = share * bins.total()
    for number in sorted(bins):
        wanted -= bins[number]
        if wanted <= 0:
            return round(float(2 ** (number / BINS_PER_DOUBLING)))
    return 0


def find(spec: str | Sequence[str]) -> Resolved:
    """The shards a spec names. Raises SpecError, also if it has a slice."""
    found = resolve(spec)
    if found.slice is not None:
        raise SpecError(f"{found.base}: only whole shards can be checked; leave out the slice")
    return found


def stored_bytes(found: Resolved, shard: Location) -> int:
    """The size of a shard's file: as its manifest says, which saves a request at a URL."""
    listed = found.listed.get(shard)
    if listed is not None:
        return listed.info.bytes
    return size_of(shard) if exists(shard) else 0


def verify_shards(
    found: Resolved, contents: ShardStatistics, progress: Callable[[int], object] = lambda _: None
) -> Iterator[ShardError]:
    """Verify shards and add them to `contents`; yields an error for each corrupted sample or file.

    `progress` is called with the bytes of each shard when it is done.
    """
    for shard in found.files:
        listed = found.listed.get(shard)
        yield from verify_shard(shard, listed.info if listed else None, contents)
        progress(stored_bytes(found, shard))
    yield from _counts_lists(found)


def verify_shard(
    shard: Location, info: ShardInfo | None, contents: ShardStatistics
) -> Iterator[ShardError]:
    """Verify a tar against its index, and both against the manifest entry, if there is one."""
    index_file = index_path(shard)
    try:
        if shard.scheme:
            assert info is not None  # from afar a manifest is required
            file: File = FetchedFile(shard, info.bytes, info.digest)
            data = fetch_listed(index_file, info.index_digest)
            index = read_index(index_file, info.bytes, data)
        else:
            file = open_file(shard)
            if not exists(index_file):
                index_file = cached_index_path(shard)
            usable = exists(index_file) and (info is not None or not is_outdated(index_file))
            index = read_index(index_file, file.size) if usable else index_tar(shard)
        if is_compressed(shard.name) != (index.frames is not None):
            raise ShardError(
                str(index_file),
                "belongs to the same shard in the other format (.tar or .tar.zst)",
            )
    except ShardError as exc:
        yield exc
        if exc.shard == str(index_file) and not shard.scheme:
            # Only the index is unusable: check at least that the tar can be indexed.
            yield from _without_index(shard, contents)
        return
    contents.add(shard, index)
    if info is not None:
        yield from _against_manifest(shard, index_file, index, info)
    yield from _token_counts(shard, index)
    yield from TarVerifier(file, index, ours=info is not None).errors()


def _without_index(shard: Location, contents: ShardStatistics) -> Iterator[ShardError]:
    try:
        contents.add(shard, index_tar(shard))
    except ShardError as exc:
        yield exc


def _token_counts(shard: Location, index: Index) -> Iterator[ShardError]:
    """Verify every tokenizer's token counts beside a shard, and that they belong to its samples."""
    for file, fingerprint in all_counts(shard):
        try:
            read_counts(
                file,
                rows_digest=index.header.rows_digest,
                fingerprint=fingerprint,
                tar_size=index.header.tar_size,
            )
        except ShardError as exc:
            yield exc


def _counts_lists(found: Resolved) -> Iterator[ShardError]:
    """Verify the lists of token counts beside the manifests: that they agree with these, and with
    the counts files of the shards that are checked."""
    sets: dict[Location, list[Location]] = {}
    for shard, listed in found.listed.items():
        sets.setdefault(shard.sibling(f"{listed.manifest.name}.json"), []).append(shard)
    for manifest, shards in sets.items():
        for name in list_names(manifest.folder):
            named = named_as_list(name)
            if named is None or f"{named[0]}.json" != manifest.name:
                continue
            path = manifest.sibling(name)
            try:
                yield from _against_list(path, read_counts_list(path), named, shards, found)
            except ShardError as exc:
                yield exc


def _against_list(
    path: Location,
    counts: CountsList,
    named: tuple[str, str],
    shards: Sequence[Location],
    found: Resolved,
) -> Iterator[ShardError]:
    if (counts.name, counts.fingerprint) != named:
        yield ShardError(
            str(path), f"lists counts of {counts.name} for tokenizer {counts.fingerprint}"
        )
        return
    for shard in shards:
        info = found.listed[shard].info
        if not info.samples:
            continue
        entry, file = counts.find(info), counts_path(shard, counts.fingerprint)
        if entry is None:
            yield ShardError(
                str(path), f"lists no counts of the samples in {shard.name}", remedy=LIST_REMEDY
            )
        elif not exists(file):
            yield ShardError(str(file), f"is missing, but listed in {path.name}")
        elif (len(data := read_all(file)), digest_of(data)) != (entry.bytes, entry.digest):
            try:
                read_counts(file, rows_digest=info.rows_digest, fingerprint=counts.fingerprint)
            except ShardError:  # damaged: reported with its shard
                continue
            yield ShardError(str(path), f"lists another {file.name}", remedy=LIST_REMEDY)


def _against_manifest(
    shard: Location, index_file: Location, index: Index, info: ShardInfo
) -> Iterator[ShardError]:
    header = index.header
    for field_name, found, listed in (
        ("samples", header.samples, info.samples),
        ("bytes of the shard", header.shard_size, info.bytes),
        ("digest of the shard", header.shard_digest, info.digest),
        ("digest of the rows", header.rows_digest, info.rows_digest),
    ):
        if found != listed:
            yield ShardError(
                str(shard), f"{field_name} in its index: {found}, but {listed} in the manifest"
            )
    if shard.scheme:
        return  # the index was compared with the manifest when it was fetched
    if not exists(index_file):
        yield ShardError(str(shard), "its index is missing")
    elif digest_of(read_all(index_file)) != info.index_digest:
        yield ShardError(str(index_file), "checksum mismatch: not the file listed in the manifest")


class TarVerifier:
    """Verifies a tar against its index in one pass, sample by sample.

    `ours` says that our own writer made the tar, which then has to have its layout as well.
    """

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
        self._bad_padding: list[str] = []

    def errors(self) -> Iterator[ShardError]:
        """All errors, in the tar's order."""
        size, expected = self._file.size, self.index.header.shard_size
        if size != expected:
            yield ShardError(
                self.name, f"has {size:,} bytes, but {expected:,} according to its index"
            )
        corrupted = False
        end, last_key = 0, ""
        for position in range(len(self.index)):
            row = self.index.row(position)
            try:
                self._gap(end, row.offset)
                self._sample(row)
                if self.ours:
                    self._layout(row, last_key)
            except ShardError as exc:
                corrupted = True
                yield type(exc)(
                    self.name, exc.detail, key=row.key, member=exc.member, remedy=exc.remedy
                )
            end = row.offset + row.size
            if is_key(row.key):
                last_key = row.key
        try:
            self._tail(end)
        except ShardError as exc:
            # The tar's end may be in the frame of the last samples, whose corruption has been
            # reported for each of them.
            if not (corrupted and isinstance(exc, DigestError)):
                yield exc
            corrupted = True
        if self._reader.finish() != self.index.header.shard_digest and not corrupted:
            yield from self._unexplained()

    def _gap(self, start: int, stop: int) -> None:
        """Check that no member between two samples belongs to a sample."""
        for member in self._walker.part(start, stop):
            if member.regular and split_name(member.name) is not None:
                raise ShardError(
                    self.name,
                    "precedes this sample in the tar but is not in the index",
                    member=member.name,
                )
            self._reader.read(member.end, 0)  # moves past a large member piece by piece

    def _tail(self, end: int) -> None:
        """Check the tar from `end`, where the last sample ends."""
        while (member := self._walker.member(end, self._tar_size)) is not None:
            if self.ours or (member.regular and split_name(member.name) is not None):
                raise ShardError(
                    self.name, "follows the last sample of the index", member=member.name
                )
            end = member.end
        self._walker.check_end(end)

    def _sample(self, row: IndexRow) -> None:
        """Check the members of a sample and its row of the index."""
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
                raise ShardError(
                    self.name, "does not match the member listed in the index", member=member.name
                )
            loaded.append(load_member(self._reader, member))
            if loaded[-1].digest != row.members[number].digest:
                raise DigestError(
                    self.name, f"checksum mismatch at byte {member.offset:,}", member=member.name
                )
            end = member.offset + member.size
            if any(self._reader.read(end, member.end - end)):
                self._bad_padding.append(row.key)
        if len(loaded) != len(row.members):
            raise ShardError(
                self.name, "is in the index but not in the tar", member=row.members[-1].name
            )
        if make_row(row.key, loaded) != row:
            raise ShardError(self.name, "its images, turns or source do not match the index")

    def _layout(self, row: IndexRow, last_key: str) -> None:
        """Check what our own writer promises beyond a valid tar (docs/formats.md)."""
        expected = [f"{row.key}.json", *image_names(row.key, row.images)]
        if [member.name for member in row.members] != expected:
            raise ShardError(
                self.name, f"expected the members {', '.join(expected)}, in this order"
            )
        if not is_key(row.key) or (last_key and _number(row.key) <= _number(last_key)):
            raise ShardError(
                self.name,
                f"expected a key of {KEY_DIGITS} digits or more, greater than the previous key",
            )

    def _unexplained(self) -> Iterator[ShardError]:
        """The errors for a wrong checksum of the file whose samples are all intact."""
        for key in self._bad_padding:
            yield ShardError(self.name, "nonzero padding after a member", key=key)
        if not self._bad_padding:
            yield DigestError(
                self.name, "checksum mismatch of the whole file: a header or its end was modified"
            )


def _number(key: str) -> tuple[int, str]:
    """Orders keys as numbers; `int` refuses thousands of digits."""
    digits = key.lstrip("0")
    return len(digits), digits
