"""Asks every question of a slice by itself, scores the answers, and asks again with swapped images.

Scores are grouped by kind of question. Kinds come from a sample's `meta["kinds"]`, one for each
turn; without it all questions are of the kind "all".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ocrdata.reading.samples import DecodedSample, load_sample
from ocrdata.reading.view import SampleRef, Shards
from ocrdata.sample import IMAGE_PART, Message, Sample, image_parts, is_trained, text_of
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.evaluation.generation import Answer, Decoding, Question, answer
from ocrtrain.evaluation.scores import Score, mean_scores, score
from ocrtrain.evaluation.swapped import swap_partners
from ocrtrain.model.ocr_model import OcrModel

NO_KIND = "all"
SAMPLES_AT_ONCE = 32
"""Samples whose images are in memory together; with more, more prompts of equal length share a
batch."""

Partners = Mapping[str, Mapping[int, int]]
"""kind -> position -> position of the sample whose images are shown instead."""


class Turn(NamedTuple):
    """One question of a sample: its number there, the messages to ask, and the gold answer."""

    number: int
    kind: str
    messages: list[Message]
    gold: str


def turns_of(sample: Sample) -> list[Turn]:
    """The turns of a sample as separate questions, each about all of its images.

    A turn that places all images itself stays as it is; for any other the images come first. System
    messages are kept; other turns are left out, with their images and answers. An answer of weight
    0 is not taken for right, so it is no question.
    """
    system = [message for message in sample.messages if message["role"] == "system"]
    spoken = [message for message in sample.messages if message["role"] != "system"]
    kinds = sample.meta.get("kinds")
    turns = []
    for number, (user, assistant) in enumerate(zip(spoken[::2], spoken[1::2], strict=True)):
        if not is_trained(assistant):
            continue
        content = user["content"]
        if image_parts([user]) != len(sample.images):
            texts = [part for part in content if part["type"] == "text"]
            content = [*(dict(IMAGE_PART) for _ in sample.images), *texts]
        known = isinstance(kinds, list) and number < len(kinds)
        turns.append(
            Turn(
                number=number,
                kind=str(kinds[number]) if known and kinds else NO_KIND,
                messages=[*system, {"role": "user", "content": content}],
                gold=text_of(assistant),
            )
        )
    return turns


@dataclass(frozen=True, slots=True)
class SwappedAnswer:
    """The answer to the same question about another sample's images, scored against the same gold
    answer."""

    ref: SampleRef
    answer: Answer
    score: Score


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One question, its answer, and the scores."""

    ref: SampleRef
    turn: int
    kind: str
    question: str
    gold: str
    answer: Answer
    score: Score
    swapped: SwappedAnswer | None

    def to_json(self) -> dict[str, Any]:
        """A line of the answers file."""
        line = {
            "shard": self.ref.shard,
            "key": self.ref.key,
            "turn": self.turn,
            "kind": self.kind,
            "question": self.question,
            "gold": self.gold,
            "answer": self.answer.text,
            "tokens": self.answer.tokens,
            "finished": self.answer.finished,
            "scores": asdict(self.score),
        }
        if self.swapped is not None:
            line["exchanged"] = {
                "shard": self.swapped.ref.shard,
                "key": self.swapped.ref.key,
                "answer": self.swapped.answer.text,
                "scores": asdict(self.swapped.score),
            }
        return line


