"""Opens the shards a config names: training sources with their weights, and validation sources."""

from __future__ import annotations

import shlex
from collections.abc import Container, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ocrdata.errors import UsageError
from ocrdata.planning.choices import Weight
from ocrdata.reading.samples import load_sample
from ocrdata.reading.selection import SelectedShards
from ocrdata.reading.slices import parse_slice, split_slice
from ocrdata.reading.spec import separate
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.names import set_location
from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.fetching import use_cache
from ocrdata.storage.location import Location
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import prepare_sample
from ocrtrain.settings.config import Config
from ocrtrain.settings.named_sources import parse_specs

HELD_OUT = 100
"""A source without validation samples is validated on its last 1 %, at most this many."""

VALIDATION_AHEAD = 64
"""Validation samples at URLs that are requested at once."""

GRID = 1 << 16
"""A weight that sources share by their numbers of samples is divided in parts of 1/GRID, so that
all weights of a plan keep a small common denominator."""


@dataclass(frozen=True)
class Sources:
    """Opened shards by source name: training sources with their weights, and validation sources.
    The validation sets in `held_out` are the last samples of a training set, not trained on.
    `notes` are sentences to be printed."""

    train: dict[str, Shards]
    weights: dict[str, Weight]
    validation: dict[str, Shards]
    held_out: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def with_notes(self, notes: Sequence[str]) -> Sources:
        """The same sources with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def describe(self) -> list[str]:
        """What is validated on, and the notes, as lines for a terminal."""
        lines = []
        for name, shards in self.validation.items():
            count = "1 sample" if len(shards) == 1 else f"{len(shards):,} samples"
            why = f", its last 1 % (at most {HELD_OUT}), not trained on"
            lines.append(
                f"validate on {count} of {name} ({shards.spec})"
                + (why if name in self.held_out else "")
            )
        return [*lines, *self.notes]


def open_sources(config: Config) -> Sources:
    """Open all shards a config names; reads only indexes. Raises UsageError for an empty slice."""
    return _opened(config, validate=True)


def open_training(config: Config) -> Sources:
    """Open the training sources alone, which is all that batches depend on."""
    return replace(_opened(config, validate=False), validation={}, held_out=frozenset())


def _opened(config: Config, *, validate: bool) -> Sources:
    """The sources; without `validate`, shards named for validation are not opened. What is read
    from URLs is kept in the config's cache from now on."""
    use_cache(BlockCache(Path(config.cache), config.cache_bytes) if config.cache else None)
    opened = _Opened()
    if config.source:
        _open_named(config, opened, validate=validate)
    else:
        _open_short_form(config, opened, validate=validate)
    return Sources(
        train=opened.train,
        weights=opened.weights,
        validation=opened.validation,
        held_out=frozenset(opened.held_out),
        notes=tuple(opened.notes),
    )


def open_each(specs: Sequence[str], flag: str) -> dict[str, Shards]:
    """The sets that several specs name, each with its own slice, by name. Raises UsageError for an
    empty slice."""
    found: dict[str, Shards] = {}
    for group in separate(specs):
        shards = open_shards(group)
        if not len(shards):
            raise UsageError(_empty(f"{flag} {' '.join(group)}", shards) + "; give another slice")
        found[_name(shards, found)] = shards
    return found


class _Opened:
    """Collects the sources of a config."""

    def __init__(self) -> None:
        self.train: dict[str, Shards] = {}
        self.weights: dict[str, Weight] = {}
        self.validation: dict[str, Shards] = {}
        self.held_out: set[str] = set()
        self.notes: list[str] = []


