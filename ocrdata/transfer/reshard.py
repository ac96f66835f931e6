"""New shard sets of existing ones: chosen, merged and split, in shards of another size or kind.

`plan_outputs` decides which samples are in which new set; each is a source that
`ocrdata.conversion` makes into shards, so that it is resumed, locked and complete like any other.
Keys are numbered anew; set, shard and key of origin are in the meta (`ocrdata.transfer.samples`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ocrdata.errors import RejectedRow, ShardError, UsageError
from ocrdata.reading.samples import skippable
from ocrdata.reading.shard_set import Members
from ocrdata.reading.view import Shards
from ocrdata.runtime.progress import Progress
from ocrdata.sample import Sample
from ocrdata.shards.arrow import Int64
from ocrdata.transfer.condition import SQL_RULE, Condition
from ocrdata.transfer.inputs import Inputs, InputSet, positions_digest
from ocrdata.transfer.samples import sample_of, unless_skipped, with_origin
from ocrdata.transfer.selection import DEDUPE_RULE, Selection, Wanted, select
from ocrdata.transfer.split import SPLIT_RULE, Parts, split

LARGER = 512
"""Bytes by which the origin in its meta may make a sample larger in a tar: a block at most, for
names of usual length."""

LONG = 8
"""Fewest neighbours, on average, that are read together. At a URL each stretch begins with a wait,
while single samples are all fetched ahead."""

SAME_IMAGES = "the images are those of another sample"

LEFT_OUT = "left-out"
"""NAME.left-out.jsonl names duplicates, and samples whose meta could not be read."""


@dataclass(frozen=True)
class Recipe:
    """How new sets are made of the inputs: `where` is a condition in SQL or "", `dedupe` is
    "images" or "", `parts` is None for one new set."""

    where: str = ""
    dedupe: str = ""
    parts: Parts | None = None
    seed: int = 0
    skip_damaged: bool = False

    def provenance(self, inputs: Inputs, part: str) -> dict[str, Any]:
        """What the new set, or this part, depends on besides the content of the inputs."""
        found: dict[str, Any] = {
            "format": "reshard",
            "specs": [one.argument for one in inputs.sets],
        }
        rules = {}
        if self.where:
            found["where"], rules["where"] = self.where, SQL_RULE
        if self.dedupe:
            found["dedupe"], rules["dedupe"] = self.dedupe, DEDUPE_RULE
        if self.parts is not None:
            found |= {"split": str(self.parts), "seed": self.seed, "part": part}
            rules["split"] = SPLIT_RULE
        if self.skip_damaged:
            found["bad_samples"] = "skip"
        return found | ({"rules": rules} if rules else {})


class ReshardSource:
    """The rows of one new set: row N is the sample at `positions[N]` of all inputs."""

    content = ("sets", "selection", "left_out")

    def __init__(
        self, inputs: Inputs, selection: Selection, recipe: Recipe, *, part: str = ""
    ) -> None:
        self.name = part or " + ".join(one.name for one in inputs.sets)
        self.part = part
        self._inputs, self._recipe, self._selection = inputs, recipe, selection

    @property
    def selection(self) -> Selection:
        """Its samples."""
        return self._selection

    @property
    def provenance(self) -> Mapping[str, Any]:
        """See `Recipe.provenance`; with the inputs and what was chosen of them."""
        found = self._selection
        left_out = {
            "where": found.rejected,
            "where_null": found.unknown,
            "duplicates": len(found.duplicates),
            "damaged": len(found.damaged),
        }
        return {
            **self._recipe.provenance(self._inputs, self.part),
            "licence": self._inputs.licence,
            "sets": [dict(one.provenance) for one in self._inputs.sets],
            "left_out": {name: count for name, count in left_out.items() if count},
            "selection": positions_digest(found.positions),
        }

    def count(self) -> int:
        """Number of samples."""
        return len(self._selection)

    def size(self, start: int, stop: int) -> int:
        """Bytes in a plain tar; too many rather than too few."""
        return int(self._selection.sizes[start:stop].sum()) + LARGER * (stop - start)

    def notes(self) -> Sequence[str]:
        """The members that no sample uses, by their fields."""
        named = [f"{count:,} .{name}" for name, count in self._selection.unused.items()]
        return [f"members that are not used: {', '.join(named[:5])}"] if named else []

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; neighbours in a shard are read together. Raises ShardError."""
        positions = self._selection.positions[start:stop]
        breaks = np.flatnonzero(np.diff(self._inputs.owners(positions))) + 1
        row = start
        for part in np.split(positions, breaks):
            one, first = self._inputs.locate(int(part[0]))
            for result in self._read(one, part - part[0] + first):
                yield row, result
                row += 1

    def _read(self, one: InputSet, positions: Int64) -> Iterator[Sample | RejectedRow]:
        """Samples of an input, by their positions in it."""
        done = 0
        while done < len(positions):
            try:
                for members in _members(_opened(one), positions[done:]):
                    place = place_of(one, int(positions[done]))
                    sample = sample_of(place.shard, place.key, members)
                    yield with_origin(sample, place.origin)
                    done += 1
            except ShardError as exc:
                if not skippable(exc):
                    raise
                if not self._recipe.skip_damaged:
                    raise unless_skipped(exc) from exc
                yield RejectedRow(exc.detail)
                done += 1

    def is_checked(self, row: int) -> bool:
        """Whether the conversion of its set decoded its images; see `InputSet`."""
        return self._inputs.locate(int(self._selection.positions[row]))[0].checked

    def rejected(self, row: int, reason: str) -> str:
        """The reason with the origin of the sample. Raises ShardError unless such samples are
        skipped."""
        place = place_of(*self._inputs.locate(int(self._selection.positions[row])))
        if not self._recipe.skip_damaged:
            raise unless_skipped(ShardError(place.shard, reason, key=place.key))
        return f"{place.origin['set']}: {place.origin['shard']}: sample {place.key}: {reason}"

    def reports(self) -> Mapping[str, Iterator[Mapping[str, Any]]]:
        """The samples that fulfil the condition but were left out, in order."""
        duplicates = ((at, SAME_IMAGES, of) for at, of in self._selection.duplicates.tolist())
        damaged = ((at, reason, -1) for at, reason in self._selection.damaged)
        return {LEFT_OUT: map(self._line, heapq.merge(duplicates, damaged))}

    def _line(self, left_out: tuple[int, str, int]) -> Mapping[str, Any]:
        at, reason, of = left_out
        line: dict[str, Any] = {**self._origin(at), "reason": reason}
        return line if of < 0 else {**line, "of": self._origin(of)}

    def _origin(self, position: int) -> Mapping[str, str]:
        return place_of(*self._inputs.locate(position)).origin


