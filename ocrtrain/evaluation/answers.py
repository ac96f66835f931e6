"""Asks every question of a slice, scores the answers, and asks again with swapped images.

In: the samples of a slice. Out: a record for each question. `turns_of` makes a question of each
turn alone, `turns_with_history` one that comes after the turns before it, as in the record. Scores
are grouped by kind of question. Kinds come from a sample's `meta["kinds"]`, one for each turn;
without it all questions are of the kind "all".
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ocrdata.errors import RejectedRow, ShardError
from ocrdata.images.modes import ImageMode
from ocrdata.reading.samples import DecodedSample, load_sample
from ocrdata.reading.view import SampleRef, Shards
from ocrdata.sample import (
    IMAGE_PART,
    Message,
    Sample,
    image_parts,
    is_trained,
    text_of,
    text_part,
)
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measured
from ocrtrain.evaluation.benchmarks.registry import META, benchmark_of, facts_of
from ocrtrain.evaluation.gain import GoldAnswer, answer_gains
from ocrtrain.evaluation.generation import Answer, Decoding, Question, answer
from ocrtrain.evaluation.scores import Score, mean_scores, score
from ocrtrain.evaluation.swapped import swap_partners
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.image_slots import layout_slots

NO_KIND = "all"
SAMPLES_AT_ONCE = 32
"""Samples whose images are in memory together; with more, more prompts of similar length share a
batch."""

ANSWER_LISTS = ("answers", "answer")
"""Fields of the meta in which conversion keeps a list of answers, whose first is the gold answer of
the only turn (docs/formats.md)."""


class Turn(NamedTuple):
    """One question of a sample: its number there, the messages to ask, the gold answers, of which
    the first is the record's, which images of the sample the messages place, and the benchmark that
    it belongs to, with the facts that its measure needs."""

    number: int
    kind: str
    messages: list[Message]
    golds: tuple[str, ...]
    images: range
    benchmark: Benchmark | None = None
    facts: Mapping[str, Any] = {}

    def measure(self, answer: str, tokens: int, slots: int) -> Measured | None:
        """The benchmark's measure of an answer, None without a benchmark; `tokens` and `slots` as
        in `Gold`."""
        if self.benchmark is None:
            return None
        gold = Gold(self.golds, self.kind, self.facts, tokens, slots)
        return self.benchmark.measure(answer, gold)


Group = tuple[str, range]
"""What questions have in common that may be asked about each other's images: kind, and images."""

Partners = Mapping[Group, Mapping[int, int]]
"""Group -> position -> position of the sample whose images are shown instead."""


def turns_of(sample: Sample) -> list[Turn]:
    """The turns of a sample as separate questions: other turns cannot help, nor mislead.

    A turn that shows images is asked about these, where it places them. One that shows none is
    asked about all images shown before it, which come first. System messages are kept; other turns
    are left out, with their answers. An answer of weight 0 is not taken for right, so it is no
    question. Raises RejectedRow for gold answers in a wrong form.
    """
    system = [message for message in sample.messages if message["role"] == "system"]
    found = []
    for turn in turns_with_history(sample):
        user = turn.messages[-1]
        images = turn.images
        if own := image_parts([user]):
            images = images[-own:]
        else:
            user = {**user, "content": [*(dict(IMAGE_PART) for _ in images), *user["content"]]}
        found.append(turn._replace(messages=[*system, user], images=images))
    return found


def turns_with_history(sample: Sample) -> list[Turn]:
    """The turns of a sample as questions that come after all before them, with their images and
    gold answers: what the model reads in training. Otherwise as `turns_of`."""
    kinds = sample.meta.get("kinds")
    golds = _golds(sample)
    benchmark, facts = benchmark_of(sample.meta), facts_of(sample.meta, len(golds))
    found, images, number = [], 0, 0
    for at, message in enumerate(sample.messages):
        if message["role"] == "user":
            images += image_parts([message])
        if message["role"] != "assistant":
            continue
        if is_trained(message):
            known = isinstance(kinds, list) and number < len(kinds)
            found.append(
                Turn(
                    number=number,
                    kind=str(kinds[number]) if known and kinds else NO_KIND,
                    messages=sample.messages[:at],
                    golds=golds[number],
                    images=range(images),
                    benchmark=benchmark,
                    facts=facts[number],
                )
            )
        number += 1
    return found


