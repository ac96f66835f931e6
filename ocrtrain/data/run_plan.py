"""Planning: from a config and its opened shards to the plan of a run and what it will take.

Owner of the one way to both, used by training and by `tools/plan.py`: only indexes and token
counts are read. Counts that are missing are made first, once, and kept beside the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ocrdata.errors import TrainError, UsageError
from ocrdata.planning import lengths
from ocrdata.planning.counting import count_shards
from ocrdata.planning.lengths import SampleLengths, sample_lengths
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource
from ocrdata.planning.totals import PlanTotals, compute
from ocrdata.reading.view import Shards
from ocrdata.runtime.progress import to_terminal
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.sources import Sources
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.state.run_files import read_sealed

LONGEST = 5
"""How many of the longest samples are named."""


class LongSample(NamedTuple):
    """A sample by its place, and its ids before cutting."""

    source: str
    shard: str
    key: str
    tokens: int


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run, what it takes in all, and what validates beside it."""

    plan: Plan
    totals: PlanTotals
    validation: list[dict[str, Any]]
    longest: tuple[LongSample, ...]

    def recipe(self) -> dict[str, Any]:
        """All that determines the run's batches and its validation, as JSON values."""
        return {**self.plan.to_json(), "validation": self.validation}


def plan_run(config: Config, sources: Sources, tokenizer: Tokenizer) -> RunPlan:
    """Plan a run. Raises as `measure_sources` and `plan_measured` do."""
    return plan_measured(config, sources, measure_sources(config, sources, tokenizer))


def measure_sources(
    config: Config, sources: Sources, tokenizer: Tokenizer
) -> tuple[SampleLengths, ...]:
    """The measures of every source's samples. Raises ShardError for damaged indexes or counts, and
    UsageError where the config's policies refuse a sample, naming it."""
    measured = []
    for name, shards in sources.train.items():
        found = measure_view(shards, tokenizer, config)
        _refuse(name, shards, found, config)
        measured.append(found)
    return tuple(measured)


def plan_measured(config: Config, sources: Sources, measured: Sequence[SampleLengths]) -> RunPlan:
    """Plan a run whose samples are measured. Raises UsageError where it cannot be planned."""
    plan = _plan(config, sources, measured)
    # A bar on a terminal, where it takes more than a second: a billion rows take minutes.
    with tqdm(
        total=plan.steps, desc="planning", unit=" steps", delay=1, leave=False, disable=None
    ) as bar:
        totals = compute(plan, rows_per_pass=config.rows_per_pass, progress=bar.update)
    _refuse_run(config, plan, totals)
    return RunPlan(plan, totals, _validation(sources), _longest(sources, measured))


def _refuse_run(config: Config, plan: Plan, totals: PlanTotals) -> None:
    """What would train, but not as it is meant. Raises UsageError."""
    if plan.steps < config.steps and config.warmup >= plan.steps:
        raise UsageError(
            f"{plan.sources[plan.ended_by].name} ends the run after {plan.steps:,} steps, within "
            f"--warmup {config.warmup}; give fewer warm-up steps, more samples or --at-end repeat"
        )
    for source in totals.sources:
        if source.sums.samples and not source.sums.supervised:
            raise UsageError(
                f"{source.name}: of {source.sums.samples:,} samples drawn not one leaves a token "
                f"to learn from at --seq-len {config.seq_len} (an image alone takes "
                f"{image_slots(config.image_size)} positions); give a larger --seq-len"
            )


def plan_rows(config: Config, sources: Sources, tokenizer: Tokenizer) -> Plan:
    """The plan of a run that has begun: its rows and nothing else. Samples are measured only where
    rows depend on it, and none is refused: the run has taken them."""
    needed = make_recipe(config).needs_lengths
    views = sources.train.values() if needed else ()
    return _plan(config, sources, [measure_view(shards, tokenizer, config) for shards in views])


