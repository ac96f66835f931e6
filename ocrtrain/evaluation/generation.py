"""Greedy decoding with a key-value cache.

Prompts are decoded together, aligned at their ends; a batched answer differs from one given alone
only in the last bits of sums. Questions come from `ocrtrain.commands.ask` and
`ocrtrain.commands.evaluate`; answers are scored in `ocrtrain.evaluation.scores`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrdata.errors import Problems
from ocrdata.images.modes import ImageLayout
from ocrdata.sample import Message, image_parts
from ocrdata.tokens.rendering import render_prompt
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.row_cache import RowCache
from ocrtrain.settings.image_slots import layout_slots

IMAGES_AT_ONCE = 16
"""Images, or views and tiles, encoded together; SAM at 1024 px needs about 0.4 GB each for its
bias in bf16."""


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
    """A conversation that ends with the user's message, and its images, uint8 [H, W, 3]. `layouts`
    say how each is shown; None: in one view of the model's `image_size`."""

    messages: Sequence[Message]
    images: tuple[Tensor, ...]
    layouts: tuple[ImageLayout, ...] | None = None

    def shown(self, model: OcrModel) -> list[tuple[Tensor, ImageLayout]]:
        """Each image with its layout."""
        layouts = model.layouts(self.images) if self.layouts is None else self.layouts
        return list(zip(self.images, layouts, strict=True))


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
    prompts = [prompt_ids(model, tokenizer, question) for question in questions]
    stops = stop_tokens(tokenizer)
    answers: dict[int, Answer] = {}
    with inference(model, decoding.precision):
        vectors = _encode(model, questions)
        for group in similar_lengths(prompts, decoding.batch):
            embeds = [_embed(model, prompts[n], questions[n], vectors) for n in group]
            for number, found in zip(group, greedy(model, embeds, stops, decoding), strict=True):
                text = plain_text(tokenizer, found.tokens)
                answers[number] = Answer(text, len(found.tokens), found.finished, found.repeats)
    return [answers[number] for number in range(len(questions))]


