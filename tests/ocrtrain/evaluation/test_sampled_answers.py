"""Answers in validation: right ones, loops, and the same ones every time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.reading.samples import load_sample
from ocrtrain.evaluation.answers import turns_of
from ocrtrain.evaluation.generation import Decoding, Question, answer
from ocrtrain.evaluation.sampled_answers import AnswerOptions, answer_numbers, chosen_places
from ocrtrain.evaluation.scores import score
from ocrtrain.settings.world import World
from tests.support import small

SHORT = AnswerOptions(6, longest=16, loop=8)
FIVE = replace(SHORT, count=5)


@given(st.lists(st.integers(0, 20), max_size=4), st.integers(1, 30))
def test_chosen_samples_are_distinct_and_evenly_spaced(sizes: list[int], count: int) -> None:
    named = {str(number): size for number, size in enumerate(sizes)}
    found = chosen_places(named, count)
    every = [(name, at) for name, size in named.items() for at in range(size)]
    assert len(found) == min(count, len(every))
    numbers = [every.index(place) for place in found]
    assert numbers == sorted(set(numbers))
    gaps = {second - first for first, second in pairwise(numbers)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_trained_model_is_right_and_an_untrained_one_is_not(tmp_path: Path) -> None:
    sources = {"squares": small.squares(tmp_path)}
    trained = answer_numbers(small.trained(tmp_path).model(), sources, small.tokenizer(), SHORT)
    assert trained == {"val/accuracy": 1.0, "val/ned": 0.0, "val/loops": 0.0}
    again = answer_numbers(small.untrained(), sources, small.tokenizer(), SHORT)
    assert again["val/accuracy"] == 0.0 and again["val/ned"] > 0.5


def test_numbers_are_those_of_answering_one_by_one(tmp_path: Path) -> None:
    shards, model, tokenizer = small.squares(tmp_path), small.untrained(), small.tokenizer()
    found = answer_numbers(model, {"squares": shards}, tokenizer, FIVE)
    scores, looping = [], []
    for place in chosen_places({"squares": len(shards)}, 5):
        item = load_sample(shards, place.position, source="squares", mode=small.MODE)
        turns = turns_of(item.sample)
        turn = turns[place.position % len(turns)]
        images = tuple(torch.from_numpy(item.images[at]) for at in turn.images)
        (one,) = answer(model, tokenizer, [Question(turn.messages, images)],
                        Decoding(16, stop_repeats=8))  # fmt: skip
        scores.append(score(one.text, *turn.golds))
        looping += [one.tokens] if one.repeats else []
    assert found["val/ned"] == pytest.approx(sum(one.ned for one in scores) / 5)
    assert found["val/loops"] == len(looping) / 5
    assert found.get("val/loops_at") == (sum(looping) / len(looping) if looping else None)


def test_an_endless_answer_is_a_loop_and_where_it_begins_is_told(tmp_path: Path) -> None:
    model, tokenizer = small.untrained(), small.tokenizer()
    (token,) = tokenizer.encode("x")
    with torch.no_grad():
        model.gpt.lm_head.weight.zero_()
    model.gpt.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: logits.index_fill(-1, torch.tensor([token]), 9.0)
    )
    found = answer_numbers(model, {"squares": small.squares(tmp_path)}, tokenizer, AnswerOptions(3))
    assert found["val/loops"] == 1.0 and found["val/loops_at"] == 1.0


def test_ranks_share_the_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrtrain.evaluation.sampled_answers.AT_ONCE", 2)
    sources = {"squares": small.squares(tmp_path)}
    model, tokenizer = small.untrained(), small.tokenizer()
    alone = answer_numbers(model, sources, tokenizer, FIVE)
    heard: list[object] = []
    calls = [0, 0]
    for rank in (0, 1):
        world = World(rank=rank, size=2)

        def exchange(value: object) -> list[object]:
            heard.append(value)
            return list(heard)

        def before(rank: int = rank) -> None:
            calls[rank] += 1

        monkeypatch.setattr(World, "exchange_json", lambda _, value: exchange(value))
        found = answer_numbers(model, sources, tokenizer, replace(FIVE, before_batch=before), world)
    assert [len(part) for part in heard] == [3, 2]  # type: ignore[arg-type]
    assert found == pytest.approx(alone) and calls == [2, 2]
