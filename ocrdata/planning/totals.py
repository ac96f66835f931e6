"""Totals of a plan: what it takes from each source, and the sizes of its batches, exactly.

The samples of one epoch are summed once and multiplied by the number of whole epochs; the rest is
summed draw by draw. Padding is summed over every step. No sample is read, and no FLOPs are counted
(`ocrtrain.cost.gpus` does, from these totals).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import CHUNK, SampleOrder
from ocrdata.planning.plan import Plan, weights_at
from ocrdata.planning.rows import Consumed
from ocrdata.shards.arrow import Int64


class SampleSums(NamedTuple):
    """Sums over samples. `tokens` are token ids, image positions included; `squares` are the
    squares of the samples' lengths, for the cost of attention; `empty` is the number of samples
    without a token to learn from."""

    samples: int = 0
    tokens: int = 0
    squares: int = 0
    supervised: int = 0
    images: int = 0
    bytes: int = 0
    truncated_samples: int = 0
    truncated_tokens: int = 0
    truncated_turns: int = 0
    empty: int = 0

    def plus(self, other: SampleSums) -> SampleSums:
        """The sum of both."""
        return SampleSums(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: int) -> SampleSums:
        """Every sum multiplied by `factor`."""
        return SampleSums(*(factor * value for value in self))


@dataclass(frozen=True)
class SourceTotals:
    """What a run takes from one source.

    `dropped` of the `size` samples in its view are never drawn. The fractions are of what the plan
    weighs by (rows, samples or tokens): as set by the weights, and as planned.
    """

    name: str
    size: int
    dropped: int
    rows: int
    sums: SampleSums
    weight_fraction: float
    planned_fraction: float

    @property
    def epochs(self) -> float:
        """How many times each sample is drawn, on average."""
        return self.sums.samples / (self.size - self.dropped)


@dataclass(frozen=True)
class PlanTotals:
    """Totals of a whole run. A pass is the rows that go through the model at once. `positions` are
    those of all passes, padding included; `longest` is the longest row, `most_images` the most
    images in one pass, and `largest_pass` has the images of each source in the pass with the most
    to encode."""

    sources: tuple[SourceTotals, ...]
    steps: int
    batch: int
    positions: int
    longest: int
    most_images: int
    largest_pass: tuple[int, ...]

    @property
    def sums(self) -> SampleSums:
        """Sums over all sources."""
        total = SampleSums()
        for source in self.sources:
            total = total.plus(source.sums)
        return total

    @property
    def rows(self) -> int:
        """Rows in the run."""
        return self.steps * self.batch

    @property
    def padding(self) -> float:
        """The fraction of positions that are padding."""
        return 1 - self.sums.tokens / self.positions


def compute(
    plan: Plan,
    *,
    rows_per_pass: int,
    image_areas: Sequence[int] = (),
    progress: Callable[[int], object] = lambda _: None,
) -> PlanTotals:
    """The totals of a plan with sample lengths. `image_areas` are the pixels to encode of an image
    of each source, relative to each other; without them all are equal. `progress` is called with
    each number of steps done."""
    rows = plan.rows_per_source()
    taken = []
    for number, own in enumerate(plan.row_sequences):
        first = plan.sources[number].first_row
        sums = _taken(own.order, plan.lengths[number], own.consumed(first + rows[number]))
        if first:
            drawn = _taken(own.order, plan.lengths[number], own.consumed(first))
            sums = sums.plus(drawn.times(-1))
        taken.append(sums)
    set_fractions, planned = _weight_fractions(plan), _planned_fractions(plan, rows, taken)
    areas = np.array(image_areas or [1] * len(plan.sources), np.int64)
    passes = _passes(plan, rows_per_pass, areas, progress)
    return PlanTotals(
        sources=tuple(
            SourceTotals(
                name=source.name,
                size=source.size,
                dropped=source.size - plan.row_sequences[number].order.size,
                rows=rows[number],
                sums=taken[number],
                weight_fraction=set_fractions[number],
                planned_fraction=planned[number],
            )
            for number, source in enumerate(plan.sources)
        ),
        steps=plan.steps,
        batch=plan.batch,
        positions=passes.positions,
        longest=passes.longest,
        most_images=passes.most_images,
        largest_pass=passes.largest,
    )


def _taken(order: SampleOrder, sample_lengths: SampleLengths, consumed: Consumed) -> SampleSums:
    """Sums over the draws in a source's rows."""
    columns = _Columns(sample_lengths)
    epochs, rest = divmod(consumed.whole, order.size)
    start = epochs * order.size
    total = SampleSums()
    if epochs:
        for positions in order.chunks(0, order.size):
            total = total.plus(columns.sums(positions))
        total = total.times(epochs)
    for positions in order.chunks(start, start + rest):
        total = total.plus(columns.sums(positions))
    return total.plus(columns.sums(consumed.extra))


