"""A few validation questions that are really answered: how many answers are right, how many run
into a loop, and where.

Losses do not show a model that reads a page and then repeats its last line without an end. In: a
model and the validation's slices. Out: numbers for the log. Every call asks the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

import torch

from ocrdata.errors import RejectedRow, ShardError
from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import load_sample
from ocrdata.reading.view import Shards
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.evaluation.answers import Turn, turns_of
from ocrtrain.evaluation.generation import Answer, Decoding, Question, answer
from ocrtrain.evaluation.scores import score
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.world import World

AT_ONCE = 32
"""Questions whose images are in memory together."""

LONGEST = 256
"""Tokens of an answer."""

LOOP = 64
"""Tokens at the end of an answer that must be one sequence, at least four times, to be a loop. Of
34,277 real gold answers two are one by this measure (docs/evaluation.md)."""


class Place(NamedTuple):
    """A sample of a source."""

    source: str
    position: int


def chosen_places(sizes: Mapping[str, int], count: int) -> list[Place]:
    """`count` samples, or all if there are no more, evenly spaced over the sources one after the
    other."""
    every = [Place(name, position) for name, size in sizes.items() for position in range(size)]
    count = min(count, len(every))
    return [every[number * len(every) // count] for number in range(count)]


@dataclass(frozen=True)
class AnswerOptions:
    """How many samples are asked about, at most how many tokens an answer has, how many at its end
    must be one sequence to be a loop, and autocast to `precision` if one is given. `modes` say how
    the images of a source are shown, where it is not in one view of the model's `image_size`. What
    `before_batch` raises breaks the answering off."""

    count: int
    precision: torch.dtype | None = None
    before_batch: Callable[[], None] = lambda: None
    longest: int = LONGEST
    loop: int = LOOP
    modes: Mapping[str, ImageMode] = field(default_factory=dict)


def answer_numbers(
    model: OcrModel,
    sources: Mapping[str, Shards],
    tokenizer: Tokenizer,
    options: AnswerOptions,
    world: World | None = None,
) -> dict[str, float]:
    """Answer a question of each of some validation samples, greedily; returns the numbers by the
    names they are logged under.

    `val/accuracy` is the share of relaxed answers, `val/ned` the mean edit distance, `val/loops`
    the share of answers that ran into a loop, `val/loops_at` the mean number of their tokens when
    the first round ended (absent without any). Questions are shared among the ranks of `world`, all
    of which must call this; all get the result. Raises ShardError for damage.
    """
    world = world or World()
    sizes = {name: len(shards) for name, shards in sources.items()}
    places = chosen_places(sizes, options.count)
    decoding = Decoding(options.longest, AT_ONCE, options.precision, options.loop)
    found: list[tuple[bool, float, bool, int]] = []
    parts = [places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)]
    for number in range(0, len(parts), world.size):
        options.before_batch()  # as often on every rank
        if number + world.rank < len(parts):
            asked = list(_questions(model, sources, parts[number + world.rank], options.modes))
            answers = answer(model, tokenizer, [question for question, _ in asked], decoding)
            golds = [turn.golds for _, turn in asked]
            found += [_measured(one, *gold) for one, gold in zip(answers, golds, strict=True)]
    return _numbers([tuple(one) for rank in world.exchange_json(found) for one in rank])


def _questions(
    model: OcrModel,
    sources: Mapping[str, Shards],
    places: Sequence[Place],
    modes: Mapping[str, ImageMode],
) -> Iterator[tuple[Question, Turn]]:
    """A question of each sample that has one: its first in the first sample, its second in the
    second, and so on, round and round."""
    for source, position in places:
        shards = sources[source]
        mode = modes.get(source, ImageMode(model.image_size))
        item = load_sample(shards, position, source=source, mode=mode)
        try:
            turns = turns_of(item.sample)
        except RejectedRow as exc:
            ref = shards.ref(position)
            raise ShardError(ref.shard, str(exc), key=ref.key) from exc
        if turns:
            turn = turns[position % len(turns)]
            images = item.images[turn.images.start : turn.images.stop]
            tensors = tuple(torch.from_numpy(image) for image in images)
            layouts = tuple(mode.layout(*image.shape[1::-1]) for image in images)
            yield Question(turn.messages, tensors, layouts), turn


def _measured(found: Answer, *golds: str) -> tuple[bool, float, bool, int]:
    scores = score(found.text, *golds)
    return scores.relaxed, scores.ned, found.repeats, found.tokens


def _numbers(found: Sequence[tuple[bool, float, bool, int]]) -> dict[str, float]:
    if not found:
        return {}
    relaxed, ned, repeats, tokens = zip(*found, strict=True)
    numbers = {
        "val/accuracy": mean(map(float, relaxed)),
        "val/ned": mean(ned),
        "val/loops": mean(map(float, repeats)),
    }
    looping = [count for count, loops in zip(tokens, repeats, strict=True) if loops]
    return numbers | ({"val/loops_at": float(mean(looping))} if looping else {})