def _members(shards: Shards, positions: Int64) -> Iterator[Members]:
    """The members of samples of a view, by ascending positions: stretches with many reads in one,
    single samples alone."""
    ends = [*(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
    if len(positions) < LONG * len(ends):
        found = (shards.ref(at).position for at in positions.tolist())
        yield from shards.shard_set.each_members(map(shards.shard_set.locate, found))
        return
    for begin, end in pairwise([0, *ends]):
        yield from shards[int(positions[begin]) : int(positions[end - 1]) + 1].iter_members()


class Place(NamedTuple):
    """Where a sample of an input is: its shard as errors name it, its key, and its origin."""

    shard: str
    key: str
    origin: Mapping[str, str]


def place_of(one: InputSet, at: int) -> Place:
    """The place of a sample of an input."""
    shards = _opened(one)
    ref = shards.ref(at)
    number, _ = shards.shard_set.locate(ref.position)
    origin = {"set": one.name, "shard": ref.shard, "key": ref.key}
    return Place(shards.shard_set.shards[number].name, ref.key, origin)


@lru_cache(maxsize=16)
def _opened(one: InputSet) -> Shards:
    """An input, opened once in each process."""
    return one.open()


def plan_outputs(
    inputs: Inputs, views: Sequence[Shards], recipe: Recipe, progress: Progress
) -> list[ReshardSource]:
    """The new set, or each part, as a source. Raises ShardError; UsageError for a condition that
    does not fit the samples, or that leaves nothing."""
    if not inputs.samples:
        raise UsageError(f"{' '.join(one.view for one in inputs.sets)}: no samples")
    wanted = Wanted(
        condition=Condition(recipe.where) if recipe.where else None,
        dedupe=bool(recipe.dedupe),
        contents=recipe.parts is not None,
        skip_damaged=recipe.skip_damaged,
    )
    found = select(views, wanted, progress)
    if not len(found):
        raise UsageError(
            f"no sample is left of {inputs.samples:,}: --where is false for {found.rejected:,} and "
            f"null for {found.unknown:,}, {len(found.damaged):,} are damaged"
        )
    if recipe.parts is None:
        return [ReshardSource(inputs, found, recipe)]
    chosen = split(len(found), found.owners, found.digests, recipe.parts, recipe.seed)
    sources = []
    for number, part in enumerate(recipe.parts.fractions):
        selection = found.subset(chosen == number)
        if not len(selection):
            raise UsageError(
                f"--split: {part} gets none of {len(found):,} samples; give it a larger fraction"
            )
        sources.append(ReshardSource(inputs, selection, recipe, part=part))
    return sources
