"""The plan of a resumed run: the part it was in, or a new part from here on.

If data, weights or batch are not those the run was in, a new part begins at the step of the
checkpoint. Of a source that goes on, it begins with the next row: no sample is repeated before its
epoch is over, and none is left out. In: the config and sources to go on with, `plan.json`, and the
config of the checkpoint. Out: the plan and all parts, to be written. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from ocrdata.errors import OcrError, TrainError, UsageError
from ocrdata.planning.choices import Weight
from ocrdata.planning.plan import Plan
from ocrdata.reading.view import Shards
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.plan_file import PlanPart, read_parts
from ocrtrain.data.run_plan import (
    RunPlan,
    bare_plan,
    check_same,
    lengths_of_sources,
    plan_settings,
    plan_with_lengths,
    source_lengths,
    validation_sets,
    weights_from,
)
from ocrtrain.data.sources import Sources, open_training
from ocrtrain.settings.config import Config
from ocrtrain.settings.saved_config import compare, from_json, to_json

OF_A_PART = ("batch", "mix", "weigh_by", "at_end", "image_size_of")
"""Settings of which a change begins a new part; so do other data, and other weights."""

WEIGHTS = ("source", "source_at", "text_ratio", "text_ratio_at")
"""Settings that may change the weights of sources."""

REMEDY = "restore them to resume, or go on with the new ones by --new-data"


class DataChange(NamedTuple):
    """A training or validation set that is new, gone or other: what it was and is. Either has its
    spec, size and digest, or is None."""

    role: str
    name: str
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


@dataclass(frozen=True)
class ContinuedPlan:
    """The plan that a run goes on with, and all parts of the run's plan; that plan is the last."""

    planned: RunPlan
    parts: tuple[PlanPart, ...]
    data_changes: tuple[DataChange, ...] = ()

    @property
    def start(self) -> int:
        """First step of the last part."""
        return self.parts[-1].start


def new_plan(planned: RunPlan) -> ContinuedPlan:
    """The plan of a run that starts: one part."""
    return ContinuedPlan(planned, (PlanPart(0, planned.recipe()),))


def continue_plan(
    config: Config,
    sources: Sources,
    tokenizer: Tokenizer,
    *,
    path: Path,
    before: tuple[int, Config],
    new_data: bool = False,
) -> ContinuedPlan:
    """The plan of a run that goes on from a checkpoint: `before` has its step and its config,
    `path` is `plan.json`. Parts that begin at that step or later are discarded: none of their
    batches is in the checkpoint.

    Raises TrainError if the data differ, unless `new_data`, and UsageError if a new part is needed
    and what was drawn so far cannot be counted. Plans raise their own errors.
    """
    step, old = before
    parts = [part for part in read_parts(path) if part.start < step or not part.start]
    parts[-1] = replace(parts[-1], config=None)
    recipe = parts[-1].recipe
    changes = _data_changes(recipe, sources)
    if changes and not new_data:
        one = changes[0]
        raise TrainError(
            f"{path}: the shards differ from those the run started with "
            f"({one.name}: {_shown(one.old)} then, {_shown(one.new)} now); {REMEDY}"
        )
    lengths = lengths_of_sources(config, sources, tokenizer)
    names = {one.name for one in compare(old, config)}
    if not (
        names & {*OF_A_PART}
        or any(one.role == "train" for one in changes)
        or (names & {*WEIGHTS} and _weights(recipe) != _weights_now(sources, parts[-1].start))
    ):
        planned = plan_with_lengths(config, sources, lengths, started=parts[-1])
        # The number of steps is that of config.json; other validation sets were asked for.
        same = {k: v for k, v in planned.recipe().items() if k not in ("steps", "validation")}
        check_same(path, recipe, same, remedy=REMEDY)
        parts[-1] = replace(parts[-1], recipe=planned.recipe())
        return ContinuedPlan(planned, tuple(parts), changes)
    _check_rows_stay(old, config, [one["name"] for one in recipe["sources"]])
    known = _drawn(parts, before, sources, tokenizer)
    part = PlanPart(step, {"sources": [{"name": name, **one} for name, one in known.items()]})
    planned = plan_with_lengths(config, sources, lengths, started=part)
    parts[-1] = replace(parts[-1], config=to_json(old))
    return ContinuedPlan(planned, (*parts, PlanPart(step, planned.recipe())), changes)