def hold_out(name: str, shards: Shards, remedy: str) -> tuple[Shards, Shards]:
    """Divide a source without validation samples into what to train on and what to validate on.
    Raises UsageError, with the remedy, for a single sample."""
    count = min(HELD_OUT, max(1, len(shards) // 100))
    if len(shards) < 2:
        raise UsageError(
            f"{name} ({shards.spec}) has 1 sample, which cannot be both trained and validated on; "
            f"{remedy}"
        )
    return shards[:-count], shards[-count:]


def _open_short_form(config: Config, opened: _Opened, *, validate: bool) -> None:
    """The sources of --shards, then those of --text. Those of one flag share the weight of their
    kind by their numbers of samples."""
    image = _ShortForm("--shards", "--train-slice", config.train_slice, "--val", config.val_slice)
    text = _ShortForm("--text", "--text-train-slice", config.text_train_slice, "--val-text",
                      config.text_val_slice)  # fmt: skip
    for form, specs, val in (
        (image, config.shards, config.val),
        (text, config.text, config.val_text),
    ):
        if not specs:
            continue
        added = {}
        for group in _groups(specs, join=config.join_sets):
            shards = form.training(group)
            name = _name(shards, opened.train)
            if not val:
                held_out = form.default_validation(group)
                val_name = _name(held_out, opened.validation)
                if not len(held_out):
                    shards, held_out = hold_out(name, shards, f"name some with {form.val}")
                    opened.held_out.add(val_name)
                opened.validation[val_name] = held_out
            opened.train[name] = added[name] = shards
        weight = config.share(text=form is text) if config.text else Fraction(1)
        opened.weights |= shared_weight(weight, added)
        if validate:
            for group in _groups(val, join=config.join_sets):
                shards = _open(group, "[:]", form.val)
                opened.validation[_name(shards, opened.validation)] = shards


@dataclass(frozen=True)
class _ShortForm:
    """The flags of the image sources, or of the text sources, and their default slices."""

    flag: str
    slice_flag: str
    train_slice: str
    val: str
    val_slice: str

    def training(self, group: Sequence[str]) -> Shards:
        """What a spec's training samples are. Raises UsageError if there are none."""
        shards = _open(group, self.train_slice, self.flag)
        _check_all_used(shards, self.flag, self.slice_flag)
        return shards

    def default_validation(self, group: Sequence[str]) -> Shards:
        """The default slice of the whole set; it may be empty only where it is the preset's.
        A validation slice counts from the start of the whole set."""
        whole = [split_slice(text)[0] for text in group]
        if self.val_slice in DEFAULT_VAL_SLICES:
            return _sliced(open_shards(whole), self.val_slice)
        return _open(whole, self.val_slice, self.val)


DEFAULT_VAL_SLICES = (Config.val_slice, Config.text_val_slice)
"""The validation slices of the original experiment: smaller sets have no such samples."""


def _groups(specs: Sequence[str], *, join: bool) -> list[list[str]]:
    """The specs that are one source each; with `join` all are one."""
    if join:
        return [list(specs)] if specs else []
    return separate(specs)


def shared_weight(weight: Weight, sources: Mapping[str, Sized]) -> dict[str, Weight]:
    """The weight of each of `sources`, which share `weight` by their numbers of samples. Each gets
    its part rounded down to the grid, but not to 0; the largest gets what is left."""
    sizes = {name: len(shards) for name, shards in sources.items()}
    parts = {name: max(1, GRID * size // sum(sizes.values())) for name, size in sizes.items()}
    largest = max(parts, key=lambda name: parts[name])
    parts[largest] += GRID - sum(parts.values())
    if isinstance(weight, Fraction):
        return {name: weight * Fraction(part, GRID) for name, part in parts.items()}
    return {
        name: tuple((start, value * Fraction(part, GRID)) for start, value in weight)
        for name, part in parts.items()
    }


def _open_named(config: Config, opened: _Opened, *, validate: bool) -> None:
    """The sources of --source. One that has samples with images and samples without is two."""
    specs = parse_specs("--val-source", config.val_source, config.named_sources)
    for source in config.named_sources:
        parts = _by_kind(source.name, _open_one("--source", source.name, source.spec))
        opened.weights |= shared_weight(source.weight, parts)
        for name, shards in parts.items():
            if source.name not in specs:
                remedy = f"name some with --val-source {source.name}=SPEC"
                shards, opened.validation[name] = hold_out(name, shards, remedy)
                opened.held_out.add(name)
            opened.train[name] = shards
        if validate and source.name in specs:
            shards = _open_one("--val-source", source.name, specs[source.name])
            found = _by_kind(source.name, shards, divided=len(parts) > 1)
            opened.validation |= found
            opened.notes += [
                f"{name} is not validated on: {shards.spec} has no such samples"
                for name in parts
                if len(parts) > 1 and name not in found
            ]


def _by_kind(name: str, shards: Shards, *, divided: bool = False) -> dict[str, Shards]:
    """A source by the kind of its samples: NAME/image for those with images and NAME/text for those
    without, or NAME if all are of one kind (unless `divided`). Reads the indexes of all its
    shards."""
    pictured = np.zeros(len(shards), np.bool_)
    for first, number, locals_ in shards.stretches():
        blocks = shards.shard_set.blocks(number)
        counts = np.concatenate([block.image_counts for block in blocks])
        pictured[first : first + len(locals_)] = counts[np.asarray(locals_)] > 0
    kinds = {
        f"{name}/{kind}": SelectedShards(shards, np.flatnonzero(chosen), what)
        for kind, chosen, what in (
            ("image", pictured, "with images"),
            ("text", ~pictured, "without images"),
        )
        if chosen.any()
    }
    if len(kinds) > 1:
        return dict(kinds)
    return {next(iter(kinds)) if divided else name: shards}


def _open_one(flag: str, name: str, spec: str) -> Shards:
    """Open the spec of a named source. Raises UsageError if it holds no samples."""
    shards = open_shards(spec)
    if not len(shards):
        raise UsageError(_empty(f"{flag} {name}={spec}", shards) + "; give another slice")
    return shards


def _open(spec: Sequence[str], default_slice: str, flag: str) -> Shards:
    """Open a spec with its own slice, or else with the default slice."""
    shards = open_shards(list(spec))
    if split_slice(spec[-1])[1] is None:
        shards = _sliced(shards, default_slice)
    if not len(shards):
        shown = " ".join(spec) + ("" if split_slice(spec[-1])[1] is not None else default_slice)
        raise UsageError(f"{_empty(f'{flag} {shown}', shards)}; {_remedy(spec, flag, shards)}")
    return shards


def _sliced(shards: Shards, text: str) -> Shards:
    found = parse_slice(text, text[1:-1])
    assert found is not None
    return shards[found]


def _empty(spec: str, shards: Shards) -> str:
    """What is wrong with a slice of no samples."""
    return f"{spec} holds no samples: there are {len(shards.shard_set):,} without the slice"


def _remedy(spec: Sequence[str], flag: str, shards: Shards) -> str:
    """Suggest slices that hold samples and do not overlap."""
    *others, last = [split_slice(text)[0] for text in spec]
    held_out = max(1, min(100, len(shards.shard_set) // 10))
    if len(set(_owners(shards))) > 1:  # several sets: suggest a slice of the last one alone
        return f"give another slice, such as {flag} {shlex.join([f'{last}[-{held_out}:]'])}"
    train, val = ("--text", "--val-text") if "text" in flag else ("--shards", "--val")
    return (
        "name separate slices to train on and to validate on, such as "
        f"{train} {shlex.join([*others, f'{last}[:-{held_out}]'])} "
        f"{val} {shlex.join([*others, f'{last}[-{held_out}:]'])}"
    )


def _owners(shards: Shards) -> list[Location]:
    """The set each shard belongs to."""
    return [set_location(shard.location) for shard in shards.shard_set.shards]


def _check_all_used(shards: Shards, flag: str, slice_flag: str) -> None:
    """Several sets are one source, and its slice applies to all of them together. Raises UsageError
    if the slice leaves out a whole set: whoever named it meant to train on it."""
    owners = _owners(shards)
    used = {owners[number] for _, number, _ in shards.stretches()}
    unused = next((owner for owner in owners if owner not in used), None)
    if unused is not None and len(set(owners)) > 1:
        raise UsageError(
            f"{flag} names {len(set(owners))} sets, but {slice_flag}, applied to all of them "
            f"together, takes no sample from {unused}; name one set, or use all samples with "
            f"{slice_flag} '[:]'"
        )


def _name(shards: Shards, taken: Container[str]) -> str:
    """The set's own name, numbered if another source has it."""
    name, number = shards.source_name, 2
    while name in taken:
        name, number = f"{shards.source_name}-{number}", number + 1
    return name


def check_validation(sources: Sources, config: Config, tokenizer: Tokenizer) -> None:
    """Read every validation sample once before training starts: none is ever skipped, so an
    unusable one would end the run at its first validation.

    Raises ShardError naming the sample, and UsageError if a source has no token to predict.
    """
    for name, shards in sources.validation.items():
        supervised, mode = 0, config.image_mode(name)
        for position in range(len(shards)):
            if position % VALIDATION_AHEAD == 0:
                shards.announce(range(position, min(position + VALIDATION_AHEAD, len(shards))))
            item = load_sample(shards, position, source=name, mode=mode)
            sample = prepare_sample(item, tokenizer=tokenizer, mode=mode, seq_len=config.seq_len)
            supervised += int(sample.rendered.loss_mask.sum())
        if not supervised:
            raise UsageError(
                f"validation on {name} ({shards.spec}): none of {len(shards):,} samples has a "
                f"token to predict at --seq-len {config.seq_len}; give a larger --seq-len"
            )
