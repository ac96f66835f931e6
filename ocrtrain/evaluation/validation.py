"""Validation: the loss on a fixed slice, and whether the model looks at the images.

Computes val/loss, image gain, image similarity and feature std. Every call reads the same samples
in the same order, in batches of the same size, a few of them in memory at a time. It leaves the
model and all random states unchanged. When to validate and where to log is up to
`ocrtrain.run.loop`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ocrdata.errors import UsageError
from ocrdata.images.modes import ImageMode
from ocrdata.reading.prefetch import Assembly, Prefetcher
from ocrdata.reading.samples import DecodedSample, load_sample
from ocrdata.reading.view import Shards
from ocrdata.tokens.rendering import IGNORE
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, PreparedSample, collate, prepare_sample
from ocrtrain.evaluation.generation import inference
from ocrtrain.evaluation.similarity import Similarity
from ocrtrain.evaluation.swapped import SWAP_EVERY, swap_partners
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.world import World

HEAD_TOKENS = 8
"""`image_gain_head` is measured on this many tokens at the start of each answer, because long
answers dilute `image_gain`."""

COLLAPSED_SIMILARITY = 0.99
"""In the experiment whose model did not learn to read, the similarity rose from 0.59 to 0.9998."""
COMPARED_IMAGES = 64
"""Images whose features are compared, at most: 2,016 pairs."""

BLIND_GAIN = 0.02
"""In nats per token; 0.02 changes the perplexity by 2 %. A smaller gain counts as none."""


@dataclass(frozen=True)
class ValidationOptions:
    """How to validate. `batch` is samples a forward pass; `precision` is as in training, None for
    fp32. `modes` say how the images of a source are shown, where it is not in one view of the
    model's `image_size`. What `before_batch` raises breaks the validation off."""

    seq_len: int
    batch: int = 8
    workers: int = 0
    precision: torch.dtype | None = None
    modes: Mapping[str, ImageMode] = field(default_factory=dict)
    before_batch: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"the validation batch is {self.batch}, but must be at least 1")


@dataclass(slots=True)
class LossTotal:
    """A sum of losses in nats, and the number of supervised tokens it is over."""

    loss: float = 0.0
    tokens: int = 0

    @property
    def mean(self) -> float | None:
        """Nats per supervised token; None if there are none."""
        return self.loss / self.tokens if self.tokens else None

    def __add__(self, other: LossTotal) -> LossTotal:
        return LossTotal(self.loss + other.loss, self.tokens + other.tokens)


@dataclass(slots=True)
class Gain:
    """Losses of the same samples with their own images (matched) and with swapped ones, each over
    all supervised tokens and over the first `HEAD_TOKENS` of each answer."""

    samples: int = 0
    matched: LossTotal = field(default_factory=LossTotal)
    matched_head: LossTotal = field(default_factory=LossTotal)
    swapped: LossTotal = field(default_factory=LossTotal)
    swapped_head: LossTotal = field(default_factory=LossTotal)

    @property
    def gain(self) -> float | None:
        """Nats per supervised token that the matched images are worth; None if none are swapped."""
        return _difference(self.swapped, self.matched)

    @property
    def head(self) -> float | None:
        """The same over the first tokens of the answers."""
        return _difference(self.swapped_head, self.matched_head)


def _difference(swapped: LossTotal, matched: LossTotal) -> float | None:
    """The difference of two means over the same tokens; None if there are none."""
    if swapped.mean is None or matched.mean is None:
        return None
    return swapped.mean - matched.mean