def _golds(sample: Sample) -> list[tuple[str, ...]]:
    """The gold answers of each turn: the record's own, then those in `meta["golds"]`, a list for
    each turn. Without it, a single turn has those in a list of answers that begins with its own.

    Raises RejectedRow if `meta["golds"]` has another form.
    """
    own = [text_of(message) for message in sample.messages if message["role"] == "assistant"]
    more: Any = sample.meta.get("golds")
    if more is None:
        lists = [sample.meta.get(name) for name in ANSWER_LISTS] if len(own) == 1 else []
        texts = [list(map(_as_text, one)) for one in lists if isinstance(one, list)]
        more = next(([one] for one in texts if one[:1] == own), [[]] * len(own))
    elif not (
        isinstance(more, list)
        and len(more) == len(own)
        and all(isinstance(one, list) and all(isinstance(t, str) for t in one) for one in more)
    ):
        raise RejectedRow(
            f"meta.golds must be a list with a list of texts for each of {len(own)} turns"
        )
    return [
        tuple(dict.fromkeys([gold, *(text for text in others if text.strip())]))
        for gold, others in zip(own, more, strict=True)
    ]


def _as_text(value: Any) -> str:
    """A JSON value as conversion writes it when it is an answer."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class SwappedAnswer:
    """The answer to the same question about another sample's images, scored against the same gold
    answer. `gain` is what the right images are worth: the loss of the gold answer with the other
    images minus that with its own, in nats per token; None where the gold answer is no text."""

    ref: SampleRef
    answer: Answer
    score: Score
    gain: float | None
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One question, its answer, and the scores."""

    ref: SampleRef
    turn: int
    kind: str
    question: str
    golds: tuple[str, ...]
    answer: Answer
    score: Score
    swapped: SwappedAnswer | None
    benchmark: str = ""
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """A line of the answers file."""
        line: dict[str, Any] = {
            "shard": self.ref.shard,
            "key": self.ref.key,
            "position": self.ref.position,
            "turn": self.turn,
            "kind": self.kind,
            "question": self.question,
            "gold": self.golds[0],
            "answer": self.answer.text,
            "tokens": self.answer.tokens,
            "finished": self.answer.finished,
            "repeats": self.answer.repeats,
            "scores": asdict(self.score),
        }
        if len(self.golds) > 1:
            line["golds"] = list(self.golds)
        if self.measured is not None:
            line["benchmark"] = self.measured.to_json(self.benchmark)
        if self.swapped is not None:
            if self.swapped.gain is not None:
                line["gain"] = self.swapped.gain
            line["exchanged"] = {
                "shard": self.swapped.ref.shard,
                "key": self.swapped.ref.key,
                "answer": self.swapped.answer.text,
                "scores": asdict(self.swapped.score),
            }
            if self.swapped.measured is not None:
                measured = self.swapped.measured.to_json(self.benchmark)
                line["exchanged"]["benchmark"] = measured
        return line


NO_BENCHMARK = "none"
"""As `Asking.benchmark`: what the samples say of benchmarks does not count."""


@dataclass(frozen=True)
class Asking:
    """How samples become questions: by `turns`; with `instruction` after each, on a line of its
    own; measured by `benchmark`, if it is not that which the samples name."""

    turns: Callable[[Sample], list[Turn]] = turns_of
    instruction: str = ""
    benchmark: str = ""

    def questions(self, sample: Sample) -> list[Turn]:
        """The questions of a sample. Raises RejectedRow."""
        if self.benchmark:
            named = sample.meta.get(META)
            value = {**(named if isinstance(named, dict) else {}), "name": self.benchmark}
            meta = {**sample.meta, META: None if self.benchmark == NO_BENCHMARK else value}
            sample = replace(sample, meta=meta)
        found = self.turns(sample)
        if not self.instruction:
            return found
        tail = text_part(f"\n{self.instruction}")
        return [
            turn._replace(messages=[*before, {**user, "content": [*user["content"], tail]}])
            for turn in found
            for *before, user in [turn.messages]
        ]


