"""Totals: what a plan takes from each source, and what its batches will be, to the token.

Owner of the sums over a whole run. What a source gives is summed over one epoch and multiplied,
with the rest walked; the padding of passes is walked step by step, in pieces. It reads no sample
and counts no FLOPs (`ocrtrain.cost.gpus` does, from these numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import CHUNK, SampleOrder
from ocrdata.planning.plan import Plan, weights_at
from ocrdata.planning.rows import Consumed
from ocrdata.shards.arrow import Int64


class SampleSums(NamedTuple):
    """Sums over samples. `tokens` are ids of rows, image positions among them; `squares` are the
    squares of the samples' lengths, which attention costs; `empty` samples leave no token to
    learn from."""

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
        """Both together."""
        return SampleSums(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: int) -> SampleSums:
        """So many of them."""
        return SampleSums(*(factor * value for value in self))


@dataclass(frozen=True)
class SourceTotals:
    """What a run takes from one source. `dropped` samples of its view are never drawn."""

    name: str
    size: int
    dropped: int
    rows: int
    sums: SampleSums
    asked: float
    got: float

    @property
    def epochs(self) -> float:
        """How often each sample is drawn."""
        return self.sums.samples / (self.size - self.dropped)


@dataclass(frozen=True)
class PlanTotals:
    """A whole run. `positions` are those of the padded passes, padding included; a pass is the
    rows that go through the model at once. `longest` is the longest row of a pass, `most_images`
    the images of a pass, each at its most."""

    sources: tuple[SourceTotals, ...]
    steps: int
    batch: int
    positions: int
    longest: int
    most_images: int

    @property
    def sums(self) -> SampleSums:
        """Over all sources."""
        total = SampleSums()
        for source in self.sources:
            total = total.plus(source.sums)
        return total

    @property
    def rows(self) -> int:
        """Rows of the run."""
        return self.steps * self.batch

    @property
    def padding(self) -> float:
        """The share of positions that holds nothing."""
        return 1 - self.sums.tokens / self.positions


def compute(
    plan: Plan, *, rows_per_pass: int, progress: Callable[[int], object] = lambda _: None
) -> PlanTotals:
    """The totals of a plan that has measures. `progress` is called with steps as they are done."""
    rows = plan.rows_per_source()
    taken = [
        _taken(own.draws, plan.measures[number], own.consumed(rows[number]))
        for number, own in enumerate(plan.row_sequences)
    ]
    asked, got = _asked(plan), _got(plan, rows, taken)
    positions, longest, images = _passes(plan, rows_per_pass, progress)
    return PlanTotals(
        sources=tuple(
            SourceTotals(
                name=source.name,
                size=source.size,
                dropped=source.size - plan.row_sequences[number].draws.size,
                rows=rows[number],
                sums=taken[number],
                asked=asked[number],
                got=got[number],
            )
            for number, source in enumerate(plan.sources)
        ),
        steps=plan.steps,
        batch=plan.batch,
        positions=positions,
        longest=longest,
        most_images=images,
    )


def _taken(draws: SampleOrder, measures: SampleLengths, consumed: Consumed) -> SampleSums:
    """The sums over the draws behind a source's rows."""
    columns = _Columns(measures)
    epochs, rest = divmod(consumed.whole, draws.size)
    start = epochs * draws.size
    total = SampleSums()
    if epochs:
        for positions in draws.chunks(0, draws.size):
            total = total.plus(columns.sums(positions))
        total = total.times(epochs)
    for positions in draws.chunks(start, start + rest):
        total = total.plus(columns.sums(positions))
    return total.plus(columns.sums(consumed.extra))


