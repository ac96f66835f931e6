"""Which samples of the inputs get into a new set: one pass over their indexes.

Only if the condition names fields of the meta, the JSON members are read too, never the images.
In memory: 20 bytes for each chosen sample; 16 more if duplicates are left out; 8 more for each of
its images if parts are split, and 70 a sample while that is done.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from ocrdata.errors import ShardError
from ocrdata.reading.samples import skippable
from ocrdata.reading.shard_set import Members, is_text
from ocrdata.reading.texts import text_cost, texts_of
from ocrdata.reading.view import Shards
from ocrdata.runtime.progress import Progress, progress_bar
from ocrdata.runtime.units import human_bytes
from ocrdata.sample import Sample
from ocrdata.shards.arrow import Int64
from ocrdata.shards.index import IndexRow
from ocrdata.shards.members import fields_of, roles
from ocrdata.shards.names import is_compressed
from ocrdata.transfer.condition import Condition, TypeWidened
from ocrdata.transfer.samples import sample_of, unless_skipped

DEDUPE_RULE = "images-1"
"""Recorded in the provenance: another rule needs another name."""

CHUNK_SAMPLES = 4096
"""Samples whose index rows, metas and JSON are in memory at once."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Wanted:
    """What decides which samples are chosen. `dedupe` leaves out samples whose images, all of them
    in order, are those of an earlier one; `contents` asks for what a split needs."""

    condition: Condition | None = None
    dedupe: bool = False
    contents: bool = False
    skip_damaged: bool = False


@dataclass
class Selection:
    """The chosen samples, in order: positions in all inputs, bytes in a tar, numbers of images.
    `owners` and `digests` are as `ocrdata.transfer.split` needs them, and empty without a split.

    `rejected` samples did not fulfil the condition; for `unknown` others it was null. `duplicates`
    [n, 2] are samples that were left out, each with the chosen one whose images it has; `damaged`
    ones could not be read, for the reason given. `unused` are members that are no part of the
    chosen samples, by field.
    """

    positions: Int64
    sizes: Int64
    images: Int64
    owners: Int64
    digests: Int64
    duplicates: Int64
    rejected: int
    unknown: int
    damaged: tuple[tuple[int, str], ...]
    unused: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.positions)

    def subset(self, kept: Mask) -> Selection:
        """Some of the chosen samples, with the duplicates of these."""
        of_kept = np.isin(self.duplicates[:, 1], self.positions[kept])
        return replace(
            self,
            positions=self.positions[kept],
            sizes=self.sizes[kept],
            images=self.images[kept],
            owners=self.owners[:0],
            digests=self.digests[:0],
            duplicates=self.duplicates[of_kept],
        )


def select(views: Sequence[Shards], wanted: Wanted, progress: Progress) -> Selection:
    """Choose among the samples of the views, numbered through; says before it starts what it reads.

    Raises ShardError, and UsageError if the condition does not fit the samples.
    """
    samples, condition = sum(map(len, views)), wanted.condition
    for view in views:
        _load_indexes(view, progress)
        if condition is not None and condition.meta:
            _tell_texts(view, progress)
    while True:
        found = _Pass(wanted)
        try:
            with progress_bar(samples, " samples", description="choosing samples") as bar:
                for chunk in _chunks(views):
                    found.add(chunk)
                    bar.update(len(chunk.positions))
        except TypeWidened as exc:
            progress.note(f"--where: {exc}; reading again from the start")
            continue
        if condition is not None:
            condition.check_found()
        return found.finish()


def _load_indexes(view: Shards, progress: Progress) -> None:
    numbers = [number for _, number, _ in view.stretches()]
    shards, samples = _counted(len(numbers), "shard"), _counted(len(view), "sample")
    progress.note(f"{view.spec}: reading the indexes of {shards}, {samples}")
    view.shard_set.load_indexes(numbers)


