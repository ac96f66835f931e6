"""The plan: which samples are in the batch of any step, `batch = f(plan, step)`.

A plan holds only integers and opens no files: sources are names, sizes, digests and, if rows are
packed or weighed by tokens, the lengths of their samples. The global batch of a step does not
depend on workers, ranks or micro-batches: a rank asks for its part of the batch's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ocrdata.errors import UsageError
from ocrdata.planning import mixture, packing
from ocrdata.planning.blocks import Blocks
from ocrdata.planning.choices import AT_END, MIXES, SHUFFLES, TOO_LONG, WEIGHTS, Weight
from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import ALGORITHMS, make_order
from ocrdata.planning.rows import PackedRows, PlainRows, Rows
from ocrdata.shards.arrow import Int64
from ocrdata.storage.sealed import canonical, digest_of

VERSION = 2

BLOCK = 4096
"""Mixture slots between two saved counts of how many each source was given."""


@dataclass(frozen=True)
class PlanSource:
    """What a plan knows of a source. `digest` identifies its samples (`Shards.digest`). Every order
    but `full` needs its `blocks`. `first_row` of its rows were drawn earlier in the run, before
    this plan: it begins with the next one."""

    name: str
    size: int
    weight: Weight
    spec: str = ""
    digest: str = ""
    blocks: Blocks | None = field(default=None, compare=False)
    first_row: int = 0

    @property
    def weights(self) -> tuple[tuple[int, Fraction], ...]:
        """The weights with the steps they start at; the first starts at step 0."""
        return self.weight if isinstance(self.weight, tuple) else ((0, self.weight),)


@dataclass(frozen=True)
class PlanSettings:
    """Everything besides the sources that determines a plan. `batch` is rows per step over all
    ranks, `shuffle` the order within an epoch. `pack_window` draws are packed together (0: no
    packing, a row is a sample); a packed row has at most `seq_len` token ids and `row_images`
    images."""

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
    shuffle: str = "full"

    @property
    def needs_lengths(self) -> bool:
        """Whether the choice of rows depends on the lengths of samples."""
        return bool(self.pack_window) or self.weigh_by == "tokens" or self.too_long == "drop"


class Drawn(NamedTuple):
    """What a run has drawn before its plan begins, at its step `step`: rows by source."""

    step: int = 0
    rows: Mapping[str, int] = {}


class SampleIndex(NamedTuple):
    """Where a sample comes from: source number, position in its view, and epoch."""

    source: int
    position: int
    epoch: int


PlannedRow = tuple[SampleIndex, ...]
"""The samples of one row, all from one source; a single one if rows are not packed."""


class Plan:
    """The rows of every step of a run.

    `mixture_slots[n]` is the source of mixture slot n: `rows_per_slot` rows, a batch or a single
    row. `steps` is fewer than the settings' if a source ends the run early; `ended_by` is then that
    source's number, else -1. `first_step` is the run's step that is step 0 here: a run may go on
    with another plan. Memory: two bytes per mixture slot, and what the rows need. Thread-safe.
    Raises UsageError for settings or sources that cannot be planned.
    """

    def __init__(
        self,
        sources: Sequence[PlanSource],
        settings: PlanSettings,
        lengths: Sequence[SampleLengths] = (),
        *,
        first_step: int = 0,
    ) -> None:
        _check(sources, settings)
        self.first_step = first_step
        if settings.needs_lengths and not lengths:
            raise ValueError("these plan settings need the lengths of the samples")
        self.sources, self.settings, self.lengths = tuple(sources), settings, tuple(lengths)
        self.row_sequences = [self._rows(number) for number in range(len(sources))]
        self.rows_per_slot = settings.batch if settings.mix_by == "batch" else 1
        found = self._schedule()
        self.steps = len(found.slots) * self.rows_per_slot // settings.batch
        self.ended_by = found.ended_by if self.steps < settings.steps else -1
        if not self.steps:
            raise UsageError(
                f"source {sources[found.ended_by].name} ends before the first batch is full; "
                "give a smaller --batch, more samples, or --at-end repeat"
            )
        needed = self.lengths if settings.needs_lengths else ()
        self._length_digests = [found.digest for found in needed] or [""] * len(sources)
        self.mixture_slots = found.slots[: self.steps * settings.batch // self.rows_per_slot]
        self._given_before = self._count_blocks()

    @property
    def batch(self) -> int:
        """Rows per step."""
        return self.settings.batch

    def rows(self, step: int, part: range | None = None) -> list[PlannedRow]:
        """The rows of the global batch of `step`, in order; if `part` is given, only those.

        Raises IndexError if the step is outside the plan.
        """
        numbers = self.row_numbers(step, part)
        if self.settings.mix_by == "batch" and numbers:
            source, first = numbers[0]
            return self._planned(source, first, first + len(numbers))
        return [self._planned(source, row, row + 1)[0] for source, row in numbers]

    def row_numbers(self, step: int, part: range | None = None) -> list[tuple[int, int]]:
        """For each row of a step: its source, and its number among that source's rows.

        Raises IndexError if the step is outside the plan.
        """
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside a plan of {self.steps} steps")
        part = range(self.batch) if part is None else part
        if self.settings.mix_by == "batch":
            source = int(self.mixture_slots[step])
            first = self.sources[source].first_row + self._earlier_slots(step) * self.batch
            return [(source, first + row) for row in part]
        first = step * self.batch
        slots = [first + row for row in part]
        chosen = [int(self.mixture_slots[slot]) for slot in slots]
        return [
            (source, self.sources[source].first_row + self._earlier_slots(slot))
            for source, slot in zip(chosen, slots, strict=True)
        ]

    def rows_per_source(self, steps: int | None = None) -> list[int]:
        """Number of rows the plan takes from each source, in all its steps or in the first ones."""
        slots = None if steps is None else steps * self.batch // self.rows_per_slot
        counts = np.bincount(self.mixture_slots[:slots], minlength=len(self.sources))
        return [int(count) * self.rows_per_slot for count in counts]

    def to_json(self) -> dict[str, Any]:
        """Everything that determines the plan, as JSON values. If the choice of rows depends on the
        lengths of samples (so on tokenizer and image size), each source has a digest of them; if it
        depends on blocks, their size and that of the order windows."""
        settings = asdict(self.settings)
        by_blocks = settings.pop("shuffle") == "blocks"  # "order" says it, as in all older plans
        return {
            "version": VERSION,
            "order": ALGORITHMS[self.settings.shuffle],
            "mix": mixture.ALGORITHM,
            "packing": packing.ALGORITHM if self.settings.pack_window else "",
            **settings,
            "sources": [
                {
                    "name": source.name,
                    "size": source.size,
                    "weights": [[start, str(weight)] for start, weight in source.weights],
                    "spec": source.spec,
                    "digest": source.digest,
                    "lengths": self._length_digests[number],
                    **(source.blocks.recipe._asdict() if by_blocks and source.blocks else {}),
                    **({"first_row": source.first_row} if source.first_row else {}),
                }
                for number, source in enumerate(self.sources)
            ],
        }

    @property
    def digest(self) -> str:
        """Identity of the plan: equal digests give equal rows, wherever the shards are."""
        value = self.to_json()
        for source in value["sources"]:
            del source["spec"]
        return digest_of(canonical(value))

    def _planned(self, source: int, start: int, stop: int) -> list[PlannedRow]:
        """Rows [start, stop) of a source, as sample indexes."""
        rows = self.row_sequences[source]
        size = rows.order.size
        return [
            tuple(
                SampleIndex(source, position, draw // size)
                for draw, position in zip(draws.tolist(), positions.tolist(), strict=True)
            )
            for draws, positions in rows.members(start, stop)
        ]

    def _rows(self, number: int) -> Rows:
        source, settings = self.sources[number], self.settings
        lengths = self.lengths[number] if self.lengths else None
        kept = None
        if settings.too_long == "drop" and lengths is not None and len(lengths.truncated):
            kept = np.flatnonzero(lengths.untruncated <= settings.seq_len).astype(np.int32)
            if not len(kept):
                raise UsageError(
                    f"source {source.name}: every sample is longer than --seq-len "
                    f"{settings.seq_len}"
                )
        order = make_order(
            settings.shuffle,
            source.name,
            source.size,
            seed=settings.seed,
            blocks=source.blocks,
            kept=kept,
        )
        if not settings.pack_window:
            return PlainRows(order, lengths)
        assert lengths is not None
        return PackedRows(
            order,
            lengths,
            capacity=settings.seq_len,
            window=settings.pack_window,
            max_images=settings.row_images,
            finite=settings.at_end != "repeat",
        )

    def _schedule(self) -> mixture.Schedule:
        settings = self.settings
        slots_per_step = settings.batch // self.rows_per_slot
        available = None
        if settings.at_end != "repeat":
            available = [
                max(0, rows.available() - source.first_row) // self.rows_per_slot
                for source, rows in zip(self.sources, self.row_sequences, strict=True)
            ]
        equal_sizes = settings.weigh_by == "rows" or (
            settings.weigh_by == "samples" and not settings.pack_window
        )
        return mixture.schedule(
            _phases(self.sources, slots_per_step),
            settings.steps * slots_per_step,
            available=available or [],
            at_end=settings.at_end,
            sizes=None if equal_sizes else self._sizes,
        )

    def _sizes(self, source: int, start: int, stop: int) -> Int64:
        """Tokens, or samples, in a source's mixture slots [start, stop)."""
        rows, each = self.row_sequences[source], self.rows_per_slot
        first = self.sources[source].first_row
        column = rows.lengths if self.settings.weigh_by == "tokens" else rows.samples
        counted = column(first + start * each, first + stop * each)
        sums: Int64 = counted.reshape(stop - start, each).sum(axis=1)
        return sums

    def _count_blocks(self) -> Int64:
        """Mixture slots given to each source before each block. Shape: [blocks, sources]."""
        count = len(self.sources)
        blocks = [
            np.bincount(self.mixture_slots[at : at + BLOCK], minlength=count)
            for at in range(0, max(1, len(self.mixture_slots)), BLOCK)
        ]
        return np.cumsum([np.zeros(count, np.int64), *blocks], axis=0, dtype=np.int64)

    def _earlier_slots(self, slot: int) -> int:
        """How many earlier mixture slots have the same source as `slot`."""
        block, source = slot // BLOCK, self.mixture_slots[slot]
        within = np.count_nonzero(self.mixture_slots[block * BLOCK : slot] == source)
        return int(self._given_before[block, source]) + int(within)


