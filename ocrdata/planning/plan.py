"""The plan: which samples stand in the batch of any step, `batch = f(plan, step)`.

Owner of the way from a step to samples. It holds integers only and opens nothing: sources are
names, sizes, digests and, where rows are packed or weighed by tokens, the lengths of their samples.
The global batch of a step does not depend on workers, ranks or micro-batches: a rank asks for its
stretch of the batch's rows, and gets those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ocrdata.errors import UsageError
from ocrdata.planning import mixture, order, packing
from ocrdata.planning.lengths import TOO_LONG, SampleLengths
from ocrdata.planning.order import SampleOrder
from ocrdata.planning.rows import PackedRows, PlainRows, Rows
from ocrdata.shards.arrow import Int64
from ocrdata.storage.sealed import canonical, digest_of

VERSION = 2

MIXES = ("batch", "sample")
"""'batch': a batch comes from one source. 'sample': each row has a source of its own."""

WEIGHTS = ("rows", "samples", "tokens")
"""What shares are counted in. Unpacked, a row is a sample."""

BLOCK = 4096
"""Slots between two notes of how many each source was given."""

Weight = Fraction | tuple[tuple[int, Fraction], ...]
"""A share, or shares with the steps from which on they hold: ((0, 1/2), (1000, 1/10))."""


@dataclass(frozen=True)
class PlanSource:
    """A source as the plan sees it. `digest` is the identity of its rows (`Shards.digest`)."""

    name: str
    size: int
    weight: Weight
    spec: str = ""
    digest: str = ""

    @property
    def weights(self) -> tuple[tuple[int, Fraction], ...]:
        """The shares with the steps from which on they hold, the first from step 0."""
        return self.weight if isinstance(self.weight, tuple) else ((0, self.weight),)


@dataclass(frozen=True)
class PlanSettings:
    """All that makes a plan of sources. `batch` is rows a step over all ranks. Rows are packed
    where `pack_window` draws are packed together (0: a row is a sample); `row_images` is how many
    images a packed row may hold."""

    batch: int
    steps: int
    seed: int
    mix_by: str = "batch"
    weigh_by: str = "rows"
    at_end: str = "repeat"
    seq_len: int = 0
    too_long: str = "truncate"
    pack_window: int = 0
    row_images: int = 0

    @property
    def needs_lengths(self) -> bool:
        """Whether the rows themselves depend on how long samples are."""
        return bool(self.pack_window) or self.weigh_by == "tokens" or self.too_long == "drop"


class SampleIndex(NamedTuple):
    """Where a sample comes from: source number, position in its view, and the epoch it is in."""

    source: int
    position: int
    epoch: int


PlannedRow = tuple[SampleIndex, ...]
"""The samples of one row, all of one source; a single one where rows are not packed."""


class Plan:
    """The rows of every step of a run.

    `steps` is how many there are: fewer than the recipe's where a source ends the run, which is
    then `ended_by` (a source's number, else -1). Two bytes a slot are held, and what the rows
    need. Safe to share between threads. Raises UsageError for what cannot be planned.
    """

    def __init__(
        self,
        sources: Sequence[PlanSource],
        recipe: PlanSettings,
        measures: Sequence[SampleLengths] = (),
    ) -> None:
        _check(sources, recipe)
        if recipe.needs_lengths and not measures:
            raise ValueError("this recipe needs the lengths of the samples")
        self.sources, self.recipe, self.measures = tuple(sources), recipe, tuple(measures)
        self.row_sequences = [self._rows(number) for number in range(len(sources))]
        self._per_slot = recipe.batch if recipe.mix_by == "batch" else 1
        found = self._schedule()
        self.slots = found.slots
        self.steps = len(found.slots) * self._per_slot // recipe.batch
        self.ended_by = found.ended_by if self.steps < recipe.steps else -1
        if not self.steps:
            raise UsageError(
                f"source {sources[found.ended_by].name} ends before the first batch is full; "
                "give a smaller --batch, more samples, or --at-end repeat"
            )
        needed = self.measures if recipe.needs_lengths else ()
        self._lengths = [found.digest for found in needed] or [""] * len(sources)
        self.slots = self.slots[: self.steps * recipe.batch // self._per_slot]
        self._given = self._notes()

    @property
    def batch(self) -> int:
        """Rows a step."""
        return self.recipe.batch

    def rows(self, step: int, part: range | None = None) -> list[PlannedRow]:
        """The rows of the global batch of `step`, in order; those of `part` alone, if given.

        Raises IndexError outside the plan.
        """
        numbers = self.numbers(step, part)
        if self.recipe.mix_by == "batch" and numbers:
            source, first = numbers[0]
            return self._planned(source, first, first + len(numbers))
        return [self._planned(source, row, row + 1)[0] for source, row in numbers]

    def numbers(self, step: int, part: range | None = None) -> list[tuple[int, int]]:
        """(source, number of its row) of each row of a step. Raises IndexError outside the plan."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a plan of {self.steps} steps")
        part = range(self.batch) if part is None else part
        if self.recipe.mix_by == "batch":
            source = int(self.slots[step])
            first = self._ordinal(step) * self.batch
            return [(source, first + row) for row in part]
        first = step * self.batch
        return [(int(self.slots[first + row]), self._ordinal(first + row)) for row in part]

    def rows_per_source(self) -> list[int]:
        """Rows the whole plan takes from each source."""
        counts = np.bincount(self.slots, minlength=len(self.sources))
        return [int(count) * self._per_slot for count in counts]

    def to_json(self) -> dict[str, Any]:
        """All that determines the plan, as JSON values. Where rows depend on the lengths of samples
        (and so on tokenizer and image size), a source has a digest of these."""
        return {
            "version": VERSION,
            "order": order.ALGORITHM,
            "mix": mixture.ALGORITHM,
            "packing": packing.ALGORITHM if self.recipe.pack_window else "",
            **asdict(self.recipe),
            "sources": [
                {
                    "name": source.name,
                    "size": source.size,
                    "weights": [[start, str(weight)] for start, weight in source.weights],
                    "spec": source.spec,
                    "digest": source.digest,
                    "lengths": self._lengths[number],
                }
                for number, source in enumerate(self.sources)
            ],
        }

    @property
    def digest(self) -> str:
        """The identity of the plan: equal digests give equal rows, wherever the shards lie."""
        value = self.to_json()
        for source in value["sources"]:
            del source["spec"]
        return digest_of(canonical(value))

    def _planned(self, source: int, start: int, stop: int) -> list[PlannedRow]:
        """Rows [start, stop) of a source."""
        rows = self.row_sequences[source]
        size = rows.draws.size
        return [
            tuple(
                SampleIndex(source, position, draw // size)
                for draw, position in zip(draws.tolist(), positions.tolist(), strict=True)
            )
            for draws, positions in rows.members(start, stop)
        ]

    def _rows(self, number: int) -> Rows:
        source, recipe = self.sources[number], self.recipe
        measures = self.measures[number] if self.measures else None
        kept = None
        if recipe.too_long == "drop" and measures is not None and len(measures.truncated):
            kept = np.flatnonzero(measures.untruncated <= recipe.seq_len).astype(np.int32)
            if not len(kept):
                raise UsageError(
                    f"source {source.name}: every sample is longer than --seq-len {recipe.seq_len}"
                )
        draws = SampleOrder(source.name, source.size, seed=recipe.seed, kept=kept)
        if not recipe.pack_window:
            return PlainRows(draws, measures)
        assert measures is not None
        return PackedRows(
            draws,
            measures,
            capacity=recipe.seq_len,
            window=recipe.pack_window,
            max_images=recipe.row_images,
            finite=recipe.at_end != "repeat",
        )

    def _schedule(self) -> mixture.Schedule:
        recipe, per_slot = self.recipe, self._per_slot
        scale = recipe.batch // per_slot  # slots a step
        available = None
        if recipe.at_end != "repeat":
            available = [rows.available() // per_slot for rows in self.row_sequences]
        plain = recipe.weigh_by == "rows" or (
            recipe.weigh_by == "samples" and not recipe.pack_window
        )
        return mixture.schedule(
            _phases(self.sources, scale),
            recipe.steps * scale,
            available=available or [],
            at_end=recipe.at_end,
            sizes=None if plain else self._sizes,
        )

    def _sizes(self, source: int, start: int, stop: int) -> Int64:
        """Tokens, or samples, of a source's slots [start, stop)."""
        rows, per_slot = self.row_sequences[source], self._per_slot
        column = rows.lengths if self.recipe.weigh_by == "tokens" else rows.samples
        each = column(start * per_slot, stop * per_slot).reshape(stop - start, per_slot)
        sums: Int64 = each.sum(axis=1)
        return sums

    def _notes(self) -> Int64:
        """Slots given to each source before each block. Shape: [blocks, sources]."""
        count = len(self.sources)
        blocks = [
            np.bincount(self.slots[at : at + BLOCK], minlength=count)
            for at in range(0, max(1, len(self.slots)), BLOCK)
        ]
        return np.cumsum([np.zeros(count, np.int64), *blocks], axis=0, dtype=np.int64)

    def _ordinal(self, slot: int) -> int:
        """How many earlier slots went to the source of `slot`."""
        block, source = slot // BLOCK, self.slots[slot]
        within = np.count_nonzero(self.slots[block * BLOCK : slot] == source)
        return int(self._given[block, source]) + int(within)


def weights_at(sources: Sequence[PlanSource], step: int) -> tuple[Fraction, ...]:
    """The weights of all sources in force at a step."""
    return tuple(
        next(weight for begins, weight in reversed(source.weights) if begins <= step)
        for source in sources
    )


def _phases(sources: Sequence[PlanSource], scale: int) -> list[mixture.Phase]:
    """The weights of all sources, from each step on at which one of them changes."""
    starts = sorted({start for source in sources for start, _ in source.weights})
    phases = []
    for start in starts:
        weights = weights_at(sources, start)
        if sum(weights) == 0:
            raise UsageError(f"from step {start} on all weights are 0: nothing would be drawn")
        phases.append(mixture.Phase(start * scale, weights))
    return phases


def _check(sources: Sequence[PlanSource], recipe: PlanSettings) -> None:
    names = [source.name for source in sources]
    if not sources:
        raise UsageError("a plan needs at least one source")
    if len(set(names)) != len(names):
        raise UsageError(f"two sources have the same name: {', '.join(names)}")
    for source in sources:
        if source.size < 1:
            raise UsageError(f"source {source.name} ({source.spec}) holds no samples")
        if not source.weights or source.weights[0][0] != 0:
            raise UsageError(f"source {source.name}: its first weight must hold from step 0 on")
    if recipe.batch < 1 or recipe.steps < 1:
        raise UsageError(f"batch ({recipe.batch}) and steps ({recipe.steps}) must be at least 1")
    for what, value, choices in (
        ("mix", recipe.mix_by, MIXES),
        ("weights by", recipe.weigh_by, WEIGHTS),
        ("at end", recipe.at_end, mixture.AT_END),
        ("too long", recipe.too_long, TOO_LONG),
    ):
        if value not in choices:
            raise UsageError(f"{what} {value!r} is none of {', '.join(choices)}")
    if recipe.pack_window and (recipe.seq_len < 2 or recipe.row_images < 1):
        raise UsageError("packing needs a seq_len of 2 or more and room for an image in a row")