def stop_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that end an answer."""
    return frozenset({tokenizer.assistant_end, tokenizer.bos})


def prompt_ids(model: OcrModel, tokenizer: Tokenizer, question: Question) -> Tensor:
    """The ids of a question's prompt, int64 [T] on the CPU.

    Raises ValueError if it does not place as many images as it comes with, RejectedRow as
    `render_prompt` does.
    """
    placed = image_parts(question.messages)
    if placed != len(question.images):
        raise ValueError(
            f"the conversation places {placed} images, but {len(question.images)} are given"
        )
    slots = [layout_slots(layout) for _, layout in question.shown(model)]
    rendered = render_prompt(list(question.messages), tokenizer, slots)
    return torch.from_numpy(rendered.ids).long()


def embed_questions(
    model: OcrModel, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[Tensor]:
    """The embeddings [T, D] of each question's prompt, for `GreedyRows.join`. To be called within
    `inference`. Raises as `prompt_ids` does."""
    prompts = [prompt_ids(model, tokenizer, question) for question in questions]
    vectors = _encode(model, questions)
    return [
        _embed(model, ids, question, vectors)
        for ids, question in zip(prompts, questions, strict=True)
    ]


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


def similar_lengths(prompts: Sequence[Tensor], batch: int) -> Iterator[list[int]]:
    """Groups of at most `batch` prompts, by their indices, in a fixed order: in a group none is
    more than a quarter longer than the shortest, so that little of it is padding."""
    group: list[int] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        if group and (len(group) == batch or len(prompts[number]) > 1.25 * len(prompts[group[0]])):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


_Shown = tuple[int, ImageLayout]
"""An image by the `id` of its tensor, and how it is shown."""


def _encode(model: OcrModel, questions: Sequence[Question]) -> dict[_Shown, Tensor]:
    """The vectors [slots, D] of each image: questions that share a tensor have it encoded once."""
    distinct = {
        (id(image), layout): image for one in questions for image, layout in one.shown(model)
    }
    vectors: dict[_Shown, Tensor] = {}
    for part in _parts(list(distinct)):
        layouts = [layout for _, layout in part]
        encoded = model.see([distinct[one] for one in part], layouts)
        assert encoded is not None
        slots = [layout_slots(layout) for layout in layouts]
        vectors.update(zip(part, torch.split(encoded, slots), strict=True))
    return vectors


def _parts(images: Sequence[_Shown]) -> Iterator[list[_Shown]]:
    """The images that are encoded together: at most `IMAGES_AT_ONCE` views and tiles, but for a
    single image that has more."""
    part: list[_Shown] = []
    for one in images:
        if part and sum(1 + layout.tiles for _, layout in [*part, one]) > IMAGES_AT_ONCE:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _embed(
    model: OcrModel, ids: Tensor, question: Question, vectors: Mapping[_Shown, Tensor]
) -> Tensor:
    """[T] ids and the vectors [slots, D] of their images -> [T, D]."""
    ids = ids.to(model.device)
    embeds: Tensor = model.gpt.model.embed_tokens(ids)
    if not question.images:
        return embeds
    features = torch.cat([vectors[id(one), layout] for one, layout in question.shown(model)])
    return embeds.masked_scatter((ids == model.image_token)[:, None], features.to(embeds.dtype))


class Continuation(NamedTuple):
    """The tokens of an answer without the one that ended it, and how it ended, as in `Answer`."""

    tokens: list[int]
    finished: bool
    repeats: bool


class Step(NamedTuple):
    """What a step gave a row: its next token, None where that ended the answer; and how it ended,
    if it did. The row is then gone."""

    token: int | None
    end: Continuation | None = None


@dataclass
class _Row:
    number: int
    limit: int
    tokens: list[int] = field(default_factory=list)


class GreedyRows:
    """Prompts that are continued together, greedily, a token at a time; they may join and leave
    between the steps.

    A row ends with a token of `stops`, in a loop of `stop_repeats` tokens (as in `Decoding`), or at
    its own limit. To be used within `inference`.
    """

    def __init__(self, model: OcrModel, stops: frozenset[int], *, stop_repeats: int) -> None:
        self._model, self._stops, self._stop_repeats = model, stops, stop_repeats
        self._rows: list[_Row] = []
        self._cache = RowCache()
        self._newest = torch.zeros(0, dtype=torch.long)  # [B], of each row
        self._joined = 0

    def __len__(self) -> int:
        """The number of rows that have not ended."""
        return len(self._rows)

    def join(self, prompts: Sequence[Tensor], limits: Sequence[int]) -> dict[int, Step]:
        """Read prompts, each an embedding [T, D], and give each its first token; at most `limits`
        tokens each. Returns the first steps by the rows' numbers, which count up from 0 in the
        order of joining."""
        if not prompts:
            return {}
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        embeds = torch.stack(
            [F.pad(one, (0, 0, count, 0)) for one, count in zip(prompts, padding, strict=True)]
        )
        places = torch.arange(longest, device=embeds.device)
        begins = torch.tensor(padding, device=embeds.device)[:, None]
        cache = RowCache(padding)
        logits = self._model.step(
            embeds,
            cache,
            (places - begins).clamp_(min=0),
            # Padding is a sample of its own, to which nothing else attends.
            tuple((count, longest - count) if count else (longest,) for count in padding),
        )
        rows = [
            _Row(self._joined + at, limit)
            for at, limit in zip(range(len(prompts)), limits, strict=True)
        ]
        self._joined += len(prompts)
        newest = logits.argmax(dim=-1)
        steps = {
            row.number: self._take(row, token)
            for row, token in zip(rows, newest.tolist(), strict=True)
        }
        going_on = [at for at, step in enumerate(steps.values()) if step.end is None]
        if going_on:
            cache.keep(going_on)
            self._cache.join(cache)
            self._newest = torch.cat([self._newest.to(newest.device), newest[going_on]])
            self._rows += [rows[at] for at in going_on]
        return steps

    def step(self) -> dict[int, Step]:
        """The next token of every row, by the rows' numbers."""
        if not self._rows:
            return {}
        embeds = self._model.gpt.model.embed_tokens(self._newest[:, None])
        begins = torch.tensor(self._cache.padding, device=embeds.device)
        positions = len(self._cache) - begins[:, None]
        self._newest = self._model.step(embeds, self._cache, positions).argmax(dim=-1)
        steps = {row.number: self._take(row, token)
                 for row, token in zip(self._rows, self._newest.tolist(), strict=True)}  # fmt: skip
        self.leave([number for number, step in steps.items() if step.end is not None])
        return steps

    def leave(self, numbers: Collection[int]) -> None:
        """Drop rows; those that have ended already are ignored."""
        kept = [at for at, row in enumerate(self._rows) if row.number not in numbers]
        if len(kept) < len(self._rows):
            self._rows = [self._rows[at] for at in kept]
            self._cache.keep(kept)
            self._newest = self._newest[kept]

    def _take(self, row: _Row, token: int) -> Step:
        """What a token means for its row."""
        if token in self._stops:
            return Step(None, Continuation(row.tokens, finished=True, repeats=False))
        row.tokens.append(token)
        if kept := without_loop(row.tokens, self._stop_repeats):
            return Step(token, Continuation(row.tokens[:kept], finished=False, repeats=True))
        if len(row.tokens) >= row.limit:
            return Step(token, Continuation(row.tokens, finished=False, repeats=False))
        return Step(token)


def greedy(
    model: OcrModel, prompts: Sequence[Tensor], stops: frozenset[int], decoding: Decoding
) -> list[Continuation]:
    """The greedy continuation of each prompt, an embedding [T, D], up to a token of `stops`, a loop
    or the limit."""
    rows = GreedyRows(model, stops, stop_repeats=decoding.stop_repeats)
    steps = rows.join(prompts, [decoding.max_new_tokens] * len(prompts))
    ended: dict[int, Continuation] = {}
    while True:
        ended.update({number: step.end for number, step in steps.items() if step.end is not None})
        if not len(rows):
            return [ended[number] for number in range(len(prompts))]
        steps = rows.step()


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