class QuestionRunner:
    """Asks the questions of a slice, a few samples at a time."""

    def __init__(
        self, model: OcrModel, tokenizer: Tokenizer, shards: Shards, decoding: Decoding
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.shards, self.decoding = shards, decoding

    def partners(self) -> Partners:
        """Whose images each sample is shown instead, for each kind of question: `swap_partners` of
        the samples that have a question of the kind. Kinds with the same samples share partners, so
        each image is encoded once. Reads every sample."""
        having: dict[str, list[int]] = defaultdict(list)
        for position in range(len(self.shards)):
            for kind in sorted({turn.kind for turn in turns_of(self.shards[position])}):
                having[kind].append(position)
        partners = {kind: swap_partners(self.shards, found) for kind, found in having.items()}
        return {kind: found for kind, found in partners.items() if found}

    def records(self, partners: Partners) -> Iterator[AnswerRecord]:
        """The answers, by sample and turn, each with the swapped one if it has a partner."""
        for start in range(0, len(self.shards), SAMPLES_AT_ONCE):
            stop = min(start + SAMPLES_AT_ONCE, len(self.shards))
            yield from self._records(range(start, stop), partners)

    def _records(self, positions: Sequence[int], partners: Partners) -> list[AnswerRecord]:
        """The answers for a few samples; each image is decoded and encoded once for all of them."""
        loaded = _LoadedSamples(self.shards, self.model.image_size)
        asked = [(p, turn) for p in positions for turn in turns_of(loaded.item(p).sample)]
        others = [partners.get(turn.kind, {}).get(position) for position, turn in asked]
        questions = [Question(turn.messages, loaded.images(p)) for p, turn in asked]
        questions += [
            Question(turn.messages, loaded.images(other))
            for (_, turn), other in zip(asked, others, strict=True)
            if other is not None
        ]
        answers = answer(self.model, self.tokenizer, questions, self.decoding)
        swapped_answers = iter(answers[len(asked) :])
        records = []
        for (position, turn), other, found in zip(asked, others, answers, strict=False):
            swapped = None
            if other is not None:
                second = next(swapped_answers)
                ref = self.shards.ref(other)
                swapped = SwappedAnswer(ref, second, score(second.text, turn.gold))
            records.append(
                AnswerRecord(
                    ref=self.shards.ref(position),
                    turn=turn.number,
                    kind=turn.kind,
                    question=text_of(turn.messages[-1]),
                    gold=turn.gold,
                    answer=found,
                    score=score(found.text, turn.gold),
                    swapped=swapped,
                )
            )
        return records


class _LoadedSamples:
    """Decoded samples, each loaded once, so that questions about one image share its tensor."""

    def __init__(self, shards: Shards, size: int) -> None:
        self._shards, self._size = shards, size
        self._items: dict[int, DecodedSample] = {}
        self._tensors: dict[int, tuple[Tensor, ...]] = {}

    def item(self, position: int) -> DecodedSample:
        """The decoded sample."""
        if position not in self._items:
            name, size = self._shards.source_name, self._size
            self._items[position] = load_sample(
                self._shards, position, source=name, image_size=size
            )
        return self._items[position]

    def images(self, position: int) -> tuple[Tensor, ...]:
        """Its images, uint8 [H, W, 3]: the same tensors at every call."""
        if position not in self._tensors:
            images = self.item(position).images
            self._tensors[position] = tuple(torch.from_numpy(image) for image in images)
        return self._tensors[position]


class ScoreTable:
    """Scores by kind of question, and overall."""

    def __init__(self) -> None:
        self._matched: dict[str, list[Score]] = defaultdict(list)
        self._swapped: dict[str, list[Score]] = defaultdict(list)
        self._cut_off = 0

    def add(self, record: AnswerRecord) -> None:
        """Add an answer."""
        self._cut_off += not record.answer.finished
        self._matched[record.kind].append(record.score)
        if record.swapped is not None:
            self._swapped[record.kind].append(record.swapped.score)

    def summary(self) -> dict[str, Any]:
        """Means over all answers and by kind; with swapped images if there were any."""
        found: dict[str, Any] = {"all": _means(_all(self._matched), _all(self._swapped))}
        if set(self._matched) != {NO_KIND}:
            found["kinds"] = {
                kind: _means(scores, self._swapped.get(kind, []))
                for kind, scores in sorted(self._matched.items())
            }
        return found | {"cut_off": self._cut_off}

    def table(self) -> str:
        """The summary as a table for the console. Lengths are in characters."""
        summary = self.summary()
        rows = {**summary.get("kinds", {}), "all": summary["all"]}
        width = max(len("kind of question"), *map(len, rows))
        head = f"{'kind of question':<{width}}  answers  relaxed  exact    NED  length   gold"
        with_swapped = "exchanged" in summary["all"]
        lines = [head + ("  relaxed with swapped images" if with_swapped else "")]
        for name, row in rows.items():
            line = (
                f"{name:<{width}}  {row['answers']:>7}  {row['relaxed']:>7.1%}"
                f"  {row['exact']:>5.1%}  {row['ned']:>5.3f}"
                f"  {row['length']:>6.1f}  {row['gold_length']:>5.1f}"
            )
            if "exchanged" in row:
                swapped = row["exchanged"]
                line += f"  {swapped['relaxed']:.1%} of {swapped['answers']}"
            lines.append(line)
        if self._cut_off:
            answers = "1 answer was" if self._cut_off == 1 else f"{self._cut_off} answers were"
            lines.append(f"{answers} cut off (--max-new-tokens)")
        return "\n".join(lines)


def _all(scores: Mapping[str, list[Score]]) -> list[Score]:
    return [one for kind in scores.values() for one in kind]


def _means(matched: list[Score], swapped: list[Score]) -> dict[str, Any]:
    means: dict[str, Any] = dict(mean_scores(matched))
    if swapped:
        means["exchanged"] = mean_scores(swapped)
    return means
