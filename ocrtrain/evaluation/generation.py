"""Greedy decoding with a key-value cache.

Prompts of equal length are decoded together, so there is no padding, and a batched answer differs
from one given alone only in the last bits of sums. Questions come from `ocrtrain.commands.ask` and
`ocrtrain.commands.evaluate`; answers are scored in `ocrtrain.evaluation.scores`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ocrdata.errors import Problems
from ocrdata.sample import Message, image_parts
from ocrdata.tokens.rendering import render_prompt
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.ocr_model import OcrModel

IMAGES_AT_ONCE = 16
"""Images encoded together; SAM at 1024 px needs about 0.4 GB each for its bias in bf16."""


STOP_REPEATS = 256
"""Tokens of a loop after which an answer is stopped by default. Greedy decoding seldom leaves a
loop, and no shorter one is cut: a row of a table may well have 30 equal cells."""

REPETITIONS = 4
"""How often a sequence of tokens must follow itself to be a loop."""


@dataclass(frozen=True)
class Decoding:
    """How to decode: at most `max_new_tokens` an answer, `batch` answers at a time, and autocast to
    `precision` if one is given (as in training).

    An answer whose last `stop_repeats` tokens are one sequence over and over, at least four times,
    is stopped, and only the first of these sequences is kept; 0: never.
    """

    max_new_tokens: int = 256
    batch: int = 64
    precision: torch.dtype | None = None
    stop_repeats: int = STOP_REPEATS

    def __post_init__(self) -> None:
        problems = Problems()
        if self.stop_repeats != 0 and self.stop_repeats < REPETITIONS:
            problems.add(
                f"--stop-repeats {self.stop_repeats} must be at least {REPETITIONS}, or 0: never"
            )
        for flag, value in (("--max-new-tokens", self.max_new_tokens), ("--batch", self.batch)):
            if value < 1:
                problems.add(f"{flag} {value} must be at least 1")
        problems.raise_all()


class Question(NamedTuple):
    """A conversation that ends with the user's message, and its images, uint8 [H, W, 3]."""

    messages: Sequence[Message]
    images: tuple[Tensor, ...]


class Answer(NamedTuple):
    """`text` without special tokens; `tokens`, their number before the end; `finished` if the model
    ended the answer itself; else it was cut off at the limit or, if it `repeats`, in a loop."""

    text: str
    tokens: int
    finished: bool
    repeats: bool = False


@contextmanager
def inference(model: OcrModel, precision: torch.dtype | None) -> Iterator[None]:
    """Eval mode without gradients, in autocast if a precision is given.

    Afterwards every module returns to its own mode, including frozen parts.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    autocast = torch.autocast(model.device.type, dtype=precision, enabled=precision is not None)
    try:
        with torch.no_grad(), autocast:
            yield
    finally:
        for module, training in modes:
            module.training = training


def answer(
    model: OcrModel, tokenizer: Tokenizer, questions: Sequence[Question], decoding: Decoding
) -> list[Answer]:
    """Answer each question by itself, greedily; answers come in the order of the questions.

    The feature vectors of all images are held at once (1024 px, width 1280: 1.4 MB each in fp32),
    so split a long list. Raises ValueError if a conversation does not place as many images as it
    comes with.
    """
    prompts = []
    for question in questions:
        placed = image_parts(question.messages)
        if placed != len(question.images):
            raise ValueError(
                f"the conversation places {placed} images, but {len(question.images)} are given"
            )
        rendered = render_prompt(list(question.messages), tokenizer, [model.slots] * placed)
        prompts.append(torch.from_numpy(rendered.ids).long())
    stops = frozenset({tokenizer.assistant_end, tokenizer.bos})
    answers: dict[int, Answer] = {}
    with inference(model, decoding.precision):
        vectors = _encode(model, questions)
        for group in equal_lengths(prompts, decoding.batch):
            ids = torch.stack([prompts[number] for number in group]).to(model.device)
            images = [vectors[id(image)] for number in group for image in questions[number].images]
            embeds = _embed(model, ids, images)
            for number, found in zip(group, greedy(model, embeds, stops, decoding), strict=True):
                text = plain_text(tokenizer, found.tokens)
                answers[number] = Answer(text, len(found.tokens), found.finished, found.repeats)
    return [answers[number] for number in range(len(questions))]


def plain_text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of generated tokens, without special tokens and ids that no token has."""
    specials = set(tokenizer.specials.values())
    plain = [token for token in tokens if token not in specials]
    try:
        return tokenizer.decode(plain)
    except ValueError:
        return tokenizer.decode([token for token in plain if _is_token(tokenizer, token)])