@dataclass(frozen=True)
class Validation:
    """The result of one validation. Undefined numbers are None."""

    losses: dict[str, LossTotal]
    """By source."""
    samples: dict[str, int]
    gain: Gain
    image_similarity: float | None
    feature_std: float | None

    @property
    def total(self) -> LossTotal:
        """Over all sources; every supervised token counts the same."""
        return sum(self.losses.values(), LossTotal())

    def numbers(self) -> dict[str, float]:
        """The numbers by the names they are logged under, without undefined ones."""
        found: dict[str, float | None] = {"val/loss": self.total.mean}
        found |= {f"val/{source}_loss": loss.mean for source, loss in self.losses.items()}
        found["val/image_gain"] = self.gain.gain
        found["val/image_gain_head"] = self.gain.head
        found["val/image_similarity"] = self.image_similarity
        found["val/feature_std"] = self.feature_std
        return {name: value for name, value in found.items() if value is not None}

    def warnings(self, *, warn_if_blind: bool) -> list[str]:
        """Sentences about what looks wrong. An untrained model does not look at the images yet:
        `warn_if_blind` says whether to warn about it."""
        found = []
        gain, head = self.gain.gain, self.gain.head
        best = max((one for one in (gain, head) if one is not None), default=None)
        looks = best is not None and best >= BLIND_GAIN
        similarity = self.image_similarity
        if similarity is not None and similarity > COLLAPSED_SIMILARITY and not looks:
            found.append(
                f"the encoder gives all images nearly the same features (mean cosine "
                f"{similarity:.4f}): it has collapsed, or cannot tell them apart yet"
            )
        if warn_if_blind and best is None:
            found.append(
                "image gain is not measured: of every third validation sample, which it is "
                "measured on, no two have images that could be swapped"
            )
        if warn_if_blind and best is not None and not looks:
            found.append(
                f"the model ignores the images: with swapped images its loss changes by "
                f"{gain:+.4f} nats a token ({head:+.4f} at the start of answers), "
                f"but the loss should rise by at least {BLIND_GAIN}"
            )
        return found


def validate(
    model: OcrModel,
    sources: Mapping[str, Shards],
    tokenizer: Tokenizer,
    options: ValidationOptions,
    world: World | None = None,
) -> Validation:
    """Validate on all samples of each source, in the order given. The batches are shared among the
    ranks of `world`, all of which must call this; all get the result, the same for any number of
    them.

    Loss: the sum over supervised tokens divided by their number. Image gain: over every third
    sample that has images, which are swapped by a fixed derangement among those of its source with
    the same number of images; None if fewer than two can be swapped. Raises ShardError for damage,
    and UsageError if a source is empty.
    """
    losses: dict[str, LossTotal] = {}
    gain, features = Gain(), Similarity(COMPARED_IMAGES)
    with inference(model, options.precision):
        for name, shards in sources.items():
            if not len(shards):
                raise UsageError(f"validation source {name} ({shards.spec}) holds no samples")
            partners = swap_partners(shards, range(0, len(shards), SWAP_EVERY))
            source = _SourceValidation(model, name, shards, tokenizer, options, world or World())
            losses[name] = source.matched(partners, gain, features)
            source.swapped(partners, gain)
    return Validation(
        losses=losses,
        samples={name: len(shards) for name, shards in sources.items()},
        gain=gain,
        image_similarity=features.similarity,
        feature_std=features.std,
    )