def _plan(config: Config, sources: Sources, measured: Sequence[SampleLengths]) -> Plan:
    return Plan(
        [
            PlanSource(name, len(shards), sources.shares[name], shards.spec, shards.digest)
            for name, shards in sources.train.items()
        ],
        make_recipe(config),
        measured,
    )


def check_same(path: Path, recipe: dict[str, Any], *, remedy: str) -> None:
    """Compare a recipe with the one in a run's `plan.json`, part by part; where shards lie does not
    count. Raises TrainError that says what differs, with the remedy for other shards."""
    began = read_sealed(path)
    changed = [key for key in recipe if _placeless(began.get(key)) != _placeless(recipe[key])]
    if not changed:
        return
    if set(changed) <= {"sources", "validation"}:
        raise TrainError(
            f"{path}: the shards are not those the run began with "
            f"({_first_change(began[changed[0]], recipe[changed[0]])}); {remedy}"
        )
    shown = "; ".join(f"{key}: {began.get(key)} then, {recipe[key]} now" for key in changed)
    raise TrainError(
        f"{path}: the plan is not the one the run began with: {shown[:500]}\n  it was made by "
        "another version of this software, or config.json is not the run's"
    )


def _placeless(value: object) -> object:
    """A part of a recipe without where shards lie: their digests say what they are."""
    if not isinstance(value, list):
        return value
    return [
        {key: part for key, part in one.items() if key != "spec"} if isinstance(one, dict) else one
        for one in value
    ]


def _first_change(began: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first set of shards that is another, and the first thing in which it is."""
    for old, new in zip(began, now, strict=False):
        for key in new:
            if key != "spec" and old.get(key) != new[key]:
                return f"{old.get('name')}: its {key} was {old.get(key)}, now it is {new[key]}"
    return f"they were {len(began)} sets, now they are {len(now)}"


def make_recipe(config: Config) -> PlanSettings:
    """The recipe a config asks for."""
    return PlanSettings(
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


def measure_view(shards: Shards, tokenizer: Tokenizer, config: Config) -> SampleLengths:
    """The measures of a view's samples, in its order; token counts are made where there are none.

    One shard's counts and index are held at a time.
    """
    counts = count_shards(shards, tokenizer, workers=max(1, config.workers), progress=to_terminal())
    slots, parts = image_slots(config.image_size), []
    for _, number, locals_ in shards.stretches():
        sizes = shards.shard_set.index(number).payload_sizes[locals_]
        parts.append(
            sample_lengths(
                counts.shard(number).take(locals_),
                np.minimum(sizes, np.iinfo(np.uint32).max).astype(np.uint32),
                slots=slots,
                seq_len=config.seq_len,
            )
        )
    return lengths.join(parts)


def _refuse(name: str, shards: Shards, found: SampleLengths, config: Config) -> None:
    """What a plan must not hold, by the policies of the config. Raises UsageError."""
    if len(found.unfit) and config.bad_samples == "raise":
        ref = shards.ref(int(found.unfit[0]))
        raise UsageError(
            f"{name}: {len(found.unfit):,} samples are no conversation that can be trained on; the "
            f"first is {ref.shard}: sample {ref.key}; leave them out with a slice, or leave holes "
            "for them with --bad-samples skip"
        )
    if len(found.truncated) and config.too_long == "error":
        longest = int(found.truncated[np.argmax(found.truncated_tokens)])
        ref = shards.ref(longest)
        raise UsageError(
            f"{name}: {len(found.truncated):,} samples are longer than --seq-len "
            f"{config.seq_len}; the longest, {ref.shard}: sample {ref.key}, has "
            f"{int(found.untruncated[longest]):,} tokens; "
            "give a larger --seq-len, or --too-long truncate or drop"
        )


def _longest(sources: Sources, measured: Sequence[SampleLengths]) -> tuple[LongSample, ...]:
    """The longest samples of all sources, longest first; of equals, those that come first."""
    found = []
    for (name, shards), own in zip(sources.train.items(), measured, strict=True):
        whole = own.untruncated
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