def _is_token(tokenizer: Tokenizer, token: int) -> bool:
    try:
        tokenizer.decode([token])
    except ValueError:
        return False
    return True


def equal_lengths(prompts: Sequence[Tensor], batch: int) -> Iterator[list[int]]:
    """Groups of at most `batch` prompts of equal length, by their indices, in a fixed order."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        by_length[len(prompt)].append(number)
    for length in sorted(by_length):
        numbers = by_length[length]
        for start in range(0, len(numbers), batch):
            yield numbers[start : start + batch]


def _encode(model: OcrModel, questions: Sequence[Question]) -> dict[int, Tensor]:
    """The vectors [slots, D] of each image, by the `id` of its tensor: questions that share a
    tensor have it encoded once."""
    distinct = list({id(image): image for one in questions for image in one.images}.values())
    vectors: dict[int, Tensor] = {}
    for start in range(0, len(distinct), IMAGES_AT_ONCE):
        images = distinct[start : start + IMAGES_AT_ONCE]
        encoded = model.encoder(model.pixels(images))
        vectors.update(zip(map(id, images), encoded, strict=True))
    return vectors


def _embed(model: OcrModel, ids: Tensor, images: Sequence[Tensor]) -> Tensor:
    """[B, T] ids and the vectors [slots, D] of their images, row by row -> [B, T, D]."""
    embeds: Tensor = model.gpt.model.embed_tokens(ids)
    if not images:
        return embeds
    slots = (ids == model.image_token).unsqueeze(-1)
    return embeds.masked_scatter(slots, torch.cat(list(images)).to(embeds.dtype))


class Continuation(NamedTuple):
    """The tokens of an answer without the one that ended it, and how it ended, as in `Answer`."""

    tokens: list[int]
    finished: bool
    repeats: bool


def greedy(
    model: OcrModel, embeds: Tensor, stops: frozenset[int], decoding: Decoding
) -> list[Continuation]:
    """The greedy continuation of each row of [B, T, D], up to a token of `stops`, a loop or the
    limit. Rows that have ended are removed from the cache."""
    rows, length, _ = embeds.shape
    tokens: list[list[int]] = [[] for _ in range(rows)]
    looping: set[int] = set()
    alive = list(range(rows))
    cache = model.new_cache()
    positions = torch.arange(length, device=embeds.device).expand(rows, -1)
    for _ in range(decoding.max_new_tokens):
        newest = model.step(embeds, cache, positions).argmax(dim=-1)
        going_on = []
        for at, token in enumerate(newest.tolist()):
            if token in stops:
                continue
            row = alive[at]
            tokens[row].append(token)
            if kept := without_loop(tokens[row], decoding.stop_repeats):
                tokens[row] = tokens[row][:kept]
                looping.add(row)
            else:
                going_on.append(at)
        if len(going_on) < len(alive):
            alive = [alive[at] for at in going_on]
            if not alive:
                break
            kept_rows = torch.tensor(going_on, device=newest.device)
            cache.batch_select_indices(kept_rows)
            newest, positions = newest[kept_rows], positions[kept_rows]
        embeds = model.gpt.model.embed_tokens(newest.unsqueeze(1))
        positions = positions[:, -1:] + 1
    unfinished = looping | set(alive)
    return [
        Continuation(found, row not in unfinished, row in looping)
        for row, found in enumerate(tokens)
    ]


def without_loop(tokens: Sequence[int], span: int) -> int:
    """How many of `tokens` to keep if the last `span` of them are one sequence over and over, at
    least `REPETITIONS` times: those up to the end of the first such sequence. 0 if they are not.

    It is looked for only at every (span / 16)-th token, which costs nothing beside the model.
    """
    if not span or len(tokens) < span or len(tokens) % max(1, span // 16):
        return 0
    last = tokens[-span:]
    for period in range(1, span // REPETITIONS + 1):
        if last[period:] == last[:-period]:
            first = len(tokens) - span
            while first and tokens[first - 1] == tokens[first - 1 + period]:
                first -= 1
            return first + period
    return 0
