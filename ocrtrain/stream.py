"""From shards to batches: a run's sources, its plan, and the batch of any step.

Owner of the way between `ocrdata` and the trainer. `Stream.batch(step)` is law 2: it reads the
plan, the shards and the tokenizer, and nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ocrdata.errors import UsageError
from ocrdata.loader import load_item
from ocrdata.plan import Plan, PlanSource
from ocrdata.reader import Shards, open_shards
from ocrdata.spec import parse_slice, split_slice
from ocrdata.tokenizer import Tokenizer
from ocrtrain.batch import Batch, collate
from ocrtrain.config import Config


@dataclass(frozen=True)
class Sources:
    """Opened shards by source name: what is trained on, with shares, and what validates."""

    train: dict[str, Shards]
    shares: dict[str, Fraction]
    validation: dict[str, Shards]


def open_sources(config: Config) -> Sources:
    """Open all shards a config names. Only indexes are read.

    Raises UsageError where a slice is empty.
    """
    vision = _open(config.shards, config.train_slice, "--shards")
    train, shares = {_name(vision, ()): vision}, {_name(vision, ()): 1 - config.text_ratio}
    validation: dict[str, Shards] = {}
    _validate_on(validation, _open_validation(config.val, config.shards, config.val_slice, "--val"))
    if config.text:
        text = _open(config.text, config.text_train_slice, "--text")
        name = _name(text, train)
        train[name], shares[name] = text, config.text_ratio
        _validate_on(
            validation,
            _open_validation(config.val_text, config.text, config.text_val_slice, "--val-text"),
        )
    else:
        shares = {name: Fraction(1) for name in train}
    return Sources(train, shares, validation)


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
        *others, last = _whole(spec)
        raise UsageError(
            f"{flag} {shards.spec} holds no samples; give another slice, "
            f"such as {flag} {shlex.join([*others, f'{last}[-100:]'])}"
        )
    return shards


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


def make_plan(config: Config, sources: Sources) -> Plan:
    """The plan of a run over its sources."""
    return Plan(
        [
            PlanSource(name, len(shards), sources.shares[name], shards.spec, shards.digest)
            for name, shards in sources.train.items()
        ],
        batch=config.batch,
        steps=config.steps,
        seed=config.seed,
        mix_by=config.mix,
    )


class Stream:
    """The batches of a plan. Thread-safe: the loader's workers call `batch`."""

    def __init__(
        self, plan: Plan, sources: Sources, *, tokenizer: Tokenizer, image_size: int, seq_len: int
    ) -> None:
        self.plan = plan
        self._names = list(sources.train)
        self._shards = list(sources.train.values())
        self._tokenizer = tokenizer
        self._image_size, self._seq_len = image_size, seq_len

    def batch(self, step: int) -> Batch:
        """The global batch of a step."""
        items = [
            load_item(
                self._shards[place.source],
                place.position,
                source=self._names[place.source],
                image_size=self._image_size,
            )
            for place in self.plan.places(step)
        ]
        return collate(
            step,
            items,
            tokenizer=self._tokenizer,
            image_size=self._image_size,
            seq_len=self._seq_len,
        )


def shared_samples(sources: Sources) -> int:
    """How many validation samples stand in training too: an image of the same bytes, or, without
    images, a conversation of the same bytes. Indexes only; memory as validation is large."""
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
