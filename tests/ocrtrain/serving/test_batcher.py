"""Answering together what arrives at any time."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import torch

from ocrdata.sample import IMAGE_PART, text_part
from ocrtrain.evaluation import generation
from ocrtrain.evaluation.generation import Continuation, Decoding, Question, Step, plain_text
from ocrtrain.run.trained import TrainedModel
from ocrtrain.serving.batcher import (
    Batcher,
    BatchLimits,
    Closed,
    Failure,
    Job,
    QueueFull,
    answer_now,
)
from tests.support import serving, small


def asked(colour: str, kind: str, filler: str = "") -> Question:
    """A question; `filler` makes its prompt longer."""
    pixels = torch.tensor(small.COLOURS[colour], dtype=torch.uint8).expand(40, 40, 3)
    content = [dict(IMAGE_PART), text_part(filler + small.QUESTIONS[kind])]
    return Question([{"role": "user", "content": content}], (pixels,))


def length(model: TrainedModel, question: Question) -> int:
    return len(generation.prompt_ids(model.model, model.tokenizer, question))


class Waiter:
    """The steps of a job, and its end."""

    def __init__(self, model: TrainedModel, question: Question, limit: int = 20) -> None:
        self.steps: list[Step | Failure] = []
        self.ended, self.begun = threading.Event(), threading.Event()
        self.job = Job(question, length(model, question), limit, self._take)

    def _take(self, step: Step | Failure) -> None:
        self.steps.append(step)
        self.begun.set()
        if isinstance(step, Failure) or step.end is not None:
            self.ended.set()

    def end(self) -> Continuation:
        assert self.ended.wait(60)
        last = self.steps[-1]
        assert isinstance(last, Step) and last.end is not None
        return last.end


@pytest.mark.parametrize("rows", [5, 64])
def test_an_answer_is_that_of_the_question_alone(tmp_path: Path, rows: int) -> None:
    model = serving.trained(tmp_path)
    draws = random.Random(rows)
    questions = [
        asked(draws.choice(list(small.COLOURS)), kind, "so " * draws.randrange(4))
        for kind in draws.choices(list(small.QUESTIONS), k=20)
    ]
    (*alone,) = (
        generation.answer(model.model, model.tokenizer, [one], Decoding(20))[0] for one in questions
    )
    with Batcher(model, BatchLimits(rows=rows)) as batcher:
        waiters = [Waiter(model, one) for one in questions]
        for waiter in waiters:
            batcher.submit(waiter.job)
        for waiter, wanted in zip(waiters, alone, strict=True):
            end = waiter.end()
            assert plain_text(model.tokenizer, end.tokens) == wanted.text
            assert (len(end.tokens), end.finished) == (wanted.tokens, wanted.finished)
            tokens = [step.token for step in waiter.steps if isinstance(step, Step)]
            assert [token for token in tokens if token is not None] == end.tokens
        assert batcher.load == (0, 0)
    assert len({one.text for one in alone}) > 3


def test_who_waits_no_more_leaves_the_queue_or_the_batch(tmp_path: Path) -> None:
    model = serving.endless(tmp_path)
    question = asked("red", "colour")
    with Batcher(model, BatchLimits(rows=1, waiting=1, stop_repeats=0)) as batcher:
        first, second, third = (Waiter(model, question, 100_000) for _ in range(3))
        batcher.submit(first.job)
        assert first.begun.wait(60)
        batcher.submit(second.job)
        assert batcher.load == (1, 1)
        with pytest.raises(QueueFull):
            batcher.submit(third.job)
        batcher.cancel(second.job)
        assert batcher.load == (0, 1)
        batcher.submit(third.job)
        batcher.cancel(first.job)
        assert third.begun.wait(60)
        assert not (first.ended.is_set() or second.steps)
    assert not batcher.alive
    with pytest.raises(Closed):
        batcher.submit(first.job)


def test_rows_fit_into_the_memory_of_the_cache(tmp_path: Path) -> None:
    model = serving.endless(tmp_path)
    question = asked("red", "colour")
    positions = length(model, question) + 10_000
    a_position = 2 * 4 * small.MODEL.gpt_layers * small.MODEL.gpt_width
    limits = BatchLimits(rows=9, cache_bytes=2 * positions * a_position, stop_repeats=0)
    with Batcher(model, limits) as batcher:
        waiters = [Waiter(model, question, 10_000) for _ in range(3)]
        for waiter in waiters:
            batcher.submit(waiter.job)
        assert waiters[1].begun.wait(60)
        assert batcher.load == (1, 2)
        longer = Waiter(model, question, 2 * positions)
        with pytest.raises(ValueError, match=str(2 * positions)):
            batcher.submit(longer.job)
        batcher.cancel(waiters[0].job)
        assert waiters[2].begun.wait(60)


def test_a_failure_ends_the_answers_and_not_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = serving.trained(tmp_path)
    question = asked("red", "colour")
    real = type(model.model).step
    errors: list[Exception] = [torch.OutOfMemoryError("no memory"), ValueError("a bug")]

    def step(*arguments: object, **more: object) -> object:
        if errors:
            raise errors.pop(0)
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.model), "step", step)
    with Batcher(model, BatchLimits()) as batcher:
        for out_of_memory in (True, False):
            failing = Waiter(model, question)
            batcher.submit(failing.job)
            assert failing.ended.wait(60)
            assert failing.steps == [Failure(out_of_memory)]
            assert ("a bug" in capsys.readouterr().err) is not out_of_memory
        errors.append(ValueError("another"))
        with pytest.raises(RuntimeError):
            answer_now(batcher, question, length(model, question), 20)
        end = answer_now(batcher, question, length(model, question), 20)
        assert plain_text(model.tokenizer, end.tokens) == "red"
