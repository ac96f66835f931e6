"""Reads shards: `open_shards(spec)[start:stop:step]`, a view with O(1) access to any sample.

Every payload byte returned is verified against its digest, unless that is switched off. A corrupted
one raises a ShardError that names shard, sample and member. Indexes and files are opened when first
needed, and a bounded number of them is kept open. Safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import xxhash

from ocrdata.errors import UsageError
from ocrdata.reading.sequential import CopyBuffer, SequentialReader, ViewBuffer
from ocrdata.reading.shard_set import Members, ShardSet
from ocrdata.reading.spec import resolve
from ocrdata.reading.zstd_tar import ZstdTar
from ocrdata.sample import Sample
from ocrdata.shards.arrow import Int64
from ocrdata.shards.index import IndexRow
from ocrdata.shards.members import image_names, to_sample
from ocrdata.storage.fetching import FetchedFile
from ocrdata.storage.sealed import canonical, digest_of


@dataclass(frozen=True, slots=True)
class SampleRef:
    """Identifies a sample: its shard file, key, position in the whole set (not in a view of it),
    and a digest over the names and digests of its members."""

    shard: str
    key: str
    position: int
    digest: str


class Shards(Sequence[Sample]):
    """A view of the samples of a shard set. Slicing returns another view and reads nothing."""

    def __init__(self, shard_set: ShardSet, positions: range) -> None:
        self._set, self._positions = shard_set, positions

    @property
    def spec(self) -> str:
        """A spec that opens this view; equal views of the same set have equal specs."""
        view = self._positions
        if view == range(len(self._set)):
            return self._set.base
        if not view:
            return f"{self._set.base}[0:0]"
        step = view.step if len(view) > 1 else 1
        stop = view[-1] + (1 if step > 0 else -1)
        by = "" if step == 1 else f":{step}"
        return f"{self._set.base}[{view[0]}:{stop if stop >= 0 else ''}{by}]"

    @property
    def source_name(self) -> str:
        """The name of the set, from its manifest or file names."""
        return self._set.name

    @property
    def digest(self) -> str:
        """Identifies the samples of this view and their order, from the digests of the indexes.

        The same samples in the same shards have the same digest, whatever other shards the spec
        names.
        """
        view = self._positions
        if not view:
            return digest_of(canonical([]))
        first, _ = self._set.locate(min(view[0], view[-1]))
        last, _ = self._set.locate(max(view[0], view[-1]))
        rows = [[shard.samples, shard.rows_digest] for shard in self._set.shards[first : last + 1]]
        step = view.step if len(view) > 1 else 1
        start = view[0] - self._set.starts[first]
        return digest_of(canonical([rows, start, len(view), step]))

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Shards: ...
    def __getitem__(self, at: int | slice) -> Sample | Shards:
        if isinstance(at, slice):
            return Shards(self._set, self._positions[at])
        shard, local = self._locate(at)
        return self._sample(shard, local, self._set.members(shard, local))

    def __iter__(self) -> Iterator[Sample]:
        reader = SequentialReader(self._set, CopyBuffer())
        for shard, samples, batch in reader.batches(self._positions):
            for local, members in zip(samples, batch, strict=True):
                yield self._sample(shard, local, members)

    def __repr__(self) -> str:
        return f"<Shards {self.spec}: {len(self):,} samples>"

    def by_key(self, key: str) -> Sample:
        """The sample with this key. Raises UsageError if the view has none, or several."""
        found = [at for at in self._set.find(key) if self._place(at) is not None]
        if not found:
            full = key.zfill(9)  # a row's number is one without its zeros
            there = full != key and any(self._place(at) is not None for at in self._set.find(full))
            meant = f"; did you mean {full!r}?" if there else ""
            raise UsageError(f"{self.spec}: no sample has the key {key!r}{meant}")
        if len(found) > 1:
            where = ", ".join(
                self._set.shards[self._set.locate(at)[0]].location.name for at in found
            )
            raise UsageError(
                f"{self.spec}: {len(found)} samples have the key {key!r} ({where}); select one by "
                "its position"
            )
        place = self._place(found[0])
        assert place is not None
        return self[place]

    def _place(self, position: int) -> int | None:
        """Where a position of the set is in this view; None if it is not."""
        return self._positions.index(position) if position in self._positions else None

    def row(self, at: int) -> IndexRow:
        """The index row of a sample; its payload is not read."""
        block, local = self._set.block(*self._locate(at))
        return block.row(local)

    def ref(self, at: int) -> SampleRef:
        """The reference of a sample, from the index alone."""
        shard, local = self._locate(at)
        block, row = self._set.block(shard, local)
        hasher = xxhash.xxh3_128()
        for member in block.members(row):
            hasher.update(member.name.encode() + b"\0" + member.digest)
        return SampleRef(
            shard=self._set.shards[shard].location.name,
            key=block.key(row),
            position=self._set.starts[shard] + local,
            digest=str(hasher.hexdigest()),
        )

    def stored_range(self, positions: range) -> tuple[FetchedFile, int, int] | None:
        """The file at a URL and its bytes `[start, stop)` that hold these samples, which are
        neighbours in one shard; None for a local shard. Loads their index."""
        (number, one), (_, other) = self._locate(positions[0]), self._locate(positions[-1])
        first, at = self._set.block(number, min(one, other))
        last, end = self._set.block(number, max(one, other))
        start, stop = first.offsets[at], last.offsets[end] + last.sizes[end]
        tar = self._set.tar(number, first)
        if isinstance(tar, ZstdTar):
            start, stop = tar.stored_range(start, stop - start)
            tar = tar.file
        return (tar, start, stop) if isinstance(tar, FetchedFile) else None

    def announce(self, positions: Iterable[int]) -> None:
        """Tell the files at URLs that these samples will be read soon, once and in this order."""
        if not self._set.is_remote:
            return
        for position in positions:
            self._set.announce(*self._locate(position))

    def image_digests(self, at: int) -> tuple[bytes, ...]:
        """The digests of the bytes of a sample's image files, from the index alone."""
        digests = {member.name: member.digest for member in self.row(at).members}
        return tuple(digests[name] for name in image_names(list(digests)))

    def members(self, at: int) -> Members:
        """The verified bytes of a sample's members by name, in the tar's order."""
        return self._set.members(*self._locate(at))

    def iter_members(self) -> Iterator[Members]:
        """`members` of every sample in order; faster than one call for each."""
        for _, _, batch in SequentialReader(self._set, CopyBuffer()).batches(self._positions):
            yield from batch

    def iter_views(self) -> Iterator[dict[str, memoryview[int]]]:
        """Like `iter_members`, but without the last copy: read-only views of verified bytes.

        A view stays valid for as long as it is held, but keeps up to a megabyte of memory alive;
        copy what is to be kept.
        """
        for _, _, batch in SequentialReader(self._set, ViewBuffer()).batches(self._positions):
            yield from batch

    def _sample(self, shard: int, local: int, members: Members) -> Sample:
        block, row = self._set.block(shard, local)
        key = block.key(row)
        return to_sample(self._set.shards[shard].name, key, members)

    def _locate(self, at: int) -> tuple[int, int]:
        try:
            position = self._positions[at]
        except IndexError:
            raise IndexError(
                f"{self.spec}: position {at} is out of range of {len(self):,} samples"
            ) from None
        return self._set.locate(position)

    @property
    def shard_set(self) -> ShardSet:
        """The whole set behind this view."""
        return self._set

    def stretches(self) -> Iterator[tuple[int, int, range | Int64]]:
        """Splits the view by shard: (first position in the view, shard number, positions in that
        shard). Loads no index."""
        view, at = self._positions, 0
        while at < len(view):
            number, local = self._set.locate(view[at])
            last = self._set.shards[number].samples - 1 if view.step > 0 else 0
            count = min((last - local) // view.step + 1, len(view) - at)
            yield at, number, range(local, local + count * view.step, view.step)
            at += count


def open_shards(spec: str | Sequence[str], *, verify: bool = True) -> Shards:
    """Open the shards a spec names (see `ocrdata.reading.spec`), as a view of its slice.

    `verify=False` skips the digests of payloads; indexes are always verified. Raises SpecError and
    ShardError.
    """
    found = resolve(spec)
    shard_set = ShardSet(found, verify=verify)
    every = range(len(shard_set))
    return Shards(shard_set, every if found.slice is None else every[found.slice])