def _tell_texts(view: Shards, progress: Progress) -> None:
    """Say how much is read of a view to see the meta of its samples."""
    size = requests = 0.0
    for _, number, rows in view.stretches():
        shard = view.shard_set.shards[number]
        part = len(rows) / shard.samples
        if shard.location.scheme:
            cost = text_cost(shard.samples, shard.bytes)
            requests, size = requests + part * cost.requests, size + part * cost.bytes
        elif is_compressed(shard.location.name):
            size += part * shard.bytes
        else:
            places = (view.shard_set.block(number, int(row)) for row in rows)
            members = (member for block, at in places for member in block.members(at))
            size += sum(member.size for member in filter(is_text, members))
    asked = f", {_counted(math.ceil(requests), 'request')}" if requests else ""
    progress.note(
        f"{view.spec}: --where names the meta: reading about {human_bytes(size)}{asked}, the JSON "
        "of every sample"
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class _Chunk(NamedTuple):
    """Samples of one shard of a view, by their positions in the shard. `first` is the position of
    the first of them in all inputs."""

    view: Shards
    number: int
    positions: range | list[int]
    first: int

    def rows(self) -> list[IndexRow]:
        """Their index rows."""
        found = []
        for local in self.positions:
            block, at = self.view.shard_set.block(self.number, local)
            found.append(block.row(at))
        return found

    def sample(self, local: int, members: Members | ShardError) -> Sample:
        """A sample of these members, or the error in their place."""
        if isinstance(members, ShardError):
            raise members
        block, at = self.view.shard_set.block(self.number, local)
        return sample_of(self.view.shard_set.shards[self.number].name, block.key(at), members)


def _chunks(views: Sequence[Shards]) -> Iterator[_Chunk]:
    """All samples, at most CHUNK_SAMPLES of one shard at a time."""
    start = 0
    for view in views:
        for first, number, rows in view.stretches():
            for at in range(0, len(rows), CHUNK_SAMPLES):
                part = rows[at : at + CHUNK_SAMPLES]
                positions = part if isinstance(part, range) else part.tolist()
                yield _Chunk(view, number, positions, start + first + at)
        start += len(view)


class _Pass:
    """One pass over the inputs."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._chosen = list[_Chosen]()
        self._rejected = self._unknown = 0
        self._damaged = list[tuple[int, str]]()
        self._unused = Counter[str]()

    def add(self, chunk: _Chunk) -> None:
        """Choose among the samples of a chunk. Raises ShardError, UsageError, TypeWidened."""
        rows = chunk.rows()
        positions = chunk.first + np.arange(len(rows))
        if self._wanted.condition is not None:
            chosen = self._fulfilling(self._wanted.condition, chunk, rows)
            positions, rows = positions[chosen], list(compress(rows, chosen))
        images, contents = list[bytes](), list[bytes]()
        for row in rows:
            fields = fields_of(member.name for member in row.members)
            used = roles(fields)
            self._unused.update(fields[at] for at in used.unused)
            digests = [row.members[at].digest for at in used.images]
            images.append(xxhash.xxh3_128_digest(b"".join(digests)))
            contents += digests or [row.members[0].digest]
        self._chosen.append(
            _Chosen(
                positions,
                np.array([row.size for row in rows], np.int64),
                np.array([len(row.images) for row in rows], np.int32),
                _halves(images if self._wanted.dedupe else []),
                _halves(contents if self._wanted.contents else [])[:, 0].copy(),
            )
        )

    def _fulfilling(self, condition: Condition, chunk: _Chunk, rows: Sequence[IndexRow]) -> Mask:
        """Which samples of a chunk fulfil the condition; counts the others."""
        metas = self._metas(chunk) if condition.meta else None
        true, null = condition.evaluate(rows, metas)
        intact = np.array([meta is not None for meta in metas or [{}] * len(rows)], np.bool_)
        self._unknown += int((null & intact).sum())
        self._rejected += int((~true & ~null & intact).sum())
        return true & intact

    def _metas(self, chunk: _Chunk) -> list[Mapping[str, Any] | None]:
        """The meta of each sample; None for a damaged one that is skipped."""
        found: list[Mapping[str, Any] | None] = []
        for local, members in texts_of(chunk.view.shard_set, chunk.number, chunk.positions):
            try:
                found.append(chunk.sample(local, members).meta)
            except ShardError as exc:
                if not skippable(exc):
                    raise
                if not self._wanted.skip_damaged:
                    raise unless_skipped(exc) from exc
                self._damaged.append((chunk.first + len(found), exc.detail))
                found.append(None)
        return found

    def finish(self) -> Selection:
        """What was chosen, without duplicates if they are left out."""
        positions, sizes, images, keys, digests = map(
            np.concatenate, zip(*self._chosen, strict=True)
        )
        counts = np.maximum(images, 1) if self._wanted.contents else np.zeros_like(images)
        kept, duplicates = np.ones(len(positions), np.bool_), np.empty((0, 2), np.int64)
        if self._wanted.dedupe:
            first = _first_equal(keys)
            kept = (first == np.arange(len(first))) | (images == 0)
            duplicates = np.column_stack([positions[~kept], positions[first[~kept]]])
        counts, digests = counts[kept], digests[np.repeat(kept, counts)]
        return Selection(
            positions=positions[kept],
            sizes=sizes[kept],
            images=images[kept],
            owners=np.repeat(np.arange(len(counts)), counts),
            digests=digests.view(np.int64),
            duplicates=duplicates,
            rejected=self._rejected,
            unknown=self._unknown,
            damaged=tuple(self._damaged),
            unused=self._unused,
        )


class _Chosen(NamedTuple):
    """The chosen samples of one part: position, bytes, number of images, and digest of the digests
    of all images [n, 2]; and the first half of the digest of each of their contents."""

    positions: Int64
    sizes: Int64
    images: Int64
    keys: npt.NDArray[np.uint64]
    contents: npt.NDArray[np.uint64]


def _halves(digests: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Digests of 16 bytes as two integers each. Shape: [n, 2]."""
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def _first_equal(keys: npt.NDArray[np.uint64]) -> Int64:
    """The first row that is equal to each row. Shapes: [n, 2] -> [n]."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal rows stay in order
    ordered = keys[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first