def weights_at(sources: Sequence[PlanSource], step: int) -> tuple[Fraction, ...]:
    """The weights of all sources that apply at a step."""
    return tuple(
        next(weight for begins, weight in reversed(source.weights) if begins <= step)
        for source in sources
    )


def _phases(sources: Sequence[PlanSource], slots_per_step: int) -> list[mixture.Phase]:
    """The weights of all sources, one phase for each step at which one of them changes."""
    starts = sorted({start for source in sources for start, _ in source.weights})
    phases = []
    for start in starts:
        weights = weights_at(sources, start)
        if sum(weights) == 0:
            raise UsageError(f"from step {start} on all weights are 0: nothing would be drawn")
        phases.append(mixture.Phase(start * slots_per_step, weights))
    return phases


def _check(sources: Sequence[PlanSource], settings: PlanSettings) -> None:
    names = [source.name for source in sources]
    if not sources:
        raise UsageError("a plan needs at least one source")
    if len(set(names)) != len(names):
        raise UsageError(f"two sources have the same name: {', '.join(names)}")
    for source in sources:
        if source.size < 1:
            raise UsageError(f"source {source.name} ({source.spec}) has no samples")
        if not source.weights or source.weights[0][0] != 0:
            raise UsageError(f"source {source.name}: its first weight must start at step 0")
    if settings.batch < 1 or settings.steps < 1:
        raise UsageError(
            f"batch ({settings.batch}) and steps ({settings.steps}) must be at least 1"
        )
    for what, value, choices in (
        ("mix_by", settings.mix_by, MIXES),
        ("weigh_by", settings.weigh_by, WEIGHTS),
        ("at_end", settings.at_end, AT_END),
        ("too_long", settings.too_long, TOO_LONG),
        ("shuffle", settings.shuffle, SHUFFLES),
    ):
        if value not in choices:
            raise UsageError(f"{what} {value!r}: must be one of {', '.join(choices)}")
    if settings.pack_window and (settings.seq_len < 2 or settings.row_images < 1):
        raise UsageError(
            f"packing needs --seq-len of at least 2 (not {settings.seq_len}) and --row-images of "
            f"at least 1 (not {settings.row_images})"
        )
