"""Streamed validation: the loss of a fixed slice, and whether the model looks at the images.

Owner of val/loss, image gain, image similarity and feature std. Every call sees the same samples
in the same order, in batches of the same size, few of them in memory at a time. It draws no
random numbers but its own fixed ones, leaves the model as it found it, and never chooses when to
validate or where numbers go (`ocrtrain.run.loop` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ocrdata.errors import UsageError
from ocrdata.reading.prefetch import Prefetcher
from ocrdata.reading.samples import DecodedSample, load_sample
from ocrdata.reading.view import Shards
from ocrdata.tokens.rendering import IGNORE
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, collate, prepare_sample
from ocrtrain.evaluation.generation import inference
from ocrtrain.evaluation.similarity import Similarity
from ocrtrain.evaluation.swapped import swap_partners
from ocrtrain.model.ocr_model import OcrModel

HEAD_TOKENS = 8
"""Supervised tokens of an answer that `image_gain_head` looks at: on long answers the plain gain is
diluted."""

COLLAPSED_SIMILARITY = 0.99
"""In the experiment that did not read, it went from 0.59 to 0.9998."""
COMPARED_IMAGES = 64
"""Images whose features are compared, at most: 2,016 pairs."""

BLIND_GAIN = 0.02
"""Nats per token: 2 % of the perplexity. Below it the images might as well be missing."""


@dataclass(frozen=True)
class ValidationOptions:
    """How to validate. `batch` is samples a forward pass; `precision` as in training, None for
    fp32."""

    seq_len: int
    batch: int = 8
    workers: int = 0
    precision: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"the validation batch is {self.batch}, it must be at least 1")


@dataclass(slots=True)
class LossTotal:
    """A sum of losses in nats, and the supervised tokens it is over."""

    loss: float = 0.0
    tokens: int = 0

    @property
    def mean(self) -> float | None:
        """Nats per supervised token; None over no tokens."""
        return self.loss / self.tokens if self.tokens else None

    def __add__(self, other: LossTotal) -> LossTotal:
        return LossTotal(self.loss + other.loss, self.tokens + other.tokens)


@dataclass(slots=True)
class Gain:
    """Losses of the same samples with the right images and with exchanged ones; each over all
    supervised tokens, and over the first `HEAD_TOKENS` of each answer."""

    samples: int = 0
    matched: LossTotal = field(default_factory=LossTotal)
    matched_head: LossTotal = field(default_factory=LossTotal)
    swapped: LossTotal = field(default_factory=LossTotal)
    swapped_head: LossTotal = field(default_factory=LossTotal)

    @property
    def gain(self) -> float | None:
        """Nats per supervised token that the right images are worth; None without any exchange."""
        return _difference(self.swapped, self.matched)

    @property
    def head(self) -> float | None:
        """The same over the beginnings of the answers."""
        return _difference(self.swapped_head, self.matched_head)


def _difference(swapped: LossTotal, matched: LossTotal) -> float | None:
    """Of two means over the same tokens; None over no tokens."""
    if swapped.mean is None or matched.mean is None:
        return None
    return swapped.mean - matched.mean


@dataclass(frozen=True)
class Validation:
    """What one validation found. None stands where a number is undefined."""

    losses: dict[str, LossTotal]
    """By source."""
    samples: dict[str, int]
    gain: Gain
    image_similarity: float | None
    feature_std: float | None

    @property
    def total(self) -> LossTotal:
        """Over all sources: every supervised token counts the same."""
        return sum(self.losses.values(), LossTotal())

    def numbers(self) -> dict[str, float]:
        """The numbers under the names they are logged by, undefined ones
        absent."""
        found: dict[str, float | None] = {"val/loss": self.total.mean}
        found |= {f"val/{source}_loss": loss.mean for source, loss in self.losses.items()}
        found["val/image_gain"] = self.gain.gain
        found["val/image_gain_head"] = self.gain.head
        found["val/image_similarity"] = self.image_similarity
        found["val/feature_std"] = self.feature_std
        return {name: value for name, value in found.items() if value is not None}

    def warnings(self, *, blind_matters: bool) -> list[str]:
        """What should worry a person, in words. An untrained model does not look yet: the caller
        says with `blind_matters` whether it has trained long enough for that to mean something."""
        found = []
        gain, head = self.gain.gain, self.gain.head
        looks = max((one for one in (gain, head) if one is not None), default=None)
        sees = looks is not None and looks >= BLIND_GAIN
        similarity = self.image_similarity
        if similarity is not None and similarity > COLLAPSED_SIMILARITY and not sees:
            found.append(
                f"the encoder gives all images nearly the same features (mean cosine "
                f"{similarity:.4f}): it has collapsed, or has not begun to tell them apart"
            )
        if blind_matters and looks is None:
            found.append(
                "no two validation samples have images to exchange: whether the model looks at "
                "them is not measured"
            )
        if blind_matters and looks is not None and not sees:
            found.append(
                f"the model does not look at the images: with other images its loss changes by "
                f"{gain:+.4f} nats a token ({head:+.4f} at the beginning of answers), "
                f"less than {BLIND_GAIN}"
            )
        return found


def validate(
    model: OcrModel,
    sources: Mapping[str, Shards],
    tokenizer: Tokenizer,
    settings: ValidationOptions,
) -> Validation:
    """Validate on the whole of each source, in the order given.

    Loss: the sum over supervised tokens divided by their number. Image gain: over every third
    sample that has images, exchanged by a fixed derangement among those of its source with as
    many images; None where fewer than two can be exchanged. Raises ShardError for damage, and
    UsageError where a source is empty.
    """
    losses: dict[str, LossTotal] = {}
    gain, features = Gain(), Similarity(COMPARED_IMAGES)
    with inference(model, settings.precision):
        for name, shards in sources.items():
            if not len(shards):
                raise UsageError(f"validation source {name} ({shards.spec}) holds no samples")
            partners = swap_partners(shards)
            run = _SourceValidation(model, name, shards, tokenizer, settings)
            losses[name] = run.matched(partners, gain, features)
            run.swapped(partners, gain)
    return Validation(
        losses=losses,
        samples={name: len(shards) for name, shards in sources.items()},
        gain=gain,
        image_similarity=features.similarity,
        feature_std=features.std,
    )


class _SourceValidation:
    """The two passes over one source: with the right images, and with exchanged ones."""

    def __init__(
        self,
        model: OcrModel,
        name: str,
        shards: Shards,
        tokenizer: Tokenizer,
        settings: ValidationOptions,
    ) -> None:
        self.model, self.name, self.shards = model, name, shards
        self.tokenizer, self.settings = tokenizer, settings

    def matched(self, partners: Mapping[int, int], gain: Gain, features: Similarity) -> LossTotal:
        """Loss of all samples; those that will be exchanged also enter `gain`."""
        total = LossTotal()
        with self._batches(range(len(self.shards)), {}) as batches:
            for part, batch in batches:
                features.add(self.model, batch.images)
                whole, head, looks = self._losses(batch)
                for row, position in enumerate(part):
                    total += whole[row]
                    if position in partners and looks[row]:
                        gain.samples += 1
                        gain.matched += whole[row]
                        gain.matched_head += head[row]
        return total

    def swapped(self, partners: Mapping[int, int], gain: Gain) -> None:
        """Loss of the exchanged samples, into `gain`."""
        with self._batches(list(partners), partners) as batches:
            for part, batch in batches:
                whole, head, looks = self._losses(batch)
                for row in range(len(part)):
                    if looks[row]:
                        gain.swapped += whole[row]
                        gain.swapped_head += head[row]

    def _batches(
        self, positions: Sequence[int], partners: Mapping[int, int]
    ) -> Prefetcher[tuple[Sequence[int], Batch]]:
        """Batches of `positions` in order, images taken from `partners` where there is one."""
        size = self.settings.batch
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]

        def make(number: int) -> tuple[Sequence[int], Batch]:
            pieces = [
                prepare_sample(
                    self._item(position, partners),
                    tokenizer=self.tokenizer,
                    image_size=self.model.image_size,
                    seq_len=self.settings.seq_len,
                )
                for position in parts[number]
            ]
            batch = collate(
                number,
                [[piece] for piece in pieces],
                tokenizer=self.tokenizer,
                image_size=self.model.image_size,
            )
            return parts[number], batch

        return Prefetcher(make, 0, stop=len(parts), workers=self.settings.workers)

    def _item(self, position: int, partners: Mapping[int, int]) -> DecodedSample:
        """A sample, with its partner's images where it has one."""
        item = self._load(position)
        if position in partners:
            item = replace(item, images=self._load(partners[position]).images)
        return item

    def _load(self, position: int) -> DecodedSample:
        size = self.model.image_size
        return load_sample(self.shards, position, source=self.name, image_size=size)

    def _losses(self, batch: Batch) -> tuple[list[LossTotal], list[LossTotal], list[bool]]:
        """Of each row: its loss, the loss of its answers' beginnings, whether it shows images."""
        batch = batch.to(self.model.device)
        losses, rows = self.model.token_losses(
            batch.input_ids, batch.position_ids, batch.targets, batch.images
        )
        head = answer_ranks(batch.targets)[batch.targets != IGNORE] < HEAD_TOKENS
        count = batch.targets.shape[0]
        looks = [row.images > 0 for row in batch.rows]
        return row_totals(losses, rows, count), row_totals(losses[head], rows[head], count), looks


def answer_ranks(targets: Tensor) -> Tensor:
    """targets [B, T] -> int64 [B, T]: which supervised token of its answer a position is,
    from 0. An answer is an unbroken run of supervised positions; elsewhere meaningless."""
    supervised = targets != IGNORE
    before = torch.nn.functional.pad(supervised[:, :-1], (1, 0), value=False)
    columns = torch.arange(targets.shape[1], device=targets.device).expand_as(targets)
    starts = torch.where(supervised & ~before, columns, 0).cummax(dim=1).values
    return columns - starts


def row_totals(losses: Tensor, rows: Tensor, count: int) -> list[LossTotal]:
    """Losses [K] of the rows [K] -> the total of each of `count` rows, summed in float64 on the
    CPU, where the order of the sum is fixed."""
    losses, rows = losses.cpu().double(), rows.cpu()
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, rows, losses).tolist()
    tokens = torch.bincount(rows, minlength=count).tolist()
    return [LossTotal(loss, number) for loss, number in zip(sums, tokens, strict=True)]