class QuestionRunner:
    """Asks the questions of a slice, a few samples at a time; `asking` makes them of a sample,
    whose images are shown as `mode` says, or else in one view of the model's `image_size`."""

    def __init__(
        self,
        model: OcrModel,
        tokenizer: Tokenizer,
        shards: Shards,
        decoding: Decoding,
        *,
        asking: Asking | None = None,
        mode: ImageMode | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.shards, self.decoding = shards, decoding
        self._asking, self._mode = asking or Asking(), mode or ImageMode(model.image_size)

    @property
    def has_gold_text(self) -> bool:
        """Whether the answers of the samples are texts to be read, as their first sample says:
        those of a benchmark of tests are not."""
        if not len(self.shards):
            return True
        return all(
            turn.benchmark is None or turn.benchmark.has_gold_text
            for turn in self._turns_at(0, self.shards[0])
        )

    def partners(self) -> Partners:
        """Whose images are shown instead, for each kind of question and each of the images that it
        shows: `swap_partners` of the samples that have such a question. Where these are the same
        samples, they share partners, so each image is encoded once. Reads every sample."""
        having: dict[Group, list[int]] = defaultdict(list)
        for position in range(len(self.shards)):
            turns = self._turns_at(position, self.shards[position])
            for group in {(turn.kind, turn.images): None for turn in turns}:
                having[group].append(position)
        partners = {
            (kind, images): swap_partners(self.shards, found, images)
            for (kind, images), found in sorted(having.items(), key=lambda item: item[0][0])
        }
        return {group: found for group, found in partners.items() if found}

    def groups(
        self, partners: Partners, start: int = 0
    ) -> Iterator[tuple[int, list[AnswerRecord]]]:
        """The answers of a few samples at a time, from position `start` on: the position after
        them, and their records, by sample and turn, each with the swapped one if it has a partner.
        Raises ShardError for a sample that cannot be asked about."""
        for first in range(start, len(self.shards), SAMPLES_AT_ONCE):
            stop = min(first + SAMPLES_AT_ONCE, len(self.shards))
            yield stop, self._records(range(first, stop), partners)

    def records(self, partners: Partners) -> Iterator[AnswerRecord]:
        """All answers, as `groups` gives them."""
        for _, records in self.groups(partners):
            yield from records

    def _turns_at(self, position: int, sample: Sample) -> list[Turn]:
        try:
            return self._asking.questions(sample)
        except RejectedRow as exc:
            ref = self.shards.ref(position)
            raise ShardError(ref.shard, str(exc), key=ref.key) from exc

    def _records(self, positions: Sequence[int], partners: Partners) -> list[AnswerRecord]:
        """The answers for a few samples; each image is decoded and encoded once for all of them."""
        loaded = _LoadedSamples(self.shards, self._mode)
        asked = [
            (position, turn)
            for position in positions
            for turn in self._turns_at(position, loaded.item(position).sample)
        ]
        others = [partners.get((turn.kind, turn.images), {}).get(p) for p, turn in asked]
        questions = [loaded.question(turn, p) for p, turn in asked]
        questions += [
            loaded.question(turn, other)
            for (_, turn), other in zip(asked, others, strict=True)
            if other is not None
        ]
        answers = answer(self.model, self.tokenizer, questions, self.decoding)
        gains = self._gains(loaded, asked, others)
        swapped_answers = iter(answers[len(asked) :])
        records = []
        for number, ((position, turn), other) in enumerate(zip(asked, others, strict=True)):
            found, swapped, own = answers[number], None, self.shards.ref(position)
            slots = loaded.slots(turn, position)
            if other is not None:
                second = next(swapped_answers)
                swapped = SwappedAnswer(
                    ref=self.shards.ref(other),
                    answer=second,
                    score=score(second.text, *turn.golds),
                    gain=gains.get(number),
                    measured=self._measure(own, turn, second, slots),
                )
            records.append(
                AnswerRecord(
                    ref=own,
                    turn=turn.number,
                    kind=turn.kind,
                    question=text_of(turn.messages[-1]),
                    golds=turn.golds,
                    answer=found,
                    score=score(found.text, *turn.golds),
                    swapped=swapped,
                    benchmark=turn.benchmark.name if turn.benchmark else "",
                    measured=self._measure(own, turn, found, slots),
                )
            )
        return records

    def _measure(self, ref: SampleRef, turn: Turn, found: Answer, slots: int) -> Measured | None:
        """The measure of an answer by the benchmark of its question, if it has one; `slots` are the
        positions of its images. Raises ShardError if the sample does not have what that measure
        needs."""
        if turn.benchmark is None:
            return None
        tokens = len(self.tokenizer.encode(turn.golds[0])) if turn.benchmark.has_gold_text else 0
        try:
            return turn.measure(found.text, tokens, slots)
        except RejectedRow as exc:
            raise ShardError(ref.shard, f"turn {turn.number}: {exc}", key=ref.key) from exc

    def _gains(
        self,
        loaded: _LoadedSamples,
        asked: Sequence[tuple[int, Turn]],
        others: Sequence[int | None],
    ) -> dict[int, float]:
        """By the number of the question, of those that have a partner and a text to be read."""
        numbers, pairs = [], []
        for number, ((position, turn), other) in enumerate(zip(asked, others, strict=True)):
            if other is None or (turn.benchmark and not turn.benchmark.has_gold_text):
                continue
            item, numbered = loaded.item(position), slice(turn.images.start, turn.images.stop)
            own = GoldAnswer(item.ref, turn.messages, turn.golds[0], item.images[numbered])
            numbers.append(number)
            pairs.append((own, own._replace(images=loaded.item(other).images[numbered])))
        gains = answer_gains(
            self.model,
            self.tokenizer,
            pairs,
            mode=self._mode,
            precision=self.decoding.precision,
        )
        return dict(zip(numbers, gains, strict=True))


class _LoadedSamples:
    """Decoded samples, each loaded once, so that questions about one image share its tensor."""

    def __init__(self, shards: Shards, mode: ImageMode) -> None:
        self._shards, self._mode = shards, mode
        self._items: dict[int, DecodedSample] = {}
        self._tensors: dict[int, tuple[Tensor, ...]] = {}

    def slots(self, turn: Turn, position: int) -> int:
        """The positions that the images of a question take."""
        images = self.item(position).images[turn.images.start : turn.images.stop]
        return sum(layout_slots(self._mode.layout(*image.shape[1::-1])) for image in images)

    def item(self, position: int) -> DecodedSample:
        """The decoded sample."""
        if position not in self._items:
            name = self._shards.source_name
            self._items[position] = load_sample(
                self._shards, position, source=name, mode=self._mode
            )
        return self._items[position]

    def question(self, turn: Turn, position: int) -> Question:
        """A turn as a question about the images of the sample at `position`: the same tensors at
        every call."""
        if position not in self._tensors:
            images = self.item(position).images
            self._tensors[position] = tuple(torch.from_numpy(image) for image in images)
        shown = self._tensors[position][turn.images.start : turn.images.stop]
        layouts = tuple(self._mode.layout(*image.shape[1::-1]) for image in shown)
        return Question(turn.messages, shown, layouts)


class ScoreTable:
    """Scores by kind of question, and overall."""

    def __init__(self) -> None:
        self._matched: dict[str, list[Score]] = defaultdict(list)
        self._swapped: dict[str, list[Score]] = defaultdict(list)
        self._cut_off = 0
        self._repeating: list[int] = []
        self.has_others = False
        """Whether any answer belongs to no benchmark."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of the answers file, as `AnswerRecord.to_json` gives it."""
        self.has_others |= "benchmark" not in line
        self._repeating += [line["tokens"]] if line["repeats"] else []
        self._cut_off += not (line["finished"] or line["repeats"])
        self._matched[line["kind"]].append(Score(**line["scores"]))
        if "exchanged" in line:
            self._swapped[line["kind"]].append(Score(**line["exchanged"]["scores"]))

    def summary(self) -> dict[str, Any]:
        """Means over all answers and by kind; with swapped images if there were any."""
        found: dict[str, Any] = {"all": _means(_all(self._matched), _all(self._swapped))}
        if set(self._matched) != {NO_KIND}:
            found["kinds"] = {
                kind: _means(scores, self._swapped.get(kind, []))
                for kind, scores in sorted(self._matched.items())
            }
        found |= {"cut_off": self._cut_off, "repeating": len(self._repeating)}
        return found | ({"repeats_at": mean(self._repeating)} if self._repeating else {})

    def table(self) -> str:
        """The summary as a table for the console, with what its numbers count as right. Lengths are
        in characters."""
        summary = self.summary()
        rows = {**summary.get("kinds", {}), "all": summary["all"]}
        width = max(len("kind of question"), *map(len, rows))
        head = (
            f"{'kind of question':<{width}}  answers  relaxed  exact   ANLS    NED  length   gold"
        )
        with_swapped = "exchanged" in summary["all"]
        lines = [head + ("  relaxed with swapped images" if with_swapped else "")]
        for name, row in rows.items():
            line = (
                f"{name:<{width}}  {row['answers']:>7}  {row['relaxed']:>7.1%}"
                f"  {row['exact']:>5.1%}  {row['anls']:>5.3f}  {row['ned']:>5.3f}"
                f"  {row['length']:>6.1f}  {row['gold_length']:>5.1f}"
            )
            if "exchanged" in row:
                swapped = row["exchanged"]
                line += f"  {swapped['relaxed']:.1%} of {swapped['answers']}"
            lines.append(line)
        years = sum(one.other_year for one in _all(self._matched))
        lines.append(
            "relaxed: a number within 5 % of the gold answer is right, and so is a year; "
            f"{_answers(years)} right only as another year"
        )
        if self._cut_off:
            lines.append(f"{_answers(self._cut_off)} cut off (--max-new-tokens)")
        if self._repeating:
            lines.append(
                f"{_answers(len(self._repeating))} stopped in a loop (--stop-repeats); its first "
                f"round ended after {mean(self._repeating):,.0f} tokens on average"
            )
        return "\n".join(lines)


def _answers(count: int) -> str:
    return "1 answer was" if count == 1 else f"{count:,} answers were"


def _all(scores: Mapping[str, list[Score]]) -> list[Score]:
    return [one for kind in scores.values() for one in kind]


def _means(matched: list[Score], swapped: list[Score]) -> dict[str, Any]:
    means: dict[str, Any] = dict(mean_scores(matched))
    if swapped:
        means["exchanged"] = mean_scores(swapped)
    return means