class _Columns:
    """The measures of a source, with what was cut at every position."""

    def __init__(self, measures: SampleLengths) -> None:
        self._measures = measures
        self._cut: Int64 | None = None
        if len(measures.truncated):
            # Which entry of the cut ones a position is; -1 where nothing was cut.
            self._cut = np.full(len(measures), -1, np.int32)
            self._cut[measures.truncated] = np.arange(len(measures.truncated), dtype=np.int32)

    def sums(self, positions: Int64) -> SampleSums:
        found = self._measures
        lengths = found.lengths[positions].astype(np.int64)
        supervised = found.supervised[positions]
        cut = np.empty(0, np.int64)
        if self._cut is not None:
            cut = self._cut[positions]
            cut = cut[cut >= 0]
        return SampleSums(
            samples=len(positions),
            tokens=int(lengths.sum()),
            squares=int((lengths * lengths).sum()),
            supervised=int(supervised.sum(dtype=np.int64)),
            images=int(found.images[positions].sum(dtype=np.int64)),
            bytes=int(found.bytes[positions].sum(dtype=np.int64)),
            truncated_samples=len(cut),
            truncated_tokens=int(found.truncated_tokens[cut].sum(dtype=np.int64)),
            truncated_turns=int(found.truncated_turns[cut].sum(dtype=np.int64)),
            empty=int(np.count_nonzero(supervised == 0)),
        )


def _asked(plan: Plan) -> list[float]:
    """The mean share of each source over the steps of the run, as its weights have it."""
    starts = sorted({start for source in plan.sources for start, _ in source.weights})
    shares = np.zeros(len(plan.sources))
    for start, stop in zip(starts, [*starts[1:], plan.steps], strict=True):
        steps = max(0, min(stop, plan.steps) - start)
        weights = weights_at(plan.sources, start)
        total = sum(weights)
        shares += [steps * float(weight / total) for weight in weights]
    return [float(share) / plan.steps for share in shares]


def _got(plan: Plan, rows: list[int], taken: list[SampleSums]) -> list[float]:
    """The share of each source in what shares are counted in."""
    counted: dict[str, list[int]] = {
        "rows": rows,
        "samples": [sums.samples for sums in taken],
        "tokens": [sums.tokens for sums in taken],
    }
    values = counted[plan.recipe.weigh_by]
    return [value / sum(values) for value in values]


def _passes(
    plan: Plan, rows_per_pass: int, progress: Callable[[int], object]
) -> tuple[int, int, int]:
    """Positions of all padded passes, their longest row, and the most images of one."""
    positions = longest = most = 0
    for lengths, images in batches(plan):
        for start in range(0, plan.batch, rows_per_pass):
            part = lengths[:, start : start + rows_per_pass]
            widths = part.max(axis=1)
            positions += int(widths.sum()) * part.shape[1]
            longest = max(longest, int(widths.max()))
            shown = images[:, start : start + rows_per_pass].sum(axis=1)
            most = max(most, int(shown.max()))
        progress(len(lengths))
    return positions, longest, most


def batches(plan: Plan) -> Iterator[tuple[Int64, Int64]]:
    """Lengths and images of every row, in the order of the steps: [steps of a piece, batch]."""
    count = len(plan.sources)
    by_batch = plan.recipe.mix_by == "batch"
    each = plan.batch if by_batch else 1
    given = np.zeros(count, np.int64)
    steps = max(1, CHUNK // plan.batch)
    for first in range(0, plan.steps, steps):
        last = min(plan.steps, first + steps)
        slots = plan.slots[first:last] if by_batch else plan.slots[
            first * plan.batch : last * plan.batch
        ]  # fmt: skip
        lengths = np.empty((len(slots), each), np.int64)
        images = np.empty_like(lengths)
        for source in np.unique(slots).tolist():
            chosen = slots == source
            number = int(np.count_nonzero(chosen))
            start, stop = int(given[source]) * each, (int(given[source]) + number) * each
            ids, shown = plan.row_sequences[source].sizes(start, stop)
            lengths[chosen], images[chosen] = ids.reshape(number, each), shown.reshape(number, each)
            given[source] += number
        yield lengths.reshape(-1, plan.batch), images.reshape(-1, plan.batch)