def _check_rows_stay(old: Config, config: Config, names: Sequence[str]) -> None:
    """Check that row n of every source that a run had is the same one as before. Raises UsageError
    if its images have another size, by which other samples would share a row, or be dropped."""
    if not plan_settings(config).pack_window and config.too_long != "drop":
        return
    for name in names:
        then, now = old.image_mode(name), config.image_mode(name)
        if then != now:
            what = "--pack" if config.pack else "--too-long drop"
            raise UsageError(
                f"--image-size-of: {name} was shown at {then} px and would be at {now}; with "
                f"{what} its rows would be other ones, so that samples are repeated or left out; "
                "keep its size, or start a new run from the weights with --init"
            )


def _identity(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one["name"], one["size"], one["digest"]


def _data_changes(recipe: Mapping[str, Any], sources: Sources) -> tuple[DataChange, ...]:
    """What differs between the sets of a recipe and those that are open. The order of training
    sources counts, too."""
    training = [
        {"name": name, "size": len(shards), "spec": shards.spec, "digest": shards.digest}
        for name, shards in sources.train.items()
    ]
    found = []
    for role, old, new in (
        ("train", recipe.get("sources", []), training),
        ("val", recipe.get("validation", []), validation_sets(sources)),
    ):
        if [_identity(one) for one in old] == [_identity(one) for one in new]:
            continue
        was, now = _by_name(old), _by_name(new)
        changed = [
            DataChange(role, name, was.get(name), now.get(name))
            for name in dict.fromkeys([*was, *now])
            if _content(was.get(name)) != _content(now.get(name))
        ]
        found += changed or [DataChange(role, name, was[name], now[name]) for name in now]
    return tuple(found)


def _by_name(sets: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: {key: one[key] for key in ("spec", "size", "digest")} for one in sets}


def _content(one: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    return None if one is None else (one["size"], one["digest"])


def _shown(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "none"
    return f"{one['size']} samples of {one['spec']} with digest {one['digest']}"


def _weights(recipe: Mapping[str, Any]) -> list[Any]:
    return [one["weights"] for one in recipe["sources"]]


def _weights_now(sources: Sources, start: int) -> list[Any]:
    """The weights of the sources from a step on, as a recipe has them."""
    found = []
    for weight in sources.weights.values():
        since = weights_from(weight, start)
        pairs = since if isinstance(since, tuple) else ((0, since),)
        found.append([[at, str(value)] for at, value in pairs])
    return found


def _drawn(
    parts: Sequence[PlanPart], before: tuple[int, Config], sources: Sources, tokenizer: Tokenizer
) -> dict[str, dict[str, Any]]:
    """Of the sources that were trained on before, by name: how many of their rows the run has
    drawn, and the recorded sizes of their blocks."""
    step, config = before
    now = {(name, len(shards), shards.digest): shards for name, shards in sources.train.items()}
    found: dict[str, dict[str, Any]] = {}
    ends = [*(part.start for part in parts[1:]), step]
    for part, end in reversed(list(zip(parts, ends, strict=True))):
        recorded = part.recipe["sources"]
        wanted = [one for one in recorded if _identity(one) in now and one["name"] not in found]
        if not wanted:
            continue
        own = config if part.config is None else from_json(dict(part.config))
        rows = _plan_of(part, own, now, tokenizer).rows_per_source(end - part.start)
        for number, one in enumerate(recorded):
            if one in wanted:
                found[one["name"]] = {
                    "first_row": one.get("first_row", 0) + rows[number],
                    **{key: one[key] for key in ("block", "window") if key in one},
                }
    return found


def _plan_of(
    part: PlanPart, config: Config, views: Mapping[tuple[Any, ...], Shards], tokenizer: Tokenizer
) -> Plan:
    """The plan of an earlier part; shards that are not open are opened."""
    recorded = part.recipe["sources"]
    train = {one["name"]: views[_identity(one)] for one in recorded if _identity(one) in views}
    if len(train) < len(recorded):
        opened = _open_earlier(config).train
        train = {one["name"]: opened[one["name"]] for one in recorded if one["name"] in opened}
    for one in recorded:
        view = train.get(one["name"])
        if view is None or (len(view), view.digest) != (one["size"], one["digest"]):
            raise UsageError(
                f"{one['name']} ({one['spec']}) is not the set that was trained on, so what the "
                "run has drawn cannot be counted; restore it until the run has gone on"
            )
    weights: dict[str, Weight] = {
        one["name"]: tuple((part.start + at, Fraction(value)) for at, value in one["weights"])
        for one in recorded
    }
    needed = train.items() if plan_settings(config).needs_lengths else ()
    lengths = [source_lengths(name, view, tokenizer, config) for name, view in needed]
    return bare_plan(config, Sources(train, weights, {}), lengths, part)


def _open_earlier(config: Config) -> Sources:
    try:
        return open_training(config)
    except OcrError as exc:
        raise UsageError(
            f"the sets trained on so far are needed to count what the run has drawn: {exc}"
        ) from exc
