"""The shards of a run, opened: what it trains on, with weights, and what it validates on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ocrdata.errors import UsageError
from ocrdata.planning.plan import Weight
from ocrdata.reading.samples import load_sample
from ocrdata.reading.slices import parse_slice, split_slice
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.names import set_path
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import prepare_sample
from ocrtrain.settings.config import Config


@dataclass(frozen=True)
class Sources:
    """Opened shards by source name: what is trained on, with shares, and what validates."""

    train: dict[str, Shards]
    shares: dict[str, Weight]
    validation: dict[str, Shards]


def open_sources(config: Config) -> Sources:
    """Open all shards a config names. Only indexes are read.

    Raises UsageError where a slice is empty.
    """
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
    """Open what a config trains on, and nothing to validate on: all that batches are made of."""
    vision = _open(config.shards, config.train_slice, "--shards")
    _refuse_unused(vision, "--shards", "--train-slice")
    train = {_name(vision, ()): vision}
    if not config.text:
        return Sources(train, {name: Fraction(1) for name in train}, {})
    shares: dict[str, Weight] = {_name(vision, ()): config.share(text=False)}
    text = _open(config.text, config.text_train_slice, "--text")
    _refuse_unused(text, "--text", "--text-train-slice")
    name = _name(text, train)
    train[name], shares[name] = text, config.share(text=True)
    return Sources(train, shares, {})


def _open_validation(
    given: Sequence[str], trained: Sequence[str], default_slice: str, flag: str
) -> Shards:
    """What is named for validation, whole; else the preset's slice of the training set."""
    return _open(given, "[:]", flag) if given else _open(_whole(trained), default_slice, flag)


def _open(spec: Sequence[str], default_slice: str, flag: str) -> Shards:
    """A spec with its own slice, or with the preset's."""
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
    """Slices that hold samples, none of them trained and validated on."""
    *others, last = _whole(spec)
    if len(set(_owners(shards))) > 1:  # a slice of several specs is of one set
        return f"give another slice, such as {flag} {shlex.join([f'{last}[-100:]'])}"
    train, val = ("--text", "--val-text") if "text" in flag else ("--shards", "--val")
    return (
        "say which to train on and which to validate on, such as "
        f"{train} {shlex.join([*others, f'{last}[:-100]'])} "
        f"{val} {shlex.join([*others, f'{last}[-100:]'])}"
    )


def _owners(shards: Shards) -> list[Path]:
    """The set that each shard is of."""
    return [set_path(shard.path) for shard in shards.shard_set.shards]


def _refuse_unused(shards: Shards, flag: str, slice_flag: str) -> None:
    """Several sets are one source, and a slice is of them together. Raises UsageError where it
    takes nothing of one: who named it meant it to be trained on."""
    owners = _owners(shards)
    used = {owners[number] for _, number, _ in shards.stretches()}
    unused = next((owner for owner in owners if owner not in used), None)
    if unused is not None and len(set(owners)) > 1:
        raise UsageError(
            f"{flag} names {len(set(owners))} sets, and {slice_flag} of them together takes no "
            f"sample of {unused}; name one set, or take all with {slice_flag} '[:]'"
        )


def _whole(spec: Sequence[str]) -> list[str]:
    """The spec without its slice; the slice to validate on counts from the set's beginning."""
    return [split_slice(text)[0] for text in spec]


def _validate_on(validation: dict[str, Shards], shards: Shards) -> None:
    validation[_name(shards, validation)] = shards


def _name(shards: Shards, taken: Sequence[str] | dict[str, Shards]) -> str:
    """The set's own name, numbered where two sources share it."""
    name, number = shards.source_name, 2
    while name in taken:
        name, number = f"{shards.source_name}-{number}", number + 1
    return name


def check_validation(sources: Sources, config: Config, tokenizer: Tokenizer) -> None:
    """Read every validation sample once, before anything is trained: none is ever skipped, so that
    one that cannot be used would end the run at its first validation.

    Raises ShardError naming it, UsageError where a source has no token to validate on.
    """
    for name, shards in sources.validation.items():
        supervised = 0
        for position in range(len(shards)):
            item = load_sample(shards, position, source=name, image_size=config.image_size)
            piece = prepare_sample(
                item, tokenizer=tokenizer, image_size=config.image_size, seq_len=config.seq_len
            )
            supervised += int(piece.rendered.loss_mask.sum())
        if not supervised:
            raise UsageError(
                f"validation on {name} ({shards.spec}): not one of {len(shards):,} samples leaves "
                f"a token to predict at --seq-len {config.seq_len}; give a larger --seq-len"
            )


def shared_samples(sources: Sources) -> int:
    """How many validation samples are in the training data too: an image of the same bytes, or,
    without images, a conversation of the same bytes. Indexes only; memory as validation is
    large."""
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
    """The digests of a sample's images, or of its conversation where it has none."""
    members = shards.row(position).members
    return shards.image_digests(position) or tuple(member.digest for member in members)


def describe_shared(count: int) -> str:
    """The warning about validation samples that are trained on."""
    return f"WARNING: {count} validation samples are in the training data too (same bytes)"
