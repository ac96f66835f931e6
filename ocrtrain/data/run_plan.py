"""From a config and its opened shards to the plan of a run and its totals.

Training and `tools/plan.py` both plan this way. Only indexes and token counts are read; missing
token counts are computed first, once, and stored beside the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ocrdata.errors import TrainError, UsageError
from ocrdata.planning.blocks import BlockSize, stored_size
from ocrdata.planning.choices import Weight
from ocrdata.planning.fetch_ahead import FetchCost, fetch_costs
from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.order import BlockShuffle
from ocrdata.planning.plan import Drawn, Plan, PlanSettings
from ocrdata.planning.totals import PlanTotals, compute
from ocrdata.planning.views import (
    lengths_of_view,
    plan_views,
    refuse_too_long,
    refuse_unfit,
)
from ocrdata.reading.view import Shards
from ocrdata.runtime.progress import progress_bar
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.plan_file import PlanPart
from ocrtrain.data.sources import Sources
from ocrtrain.settings.config import Config
from ocrtrain.settings.image_slots import image_slots

LONGEST = 5
"""How many of the longest samples are listed."""


class LongSample(NamedTuple):
    """Where a sample is, and its length in tokens before truncation."""

    source: str
    shard: str
    key: str
    tokens: int


class OrderOfSource(NamedTuple):
    """The order of a source's samples (--shuffle), and what it reads at a time.

    `drawn` samples are drawn in an epoch; `bytes_per_sample` are stored, on average. By blocks, a
    block has at most `block` samples and an order window `window` on average, else both are 0.
    `fetch` is how a source at URLs is read; `epochs` are those of the run.
    """

    source: str
    shuffle: str
    drawn: int
    bytes_per_sample: float
    block: int
    window: int
    epochs: float
    fetch: FetchCost | None = None

    def document(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return self._asdict() | {"fetch": asdict(self.fetch) if self.fetch else None}


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run, its totals, its validation sets, its longest samples and its orders."""

    plan: Plan
    totals: PlanTotals
    validation: list[dict[str, Any]]
    longest: tuple[LongSample, ...]
    orders: tuple[OrderOfSource, ...] = ()

    def recipe(self) -> dict[str, Any]:
        """Everything that determines the run's batches and its validation, as JSON values."""
        return {**self.plan.to_json(), "validation": self.validation}


def plan_run(
    config: Config, sources: Sources, tokenizer: Tokenizer, *, started: PlanPart | None = None
) -> RunPlan:
    """Plan a run; `started` is the part of its plan that a resumed one is in, whose first step,
    first rows and blocks it keeps. Raises like `lengths_of_sources` and `plan_with_lengths`."""
    lengths = lengths_of_sources(config, sources, tokenizer)
    return plan_with_lengths(config, sources, lengths, started=started)


def lengths_of_sources(
    config: Config, sources: Sources, tokenizer: Tokenizer
) -> tuple[SampleLengths, ...]:
    """The lengths of every source's samples. Raises ShardError for damaged indexes or token counts,
    and UsageError naming a sample that the config's policies forbid."""
    lengths = []
    for name, shards in sources.train.items():
        found = source_lengths(name, shards, tokenizer, config)
        if config.bad_samples == "raise":
            refuse_unfit(name, shards, found, tokenizer)
        if config.too_long == "error":
            refuse_too_long(name, shards, found, config.seq_len)
        lengths.append(found)
    return tuple(lengths)


def plan_with_lengths(
    config: Config,
    sources: Sources,
    lengths: Sequence[SampleLengths],
    *,
    started: PlanPart | None = None,
) -> RunPlan:
    """Plan a run from the lengths of its samples. Raises UsageError if it cannot be planned."""
    plan = bare_plan(config, sources, lengths, started)
    # Shown on a terminal if planning takes more than a second: a billion rows take minutes.
    with progress_bar(plan.steps, " steps", description="planning", delay=1) as bar:
        totals = compute(
            plan,
            rows_per_pass=config.rows_per_pass,
            image_areas=[config.image_mode(name).size ** 2 for name in sources.train],
            progress=bar.update,
        )
    _check_run(config, totals)
    return RunPlan(
        plan,
        totals,
        validation_sets(sources),
        _longest(sources, lengths),
        _orders(config, sources, plan, totals),
    )


def _check_run(config: Config, totals: PlanTotals) -> None:
    """Refuse a run that would train, but not as intended. Raises UsageError."""
    for source in totals.sources:
        if source.sums.samples and not source.sums.supervised:
            raise UsageError(
                f"{source.name}: none of {source.sums.samples:,} samples has a token to learn from "
                f"at --seq-len {config.seq_len} (one image takes "
                f"{image_slots(config.image_mode(source.name).size)} positions); give a larger "
                "--seq-len"
            )
    if "gpt" in config.freeze and not totals.sums.images:
        raise UsageError(
            "--freeze gpt: no sample of the run has an image, so that nothing would be trained; "
            "give samples with images, or train the GPT too"
        )


def plan_rows(
    config: Config, sources: Sources, tokenizer: Tokenizer, *, started: PlanPart | None = None
) -> Plan:
    """A part of the plan of a run that has already started, for its rows alone. Lengths are
    computed only if the rows depend on them, and no sample is refused: the run accepted them all.
    """
    needed = plan_settings(config).needs_lengths
    views = sources.train.items() if needed else ()
    lengths = [source_lengths(name, shards, tokenizer, config) for name, shards in views]
    return bare_plan(config, sources, lengths, started)


