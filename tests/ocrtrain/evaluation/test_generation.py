"""Cached, batched decoding against the simplest one: recompute everything for every token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.sample import IMAGE_PART, text_part
from ocrdata.tokens.rendering import render_prompt
from ocrtrain.evaluation.generation import (
    Answer,
    Continuation,
    Decoding,
    GreedyRows,
    Question,
    Step,
    answer,
    embed_questions,
    inference,
    plain_text,
    similar_lengths,
    stop_tokens,
    without_loop,
)
from ocrtrain.model.ocr_model import OcrModel
from tests.support import small

RED, BLUE = (
    torch.tensor(small.COLOURS[name], dtype=torch.uint8).expand(40, 40, 3).contiguous()
    for name in ("red", "blue")
)


def ask(text: str, *images: torch.Tensor) -> Question:
    content = [*(dict(IMAGE_PART) for _ in images), text_part(text)]
    return Question([{"role": "user", "content": content}], images)


def recomputed(model: OcrModel, question: Question, limit: int) -> Answer:
    """Greedy decoding without a cache, one question at a time."""
    tokenizer = small.tokenizer()
    slots = [model.slots] * len(question.images)
    ids = render_prompt(list(question.messages), tokenizer, slots).ids.tolist()
    start, finished = len(ids), False
    with inference(model, None):
        while len(ids) - start < limit and not finished:
            row = torch.tensor([ids])
            embeds = model.embed(row, model.see(question.images))
            logits = model.logits(model.hidden(embeds, torch.arange(len(ids))[None])[0, -1])
            logits[tokenizer.image] = -torch.inf
            ids.append(int(logits.argmax()))
            finished = ids[-1] in (tokenizer.assistant_end, tokenizer.bos)
    tokens = ids[start:-1] if finished else ids[start:]
    return Answer(plain_text(tokenizer, tokens), len(tokens), finished)


QUESTIONS = [
    ask("Which colour?", RED),
    ask("Which colour?", BLUE),
    ask("Its first letter?", RED),
    ask("And these?", RED, BLUE),
    ask("A much longer question about nothing in particular?"),
    ask("5+1?"),
    ask("Which colour?", RED),
]


@pytest.mark.parametrize("kind", ["untrained", "trained"])
def test_batched_cached_answers_equal_recomputed_ones(kind: str, tmp_path: Path) -> None:
    model = small.untrained() if kind == "untrained" else small.trained(tmp_path).model()
    expected = [recomputed(model, question, 12) for question in QUESTIONS]
    for batch in (1, 2, 64):
        found = answer(model, small.tokenizer(), QUESTIONS, Decoding(12, batch))
        assert found == expected
    alone = [answer(model, small.tokenizer(), [one], Decoding(12))[0] for one in QUESTIONS]
    assert alone == expected


def test_a_trained_model_answers_what_it_learned(tmp_path: Path) -> None:
    trained = small.trained(tmp_path)
    assert trained.loss < 0.05
    asked = [
        ask(text, torch.tensor(colour, dtype=torch.uint8).expand(40, 40, 3).contiguous())
        for colour in small.COLOURS.values()
        for text in small.QUESTIONS.values()
    ]
    found = answer(trained.model(), small.tokenizer(), asked, Decoding(16))
    gold = [text for name in small.COLOURS for text in (name, name[0])]
    assert [one.text for one in found] == gold
    assert all(one.finished for one in found)
    assert [one.tokens for one in found] == [len(text) for text in gold]


def with_favourite(model: OcrModel, *tokens: int) -> OcrModel:
    """A model for which the first of `tokens` is the most likely one everywhere, then the next."""
    with torch.no_grad():
        model.gpt.lm_head.weight.zero_()
    model.gpt.lm_head.register_forward_hook(
        lambda _module, _inputs, logits: logits.index_add(
            -1,
            torch.tensor(tokens),
            torch.arange(len(tokens), 0, -1.0).expand(*logits.shape[:-1], -1),
        )
    )
    return model


def test_the_image_token_is_never_generated() -> None:
    tokenizer = small.tokenizer()
    model = with_favourite(small.untrained(), tokenizer.image, *tokenizer.encode("x"))
    (found,) = answer(model, tokenizer, [ask("Go on", RED)], Decoding(5))
    assert found == Answer("xxxxx", 5, finished=False)


@pytest.mark.parametrize("name", ["<|assistant_end|>", "<|bos|>"])
def test_stop_tokens_end_the_answer(name: str) -> None:
    tokenizer = small.tokenizer()
    model = with_favourite(small.untrained(), tokenizer.specials[name])
    (found,) = answer(model, tokenizer, [ask("Say nothing")], Decoding(5))
    assert found == Answer("", 0, finished=True)


def test_special_tokens_are_not_in_the_text() -> None:
    tokenizer = small.tokenizer()
    model = with_favourite(small.untrained(), tokenizer.specials["<|python_start|>"])
    (found,) = answer(model, tokenizer, [ask("Run this")], Decoding(3))
    assert found == Answer("", 3, finished=False)


def test_the_model_is_left_unchanged() -> None:
    model = small.untrained()
    model.train()
    model.encoder.sam.eval()
    state = torch.get_rng_state()
    before = [module.training for module in model.modules()]
    answer(model, small.tokenizer(), QUESTIONS[:2], Decoding(2))
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError, match="out of order"), inference(model, None):
        assert not model.training
        assert not torch.is_grad_enabled()
        raise RuntimeError("out of order")
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


def test_autocast_is_used_if_a_precision_is_given() -> None:
    model = small.untrained()
    with inference(model, torch.bfloat16):
        features = model.encoder(model.pixels([RED]))
    assert features.dtype == torch.bfloat16
    (found,) = answer(
        model, small.tokenizer(), QUESTIONS[:1], Decoding(2, precision=torch.bfloat16)
    )
    assert found.tokens <= 2


def test_every_prompt_is_in_one_group_of_similar_lengths() -> None:
    prompts = [torch.zeros(length) for length in (40, 10, 50, 12, 51, 13)]
    assert list(similar_lengths(prompts, 2)) == [[1, 3], [5], [0, 2], [4]]
    assert list(similar_lengths(prompts, 64)) == [[1, 3], [5], [0, 2], [4]]
    assert list(similar_lengths(prompts[::2], 64)) == [[0, 1], [2]]


def decode_in_turns(model: OcrModel, plan: Sequence[tuple[int, str]]) -> dict[int, Continuation]:
    """Rows that join (J), step (S) and leave (L) as `plan` says, with the number of the question or
    row; then steps until all have ended."""
    rows = GreedyRows(model, stop_tokens(small.tokenizer()), stop_repeats=0)
    said: dict[int, list[int]] = {}
    ends: dict[int, Continuation] = {}

    def keep(steps: dict[int, Step]) -> None:
        for number, step in steps.items():
            assert number not in ends
            if step.token is not None:
                said.setdefault(number, []).append(step.token)
            if step.end is not None:
                ends[number] = step.end
                assert said.get(number, []) == step.end.tokens

    with inference(model, None):
        prompts = embed_questions(model, small.tokenizer(), QUESTIONS)
        for number, what in [*plan, *[(0, "S")] * 12]:
            if what == "J":
                keep(rows.join([prompts[number]], [12]))
            elif what == "S":
                keep(rows.step())
            else:
                rows.leave([number])
    assert not len(rows) and rows.step() == {} and rows.join([], []) == {}
    return ends


def test_rows_may_join_and_leave_at_any_step(tmp_path: Path) -> None:
    model = small.untrained()
    alone = answer(model, small.tokenizer(), QUESTIONS, Decoding(12, 1))
    words = ["3J", "0S", "5J", "0S", "0S", "0J", "0S", "0L", "4J", "0S", "1L", "0S", "2J"]
    plan = [(int(word[0]), word[1]) for word in words]
    found = decode_in_turns(model, plan)
    assert {0, 1}.isdisjoint(found), "the two that left"
    asked = dict(enumerate(number for number, what in plan if what == "J"))
    for row, end in found.items():
        assert plain_text(small.tokenizer(), end.tokens) == alone[asked[row]].text
        assert len(end.tokens) == alone[asked[row]].tokens
    assert len(found) == 3


def test_each_row_has_its_own_limit() -> None:
    tokenizer = small.tokenizer()
    model = with_favourite(small.untrained(), *tokenizer.encode("x"))
    rows = GreedyRows(model, stop_tokens(tokenizer), stop_repeats=0)
    with inference(model, None):
        prompts = embed_questions(model, tokenizer, QUESTIONS[:3])
        first = rows.join(prompts, [1, 3, 2])
        assert [step.end is None for step in first.values()] == [False, True, True]
        assert [number for number, step in rows.step().items() if step.end] == [2]
        assert list(rows.step()) == [1] and len(rows) == 0


def test_no_questions_give_no_answers() -> None:
    assert answer(small.untrained(), small.tokenizer(), [], Decoding()) == []


def test_a_question_must_place_as_many_images_as_it_has() -> None:
    question = Question(ask("Which colour?", RED).messages, ())
    with pytest.raises(ValueError, match=r"\b1 images.*\b0\b"):
        answer(small.untrained(), small.tokenizer(), [question], Decoding())


def alternating(model: OcrModel, *tokens: int) -> OcrModel:
    """A model that goes on with the token that follows the last one in `tokens`, and at the end
    with the first one again."""
    step = model.step
    following = dict(zip(tokens, [*tokens[1:], tokens[0]], strict=True))
    table = model.gpt.model.embed_tokens.weight

    def looping(embeds: torch.Tensor, *rest: Any) -> torch.Tensor:
        logits = step(embeds, *rest)
        for row, embedding in enumerate(embeds[:, -1]):
            last = next((t for t in tokens if torch.equal(table[t], embedding)), tokens[-1])
            logits[row, following[last]] = 100.0
        return logits

    model.step = looping  # type: ignore[method-assign]
    return model


def test_an_endless_answer_is_stopped_and_its_loop_kept_once() -> None:
    tokenizer = small.tokenizer()
    model = alternating(small.untrained(), *tokenizer.encode("ab "))
    for limit, span, wanted in (
        (400, 256, Answer("ab ", 3, finished=False, repeats=True)),
        (400, 0, Answer(("ab " * 134)[:400], 400, finished=False)),
        (255, 256, Answer("ab " * 85, 255, finished=False)),
        (40, 16, Answer("ab ", 3, finished=False, repeats=True)),
    ):
        found = answer(model, tokenizer, [ask("Go on")], Decoding(limit, stop_repeats=span))
        assert found == [wanted], (limit, span)


def test_a_row_in_a_loop_does_not_disturb_the_others(tmp_path: Path) -> None:
    model, tokenizer = small.trained(tmp_path).model(), small.tokenizer()
    expected = answer(model, tokenizer, QUESTIONS, Decoding(30, stop_repeats=0))
    for batch in (1, 64):
        found = answer(model, tokenizer, QUESTIONS, Decoding(30, batch, stop_repeats=8))
        for one, other in zip(found, expected, strict=True):
            assert other.text.startswith(one.text) if one.repeats else one == other


@given(
    start=st.lists(st.integers(0, 3), max_size=12),
    loop=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_what_repeats_is_kept_once(start: list[int], loop: list[int]) -> None:
    whole = start + loop * 20
    for length in range(len(start) + 16, len(whole)):
        tokens = whole[:length]
        kept = without_loop(tokens, 16)
        assert kept, tokens  # the last 16 are at least 4 times the loop
        period = next(p for p in range(1, 5) if tokens[-16:][p:] == tokens[-16:][:-p])
        assert kept <= len(start) + len(loop)
        again = tokens[kept - period : kept]
        assert tokens == (tokens[: kept - period] + again * 100)[:length]


@given(tokens=st.lists(st.integers(0, 1), max_size=40))
def test_only_a_loop_is_one(tokens: list[int]) -> None:
    last = tokens[-16:]
    loops = len(tokens) >= 16 and any(last == (last[:p] * 16)[:16] for p in range(1, 5))
    assert bool(without_loop(tokens, 16)) == loops
    assert without_loop(tokens, 0) == 0


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--stop-repeats 3 .*at least 4"):
        Decoding(1, stop_repeats=3)
    with pytest.raises(UsageError, match=r"--max-new-tokens 0 .*at least 1"):
        Decoding(0)
    with pytest.raises(UsageError, match="batch"):
        Decoding(1, 0)


def test_ids_that_no_token_has_are_dropped() -> None:
    tokenizer = small.tokenizer()
    assert plain_text(tokenizer, [*tokenizer.encode("aé"), tokenizer.vocab_size + 3]) == "aé"
