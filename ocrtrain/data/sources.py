"""Opens the shards a config names: training sources with their weights, and validation sources."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ocrdata.errors import UsageError
from ocrdata.planning.plan import Weight
from ocrdata.reading.samples import load_sample
from ocrdata.reading.slices import parse_slice, split_slice
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.names import set_location
from ocrdata.storage.location import Location
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import prepare_sample
from ocrtrain.settings.config import Config


@dataclass(frozen=True)
class Sources:
    """Opened shards by source name: training sources with their weights, and validation sources."""

    train: dict[str, Shards]
    weights: dict[str, Weight]
    validation: dict[str, Shards]


def open_sources(config: Config) -> Sources:
    """Open all shards a config names; reads only indexes. Raises UsageError for an empty slice."""
    opened = open_training(config)
    validation: dict[str, Shards] = {}
    _validate_on(validation, _open_validation(config.val, config.shards, config.val_slice, "--val"))
    if config.text:
        _validate_on(
            validation,
            _open_validation(config.val_text, config.text, config.text_val_slice, "--val-text"),
        )
    return replace(opened, validation=validation)


def open_training(config: Config) -> Sources:
    """Open the training sources alone, which is all that batches depend on."""
    vision = _open(config.shards, config.train_slice, "--shards")
    _check_all_used(vision, "--shards", "--train-slice")
    train = {_name(vision, ()): vision}
    if not config.text:
        return Sources(train, {name: Fraction(1) for name in train}, {})
    weights: dict[str, Weight] = {_name(vision, ()): config.share(text=False)}
    text = _open(config.text, config.text_train_slice, "--text")
    _check_all_used(text, "--text", "--text-train-slice")
    name = _name(text, train)
    train[name], weights[name] = text, config.share(text=True)
    return Sources(train, weights, {})


def _open_validation(
    given: Sequence[str], trained: Sequence[str], default_slice: str, flag: str
) -> Shards:
    """The shards named for validation; if there are none, the default slice of the training set."""
    if given:
        return _open(given, "[:]", flag)
    return _open(_without_slice(trained), default_slice, flag)


def _open(spec: Sequence[str], default_slice: str, flag: str) -> Shards:
    """Open a spec with its own slice, or else with the default slice."""
    shards = open_shards(list(spec))
    if split_slice(spec[-1])[1] is None:
        found = parse_slice(default_slice, default_slice[1:-1])
        assert found is not None
        shards = shards[found]
    if not len(shards):
        shown = " ".join(spec) + ("" if split_slice(spec[-1])[1] is not None else default_slice)
        raise UsageError(f"{flag} {shown} holds no samples; {_remedy(spec, flag, shards)}")
    return shards


def _remedy(spec: Sequence[str], flag: str, shards: Shards) -> str:
    """Suggest slices that hold samples and do not overlap."""
    *others, last = _without_slice(spec)
    if len(set(_owners(shards))) > 1:  # several sets: suggest a slice of the last one alone
        return f"give another slice, such as {flag} {shlex.join([f'{last}[-100:]'])}"
    train, val = ("--text", "--val-text") if "text" in flag else ("--shards", "--val")
    return (
        "name separate slices to train on and to validate on, such as "
        f"{train} {shlex.join([*others, f'{last}[:-100]'])} "
        f"{val} {shlex.join([*others, f'{last}[-100:]'])}"
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


def _without_slice(spec: Sequence[str]) -> list[str]:
    """The spec without its slice: a validation slice counts from the start of the whole set."""
    return [split_slice(text)[0] for text in spec]


def _validate_on(validation: dict[str, Shards], shards: Shards) -> None:
    validation[_name(shards, validation)] = shards


def _name(shards: Shards, taken: Sequence[str] | dict[str, Shards]) -> str:
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
        supervised = 0
        for position in range(len(shards)):
            item = load_sample(shards, position, source=name, image_size=config.image_size)
            sample = prepare_sample(
                item, tokenizer=tokenizer, image_size=config.image_size, seq_len=config.seq_len
            )
            supervised += int(sample.rendered.loss_mask.sum())
        if not supervised:
            raise UsageError(
                f"validation on {name} ({shards.spec}): none of {len(shards):,} samples has a "
                f"token to predict at --seq-len {config.seq_len}; give a larger --seq-len"
            )


def shared_samples(sources: Sources) -> int:
    """Number of validation samples that are also in the training data: one of the images has the
    same bytes, or, without images, the conversation. Reads only indexes; memory grows with the
    validation set."""
    wanted: dict[bytes, set[tuple[str, int]]] = {}
    for name, shards in sources.validation.items():
        for position in range(len(shards)):
            for digest in _contents(shards, position):
                wanted.setdefault(digest, set()).add((name, position))
    found: set[tuple[str, int]] = set()
    for shards in sources.train.values():
        for position in range(len(shards)):
            for digest in _contents(shards, position):
                found |= wanted.get(digest, set())
    return len(found)


def _contents(shards: Shards, position: int) -> tuple[bytes, ...]:
    """The digests of a sample's images, or of its conversation if it has none."""
    members = shards.row(position).members
    return shards.image_digests(position) or tuple(member.digest for member in members)


def describe_shared(count: int) -> str:
    """The warning about validation samples that are trained on."""
    return f"WARNING: {count} validation samples are also in the training data (same bytes)"
