"""Planning: from a config and its opened shards to the plan of a run and what it will take.

Owner of the one way to both, used by training and by `tools/plan.py`: only indexes and token
counts are read. Counts that are missing are made first, once, and kept beside the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ocrdata import measures
from ocrdata.counting import count_shards
from ocrdata.errors import UsageError
from ocrdata.measures import Measures, measure
from ocrdata.plan import Plan, PlanSource, Recipe
from ocrdata.progress import to_terminal
from ocrdata.reader import Shards
from ocrdata.tokenizer import Tokenizer
from ocrdata.totals import Totals, compute
from ocrtrain.config import Config
from ocrtrain.encoder import image_slots
from ocrtrain.stream import Sources

LONGEST = 5
"""How many of the longest samples are named."""


class LongSample(NamedTuple):
    """A sample by its place, and its ids before cutting."""

    source: str
    shard: str
    key: str
    tokens: int


@dataclass(frozen=True)
class Planned:
    """The plan of a run, what it takes in all, and what validates beside it."""

    plan: Plan
    totals: Totals
    validation: list[dict[str, Any]]
    longest: tuple[LongSample, ...]

    def recipe(self) -> dict[str, Any]:
        """All that determines the run's batches and its validation, as JSON values."""
        return {**self.plan.to_json(), "validation": self.validation}


def plan_run(config: Config, sources: Sources, tokenizer: Tokenizer) -> Planned:
    """Plan a run. Raises as `measure_sources` and `plan_measured` do."""
    return plan_measured(config, sources, measure_sources(config, sources, tokenizer))


def measure_sources(config: Config, sources: Sources, tokenizer: Tokenizer) -> tuple[Measures, ...]:
    """The measures of every source's samples. Raises ShardError for damaged indexes or counts, and
    UsageError where the config's policies refuse a sample, naming it."""
    measured = []
    for name, shards in sources.train.items():
        found = measure_view(shards, tokenizer, config)
        _refuse(name, shards, found, config)
        measured.append(found)
    return tuple(measured)


def plan_measured(config: Config, sources: Sources, measured: Sequence[Measures]) -> Planned:
    """Plan a run whose samples are measured. Raises UsageError where it cannot be planned."""
    plan = Plan(
        [
            PlanSource(name, len(shards), sources.shares[name], shards.spec, shards.digest)
            for name, shards in sources.train.items()
        ],
        make_recipe(config),
        measured,
    )
    totals = compute(plan, rows_per_pass=config.rows_per_pass)
    return Planned(plan, totals, _validation(sources), _longest(sources, measured))


def make_recipe(config: Config) -> Recipe:
    """The recipe a config asks for."""
    return Recipe(
        batch=config.batch,
        steps=config.steps,
        seed=config.seed,
        mix_by=config.mix,
        weigh_by=config.weigh_by,
        at_end=config.at_end,
        seq_len=config.seq_len,
        too_long=config.too_long,
        pack_window=config.pack_window if config.pack else 0,
        row_images=config.row_images if config.pack else 0,
    )


def measure_view(shards: Shards, tokenizer: Tokenizer, config: Config) -> Measures:
    """The measures of a view's samples, in its order; token counts are made where there are none.

    One shard's counts and index are held at a time.
    """
    counts = count_shards(shards, tokenizer, workers=max(1, config.workers), progress=to_terminal())
    slots, parts = image_slots(config.image_size), []
    for _, number, locals_ in shards.stretches():
        sizes = shards.shard_set.index(number).payload_sizes[locals_]
        parts.append(
            measure(
                counts.shard(number).take(locals_),
                np.minimum(sizes, np.iinfo(np.uint32).max).astype(np.uint32),
                slots=slots,
                seq_len=config.seq_len,
            )
        )
    return measures.join(parts)


def _refuse(name: str, shards: Shards, found: Measures, config: Config) -> None:
    """What a plan must not hold, by the policies of the config. Raises UsageError."""
    if len(found.unfit) and config.bad_samples == "raise":
        ref = shards.ref(int(found.unfit[0]))
        raise UsageError(
            f"{name}: {len(found.unfit):,} samples are no conversation that can be trained on; the "
            f"first is {ref.shard}: sample {ref.key}; leave them out with a slice, or leave holes "
            "for them with --bad-samples skip"
        )
    if len(found.cut) and config.too_long == "error":
        longest = int(found.cut[np.argmax(found.cut_tokens)])
        ref = shards.ref(longest)
        raise UsageError(
            f"{name}: {len(found.cut):,} samples are longer than --seq-len {config.seq_len}; the "
            f"longest, {ref.shard}: sample {ref.key}, has {int(found.whole[longest]):,} tokens; "
            "give a larger --seq-len, or --too-long truncate or drop"
        )


def _longest(sources: Sources, measured: Sequence[Measures]) -> tuple[LongSample, ...]:
    """The longest samples of all sources, longest first; of equals, those that come first."""
    found = []
    for (name, shards), own in zip(sources.train.items(), measured, strict=True):
        whole = own.whole
        for position in np.argsort(-whole, kind="stable")[:LONGEST].tolist():
            ref = shards.ref(position)
            found.append(LongSample(name, ref.shard, ref.key, int(whole[position])))
    return tuple(sorted(found, key=lambda one: -one.tokens)[:LONGEST])


def _validation(sources: Sources) -> list[dict[str, Any]]:
    """What validates, by its rows: losses before and after a resume must be of the same samples."""
    return [
        {"name": name, "size": len(shards), "spec": shards.spec, "digest": shards.digest}
        for name, shards in sources.validation.items()
    ]