def bare_plan(
    config: Config,
    sources: Sources,
    lengths: Sequence[SampleLengths],
    started: PlanPart | None = None,
) -> Plan:
    """The plan of a run, or the one that goes on with the part `started`, without its totals.

    It keeps the blocks that are recorded for each source: its batches depend on them, and the
    shards may have been compressed since, or their tars written anew.
    """
    started = started or PlanPart()
    known = started.recipe.get("sources", [])
    return plan_views(
        sources.train,
        {name: weights_from(weight, started.start) for name, weight in sources.weights.items()},
        replace(plan_settings(config), steps=config.steps - started.start),
        lengths=lengths,
        recorded={
            one["name"]: BlockSize(one["block"], one["window"]) for one in known if "block" in one
        },
        drawn=Drawn(started.start, {one["name"]: one.get("first_row", 0) for one in known}),
    )


def weights_from(weight: Weight, start: int) -> Weight:
    """The weights of a source that apply from a step of the run on, counted from that step."""
    if not start or not isinstance(weight, tuple):
        return weight
    begun = [one for one in weight if one[0] <= start][-1]
    later = [(at - start, value) for at, value in weight if at > start]
    return ((0, begun[1]), *later)


def _orders(
    config: Config, sources: Sources, plan: Plan, totals: PlanTotals
) -> tuple[OrderOfSource, ...]:
    """The order of each source."""
    found = []
    costs = fetch_costs(plan, list(sources.train.values()), config.cache_bytes)
    for number, (name, shards) in enumerate(sources.train.items()):
        order, block, window = plan.row_sequences[number].order, 0, 0
        if isinstance(order, BlockShuffle):
            block, window = order.recipe.block, order.size // order.windows
        found.append(
            OrderOfSource(
                source=name,
                shuffle=plan.settings.shuffle,
                drawn=order.size,
                bytes_per_sample=float(stored_size(shards).bytes_per_sample),
                block=block,
                window=window,
                epochs=totals.sources[number].sums.samples / order.size,
                fetch=costs.get(number),
            )
        )
    return tuple(found)


def changed_keys(started: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """The parts of a recipe that differ from those in `plan.json`; shards may have moved."""
    return [
        key
        for key in recipe
        if _without_location(started.get(key)) != _without_location(recipe[key])
    ]


def check_same(
    path: Path, started: Mapping[str, Any], recipe: Mapping[str, Any], *, remedy: str
) -> None:
    """Compare a recipe with the one `started` that a run's `plan.json` has, key by key; shards may
    have moved. Raises TrainError that says what differs, with `remedy` if only the shards do."""
    changed = changed_keys(started, recipe)
    if not changed:
        return
    if set(changed) <= {"sources", "validation"}:
        raise TrainError(
            f"{path}: the shards differ from those the run started with "
            f"({_first_change(started[changed[0]], recipe[changed[0]])}); {remedy}"
        )
    shown = "; ".join(f"{key}: {started.get(key)} then, {recipe[key]} now" for key in changed)
    raise TrainError(
        f"{path}: the plan differs from the one the run started with: {shown[:500]}\n"
        "  it was made by another version of this software, or config.json is not this run's"
    )


def _without_location(value: object) -> object:
    """A part of a recipe without the location of shards: their digests identify them."""
    if not isinstance(value, list):
        return value
    return [
        {key: part for key, part in one.items() if key != "spec"} if isinstance(one, dict) else one
        for one in value
    ]


def _first_change(started: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first set of shards that differs, and the first value in which it does."""
    for old, new in zip(started, now, strict=False):
        for key in new:
            if key != "spec" and old.get(key) != new[key]:
                return f"{old.get('name')}: {key} was {old.get(key)}, is now {new[key]}"
    return f"{len(started)} sets then, {len(now)} now"


def plan_settings(config: Config) -> PlanSettings:
    """The plan settings in a config."""
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
        shuffle=config.shuffle,
    )


def source_lengths(
    name: str, shards: Shards, tokenizer: Tokenizer, config: Config
) -> SampleLengths:
    """The lengths of a source's samples; missing token counts are computed first."""
    return lengths_of_view(
        shards,
        tokenizer,
        slots=image_slots(config.image_mode(name).size),
        seq_len=config.seq_len,
        workers=max(1, config.workers),
        skip_damaged=config.bad_samples == "skip",
    )


def _longest(sources: Sources, lengths: Sequence[SampleLengths]) -> tuple[LongSample, ...]:
    """The longest samples of all sources, longest first; ties in their own order."""
    found = []
    for (name, shards), own in zip(sources.train.items(), lengths, strict=True):
        untruncated = own.untruncated
        for position in np.argsort(-untruncated, kind="stable")[:LONGEST].tolist():
            ref = shards.ref(position)
            found.append(LongSample(name, ref.shard, ref.key, int(untruncated[position])))
    return tuple(sorted(found, key=lambda one: -one.tokens)[:LONGEST])


def validation_sets(sources: Sources) -> list[dict[str, Any]]:
    """The validation sets: losses before and after a resume must be of the same samples."""
    return [
        {"name": name, "size": len(shards), "spec": shards.spec, "digest": shards.digest}
        for name, shards in sources.validation.items()
    ]
