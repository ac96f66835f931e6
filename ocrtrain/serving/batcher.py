"""Answers questions that arrive at any time, together: one thread owns the model.

A question waits in a queue of bounded length until the batch has room for it, joins the others
between two tokens, and leaves with its last one, or as soon as nobody waits for it. Rows are
decoded greedily (`ocrtrain.evaluation.generation`), so that an answer does not depend on what else
is in the batch, but for the last bits of sums.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ocrtrain.evaluation.generation import (
    Continuation,
    GreedyRows,
    Question,
    Step,
    embed_questions,
    inference,
    stop_tokens,
)
from ocrtrain.model.device import autocast_type
from ocrtrain.run.trained import TrainedModel


class QueueFull(Exception):
    """As many questions wait as may."""


class Closed(Exception):
    """The server is stopping."""


@dataclass(frozen=True)
class BatchLimits:
    """At most `rows` answers are given together and `waiting` questions wait. Keys and values of
    the batch take at most `cache_bytes`; a sequence of tokens repeated over `stop_repeats` tokens
    ends an answer, as in `Decoding`."""

    rows: int = 32
    waiting: int = 256
    cache_bytes: int = 2_000_000_000
    stop_repeats: int = 256


class Failure(NamedTuple):
    """The model failed while it answered; `out_of_memory` if its device had no memory left."""

    out_of_memory: bool


@dataclass(eq=False)
class Job:
    """A question on its way to its answer.

    `prompt` is the number of its tokens, image slots included, `max_new_tokens` the most that its
    answer may have. `deliver` is called in the model's thread, with each step and at last with one
    that ends the answer, or with a failure; it must not block.
    """

    question: Question
    prompt: int
    max_new_tokens: int
    deliver: Callable[[Step | Failure], None]
    cancelled: bool = field(default=False, init=False)

    @property
    def positions(self) -> int:
        """The most positions that it takes in the cache."""
        return self.prompt + self.max_new_tokens


class Batcher:
    """A context manager: within it a thread answers what is submitted."""

    def __init__(self, trained: TrainedModel, limits: BatchLimits) -> None:
        self._trained, self._limits = trained, limits
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._answering: dict[int, Job] = {}  # by the number of its row
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.max_positions = limits.cache_bytes // _bytes_per_position(trained)
        """The most positions of a batch, padding included, and so of a question and its answer."""

    def __enter__(self) -> Batcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Break off what is being answered, and end the thread."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *self._answering.values()):
                job.cancelled = True
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> tuple[int, int]:
        """How many questions wait, and how many are being answered."""
        with self._changed:
            return len(self._waiting), len(self._answering)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises QueueFull or Closed; ValueError where it takes more positions than a
        whole batch may."""
        if job.positions > self.max_positions:
            raise ValueError(f"{job.positions} positions; there are {self.max_positions}")
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._waiting) >= self._limits.waiting:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Nobody waits for a job any more: it leaves the queue now, or the batch before the next
        token. One that has ended is left alone."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def _work(self) -> None:
        trained = self._trained
        precision = autocast_type(trained.config.precision, trained.model.device)
        with inference(trained.model, precision):
            rows = self._no_rows()
            while True:
                arrived = self._wait()
                if arrived is None:
                    return
                try:
                    self._advance(rows, arrived)
                except Exception as exc:  # a bug, or no memory: these answers fail, not the server
                    self._fail(arrived, exc)
                    rows = self._no_rows()

    def _no_rows(self) -> GreedyRows:
        trained = self._trained
        return GreedyRows(
            trained.model,
            stop_tokens(trained.tokenizer),
            stop_repeats=self._limits.stop_repeats,
        )

    def _wait(self) -> list[Job] | None:
        """Wait for work; the jobs that join the batch now, None at the end."""
        with self._changed:
            while not (self._closed or self._waiting or self._answering):
                self._changed.wait()
            if self._closed:
                return None
            arrived: list[Job] = []
            longest = max((job.positions for job in self._answering.values()), default=0)
            while self._waiting and len(self._answering) + len(arrived) < self._limits.rows:
                # Rows are padded to the longest. First come, first served: a long question is not
                # overtaken for ever.
                longest = max(longest, self._waiting[0].positions)
                if (len(self._answering) + len(arrived) + 1) * longest > self.max_positions:
                    break
                arrived.append(self._waiting.popleft())
            return arrived

    def _advance(self, rows: GreedyRows, arrived: list[Job]) -> None:
        """Drop the cancelled, give every row its next token, and let the new ones join."""
        with self._changed:
            gone = [number for number, job in self._answering.items() if job.cancelled]
            for number in gone:
                del self._answering[number]
        rows.leave(gone)
        self._deliver(rows.step())
        arrived = [job for job in arrived if not job.cancelled]
        if arrived:
            trained = self._trained
            prompts = embed_questions(
                trained.model, trained.tokenizer, [job.question for job in arrived]
            )
            steps = rows.join(prompts, [job.max_new_tokens for job in arrived])
            with self._changed:
                self._answering.update(zip(steps, arrived, strict=True))
            self._deliver(steps)

    def _deliver(self, steps: dict[int, Step]) -> None:
        for number, step in steps.items():
            job = self._answering[number]
            if step.end is not None:
                with self._changed:
                    del self._answering[number]
            job.deliver(step)

    def _fail(self, arrived: list[Job], exc: Exception) -> None:
        out_of_memory = isinstance(exc, torch.OutOfMemoryError | MemoryError)
        if out_of_memory:
            torch.cuda.empty_cache()
        else:
            traceback.print_exception(exc)
        with self._changed:
            failed = {id(job): job for job in (*self._answering.values(), *arrived)}
            self._answering.clear()
        for job in failed.values():
            job.deliver(Failure(out_of_memory))


def _bytes_per_position(trained: TrainedModel) -> int:
    """Bytes of keys and values of one position, in fp32: autocast keeps them in at most that."""
    sizes = trained.config.model
    return 2 * 4 * sizes.gpt_layers * sizes.gpt_width


def answer_now(
    batcher: Batcher, question: Question, prompt: int, max_new_tokens: int
) -> Continuation:
    """Submit a question and wait for its answer. Raises RuntimeError if the model fails."""
    ended: list[Step | Failure] = []
    done = threading.Event()

    def deliver(step: Step | Failure) -> None:
        if isinstance(step, Failure) or step.end is not None:
            ended.append(step)
            done.set()

    batcher.submit(Job(question, prompt, max_new_tokens, deliver))
    done.wait()
    (last,) = ended
    if isinstance(last, Failure) or last.end is None:
        raise RuntimeError("the model failed")
    return last.end
