"""The plan: which samples stand in the batch of any step, `batch = f(plan, step)`.

Owner of the way from a step to samples. It holds integers only and opens nothing: sources are
names, sizes and digests. The global batch of a step does not depend on workers, ranks or
micro-batches; how a batch is split among them is the trainer's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ocrdata import mix, order
from ocrdata.errors import UsageError

VERSION = 1

MIXES = ("batch", "sample")
"""'batch': a batch comes from one source. 'sample': each row has a source of its own."""


@dataclass(frozen=True)
class PlanSource:
    """A source as the plan sees it. `digest` is the identity of its rows (`Shards.digest`)."""

    name: str
    size: int
    weight: Fraction
    spec: str = ""
    digest: str = ""


class Place(NamedTuple):
    """Where a row comes from: source number, position in its view, and the epoch it is in."""

    source: int
    position: int
    epoch: int


class Plan:
    """The rows of every step of a run.

    A source that ends starts its next epoch in a new order; a batch may straddle two epochs. Two
    bytes for the mix and eight for its ordinals are held per slot, no more. Raises UsageError for
    an empty source, two of one name, or numbers below 1.
    """

    def __init__(
        self,
        sources: Sequence[PlanSource],
        *,
        batch: int,
        steps: int,
        seed: int,
        mix_by: str = "batch",
    ) -> None:
        _check(sources, batch, steps, mix_by)
        self.sources = tuple(sources)
        self.batch, self.steps, self.seed, self.mix_by = batch, steps, seed, mix_by
        slots = steps if mix_by == "batch" else steps * batch
        self._slots = mix.schedule([source.weight for source in sources], slots)
        self._ordinals = mix.ordinals(self._slots, len(sources))
        self._orders: dict[tuple[int, int], order.Order] = {}

    def places(self, step: int) -> list[Place]:
        """The rows of the global batch of `step`, in order. Raises IndexError outside the plan."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of a plan of {self.steps} steps")
        if self.mix_by == "batch":
            source = int(self._slots[step])
            first = int(self._ordinals[step]) * self.batch
            draws = [(source, first + row) for row in range(self.batch)]
        else:
            rows = slice(step * self.batch, (step + 1) * self.batch)
            draws = list(
                zip(self._slots[rows].tolist(), self._ordinals[rows].tolist(), strict=True)
            )
        return [self._place(source, number) for source, number in draws]

    def rows_per_source(self) -> list[int]:
        """Rows the whole plan takes from each source."""
        counts = np.bincount(self._slots, minlength=len(self.sources))
        return [int(count) * (self.batch if self.mix_by == "batch" else 1) for count in counts]

    def recipe(self) -> dict[str, Any]:
        """All that determines the plan, as JSON values."""
        return {
            "version": VERSION,
            "order": order.ALGORITHM,
            "mix": mix.ALGORITHM,
            "mix_by": self.mix_by,
            "seed": self.seed,
            "batch": self.batch,
            "steps": self.steps,
            "sources": [
                {
                    "name": source.name,
                    "size": source.size,
                    "weight": str(source.weight),
                    "spec": source.spec,
                    "digest": source.digest,
                }
                for source in self.sources
            ],
        }

    def _place(self, source: int, number: int) -> Place:
        """The `number`-th row ever drawn from a source."""
        epoch, within = divmod(number, self.sources[source].size)
        return Place(source, self._order(source, epoch)[within], epoch)

    def _order(self, source: int, epoch: int) -> order.Order:
        key = (source, epoch)
        found = self._orders.get(key)
        if found is None:
            what = self.sources[source]
            found = order.Order(what.size, seed=self.seed, epoch=epoch, source=what.name)
            if len(self._orders) >= 4 * len(self.sources):
                # Cheap to make again. Cleared whole, so that threads cannot meet a half-made state.
                self._orders = {}
            self._orders[key] = found
        return found


def _check(sources: Sequence[PlanSource], batch: int, steps: int, mix_by: str) -> None:
    names = [source.name for source in sources]
    if not sources:
        raise UsageError("a plan needs at least one source")
    if len(set(names)) != len(names):
        raise UsageError(f"two sources have the same name: {', '.join(names)}")
    for source in sources:
        if source.size < 1:
            raise UsageError(f"source {source.name} ({source.spec}) holds no samples")
    if batch < 1 or steps < 1:
        raise UsageError(f"batch ({batch}) and steps ({steps}) must be at least 1")
    if mix_by not in MIXES:
        raise UsageError(f"mix {mix_by!r} is none of {', '.join(MIXES)}")