class _SourceValidation:
    """The two passes over one source: with matched and with swapped images."""

    def __init__(
        self,
        model: OcrModel,
        name: str,
        shards: Shards,
        tokenizer: Tokenizer,
        options: ValidationOptions,
        world: World,
    ) -> None:
        self.model, self.name, self.shards, self.world = model, name, shards, world
        self.tokenizer, self.options = tokenizer, options
        self.mode = options.modes.get(name, ImageMode(model.image_size))

    def matched(self, partners: Mapping[int, int], gain: Gain, features: Similarity) -> LossTotal:
        """Loss of all samples; those with a partner also enter `gain`."""
        total = LossTotal()
        positions = range(len(self.shards))
        for position, row in zip(positions, self._rows(positions, {}, features), strict=True):
            total += row.whole
            if position in partners and row.has_images:
                gain.samples += 1
                gain.matched += row.whole
                gain.matched_head += row.head
        return total

    def swapped(self, partners: Mapping[int, int], gain: Gain) -> None:
        """Loss of the samples with swapped images, into `gain`."""
        for row in self._rows(list(partners), partners, None):
            if row.has_images:
                gain.swapped += row.whole
                gain.swapped_head += row.head

    def _rows(
        self, positions: Sequence[int], partners: Mapping[int, int], features: Similarity | None
    ) -> list[_RowLoss]:
        """The losses of all `positions`, in order. Rank R of N computes every Nth batch, from the
        Rth on; rank 0 adds the first images to `features`, whoever computes their losses."""
        size, world = self.options.batch, self.world
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]
        mine = range(world.rank, len(parts), world.size)
        found = []
        with self._batches(parts, mine, partners) as batches:
            for start in range(0, len(parts), world.size):
                self.options.before_batch()  # as often on every rank
                if start + world.rank in mine:
                    batch = next(batches)
                    if features is not None and world.size == 1:
                        features.add(self.model, batch.images, [one.size for one in batch.layouts])
                    found.append((start + world.rank, self._losses(batch)))
        if features is not None and world.size > 1 and world.is_first:
            with self._batches(parts, range(len(parts)), partners) as batches:
                for batch in itertools.takewhile(lambda _: not features.is_full, batches):
                    features.add(self.model, batch.images, [one.size for one in batch.layouts])
        by_number = {number: rows for rank in world.exchange_json(found) for number, rows in rank}
        return [_RowLoss.of(*row) for number in range(len(parts)) for row in by_number[number]]

    def _batches(
        self, parts: Sequence[Sequence[int]], numbers: range, partners: Mapping[int, int]
    ) -> Prefetcher[Batch]:
        """Batches of the `parts` of these numbers; samples with a partner get its images."""

        def prepare(position: int) -> PreparedSample:
            return prepare_sample(
                self._item(position, partners),
                tokenizer=self.tokenizer,
                mode=self.mode,
                seq_len=self.options.seq_len,
            )

        def join(number: int, samples: list[PreparedSample]) -> Batch:
            return collate(
                number,
                [[sample] for sample in samples],
                tokenizer=self.tokenizer,
            )

        def split(at: int) -> Assembly[PreparedSample, Batch]:
            part = parts[numbers[at]]
            self.shards.announce(part)
            return Assembly(
                [partial(prepare, position) for position in part], partial(join, numbers[at])
            )

        return Prefetcher(split, 0, stop=len(numbers), workers=self.options.workers)

    def _item(self, position: int, partners: Mapping[int, int]) -> DecodedSample:
        """A sample, with its partner's images if it has a partner."""
        item = self._load(position)
        if position in partners:
            item = replace(item, images=self._load(partners[position]).images)
        return item

    def _load(self, position: int) -> DecodedSample:
        return load_sample(self.shards, position, source=self.name, mode=self.mode)

    def _losses(self, batch: Batch) -> list[tuple[float, int, float, int, bool]]:
        """What `_RowLoss.of` takes for each row."""
        return [
            (whole.loss, whole.tokens, first.loss, first.tokens, row.images > 0)
            for (whole, first), row in zip(batch_losses(self.model, batch), batch.rows, strict=True)
        ]


def batch_losses(model: OcrModel, batch: Batch) -> list[tuple[LossTotal, LossTotal]]:
    """The loss of each row of a batch, and that of the first tokens of its answers; within
    `inference`."""
    inputs = model.prepare(
        batch.input_ids, batch.position_ids, batch.targets, batch.images, batch.layouts
    )
    losses, rows = model.token_losses(inputs.to(model.device))
    losses, rows = losses.cpu(), rows.cpu()
    head = answer_ranks(batch.targets)[batch.targets != IGNORE] < HEAD_TOKENS
    count = batch.targets.shape[0]
    wholes = row_totals(losses, rows, count)
    heads = row_totals(losses[head], rows[head], count)
    return list(zip(wholes, heads, strict=True))


class _RowLoss(NamedTuple):
    """The loss of a row, that of the first tokens of its answers, and whether any of its images
    were left by truncation."""

    whole: LossTotal
    head: LossTotal
    has_images: bool

    @staticmethod
    def of(
        loss: float, tokens: int, head_loss: float, head_tokens: int, has_images: bool
    ) -> _RowLoss:
        """From plain values, which ranks exchange."""
        return _RowLoss(LossTotal(loss, tokens), LossTotal(head_loss, head_tokens), has_images)


def answer_ranks(targets: Tensor) -> Tensor:
    """targets [B, T] -> int64 [B, T]: the rank of each supervised position in its answer, from 0;
    undefined elsewhere. An answer is an unbroken stretch of supervised positions."""
    supervised = targets != IGNORE
    before = torch.nn.functional.pad(supervised[:, :-1], (1, 0), value=False)
    columns = torch.arange(targets.shape[1], device=targets.device).expand_as(targets)
    starts = torch.where(supervised & ~before, columns, 0).cummax(dim=1).values
    return columns - starts


def row_totals(losses: Tensor, rows: Tensor, count: int) -> list[LossTotal]:
    """Token losses [K] and their row numbers [K], on the CPU -> the totals of `count` rows, summed
    in float64 in a fixed order."""
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, rows, losses.double()).tolist()
    tokens = torch.bincount(rows, minlength=count).tolist()
    return [LossTotal(loss, number) for loss, number in zip(sums, tokens, strict=True)]