class _Columns:
    """The sample lengths of a source, with a way from any position to what truncation removed."""

    def __init__(self, sample_lengths: SampleLengths) -> None:
        self._sample_lengths = sample_lengths
        self._truncated: Int64 | None = None
        truncated = sample_lengths.truncated
        if len(truncated):
            # For each position, its entry among the truncated samples; -1 if not truncated.
            self._truncated = np.full(len(sample_lengths), -1, np.int32)
            self._truncated[truncated] = np.arange(len(truncated), dtype=np.int32)

    def sums(self, positions: Int64) -> SampleSums:
        found = self._sample_lengths
        lengths = found.lengths[positions].astype(np.int64)
        supervised = found.supervised[positions]
        truncated = np.empty(0, np.int64)
        if self._truncated is not None:
            truncated = self._truncated[positions]
            truncated = truncated[truncated >= 0]
        return SampleSums(
            samples=len(positions),
            tokens=int(lengths.sum()),
            squares=int((lengths * lengths).sum()),
            supervised=int(supervised.sum(dtype=np.int64)),
            images=int(found.images[positions].sum(dtype=np.int64)),
            bytes=int(found.bytes[positions].sum(dtype=np.int64)),
            truncated_samples=len(truncated),
            truncated_tokens=int(found.truncated_tokens[truncated].sum(dtype=np.int64)),
            truncated_turns=int(found.truncated_turns[truncated].sum(dtype=np.int64)),
            empty=int(np.count_nonzero(supervised == 0)),
        )


def _weight_fractions(plan: Plan) -> list[float]:
    """The weight of each source as a fraction of all weights, averaged over the steps."""
    starts = sorted({start for source in plan.sources for start, _ in source.weights})
    sums = np.zeros(len(plan.sources))
    for start, stop in zip(starts, [*starts[1:], plan.steps], strict=True):
        steps = max(0, min(stop, plan.steps) - start)
        weights = weights_at(plan.sources, start)
        total = sum(weights)
        sums += [steps * float(weight / total) for weight in weights]
    return [float(value) / plan.steps for value in sums]


def _planned_fractions(plan: Plan, rows: list[int], taken: list[SampleSums]) -> list[float]:
    """The fraction of rows, samples or tokens (what the plan weighs by) from each source."""
    counted: dict[str, list[int]] = {
        "rows": rows,
        "samples": [sums.samples for sums in taken],
        "tokens": [sums.tokens for sums in taken],
    }
    values = counted[plan.settings.weigh_by]
    return [value / sum(values) for value in values]


class _Passes(NamedTuple):
    """Positions of all passes with padding, the longest row, the most images in one pass, and the
    images of each source in the pass with the most to encode."""

    positions: int
    longest: int
    most_images: int
    largest: tuple[int, ...]


def _passes(
    plan: Plan, rows_per_pass: int, image_areas: Int64, progress: Callable[[int], object]
) -> _Passes:
    count = len(plan.sources)
    positions = longest = most = 0
    most_area, largest = -1, (0,) * count
    for lengths, images, sources in batches(plan):
        for start in range(0, plan.batch, rows_per_pass):
            rows = slice(start, start + rows_per_pass)
            part = lengths[:, rows]
            widths = part.max(axis=1)
            positions += int(widths.sum()) * part.shape[1]
            longest = max(longest, int(widths.max()))
            most = max(most, int(images[:, rows].sum(axis=1).max()))
            areas = (images[:, rows] * image_areas[sources[:, rows]]).sum(axis=1)
            at = int(areas.argmax())
            if areas[at] > most_area:
                most_area = int(areas[at])
                shown = np.bincount(sources[at, rows], images[at, rows], count)
                largest = tuple(int(number) for number in shown)
        progress(len(lengths))
    return _Passes(positions, longest, most, largest)


def batches(plan: Plan) -> Iterator[tuple[Int64, Int64, Int64]]:
    """Token ids, images and source of every row, for some steps at a time. Shapes: [steps,
    batch]."""
    rows_per_slot = plan.rows_per_slot
    slots_per_step = plan.batch // rows_per_slot
    given = np.zeros(len(plan.sources), np.int64)  # mixture slots so far, by source
    steps = max(1, CHUNK // plan.batch)
    for first in range(0, plan.steps, steps):
        last = min(plan.steps, first + steps)
        slots = plan.mixture_slots[first * slots_per_step : last * slots_per_step]
        lengths = np.empty((len(slots), rows_per_slot), np.int64)
        images = np.empty_like(lengths)
        for source in np.unique(slots).tolist():
            chosen = slots == source
            begin, end = int(given[source]), int(given[source]) + int(np.count_nonzero(chosen))
            first_row = plan.sources[source].first_row
            ids, shown = plan.row_sequences[source].sizes(
                first_row + begin * rows_per_slot, first_row + end * rows_per_slot
            )
            lengths[chosen] = ids.reshape(-1, rows_per_slot)
            images[chosen] = shown.reshape(-1, rows_per_slot)
            given[source] = end
        shape = (-1, plan.batch)
        sources = np.repeat(slots.astype(np.int64), rows_per_slot)
        yield lengths.reshape(shape), images.reshape(shape), sources.reshape(shape)
