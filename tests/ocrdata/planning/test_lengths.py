"""Computed lengths compared with renderings, of made-up and of real conversations."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.planning.lengths import join, sample_lengths
from ocrdata.sample import IMAGE_PART, Message, from_turns, text_part
from ocrdata.tokens.counts import CountsBuilder
from ocrdata.tokens.rendering import count
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from tests.support.measured import made_up
from tests.support.reallengths import SHARED, check, real

SLOTS = 7

texts = st.text("What is 12 %?\n", max_size=25)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": [text_part(draw(texts))]})
    for _ in range(draw(st.integers(1, 4))):
        parts: list[dict[str, str]] = draw(
            st.lists(st.one_of(st.just(IMAGE_PART), texts.map(text_part)), max_size=4)
        )
        messages.append({"role": "user", "content": parts})
        answer: Message = {"role": "assistant", "content": [text_part(draw(texts))]}
        messages.append({**answer, "weight": 0} if draw(st.booleans()) else answer)
    return messages


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is the value? 12 % What is 12?"] * 5, 280)


@given(found=st.lists(conversations(), max_size=6), seq_len=st.integers(2, 120))
@settings(max_examples=300)
def test_lengths_equal_those_of_the_truncated_rendering(
    found: list[list[Message]], seq_len: int
) -> None:
    check(found, tokenizer(), slots=SLOTS, seq_len=seq_len)


@pytest.mark.parametrize(("name", "step"), [("charts/charts.jsonl", 1), ("chat/chat.jsonl", 6)])
@pytest.mark.parametrize("seq_len", [400, 8192])
def test_real_conversations(name: str, step: int, seq_len: int) -> None:
    """Every sixth chat; `make torture` takes all (tests/torture/test_measures.py)."""
    gpt2 = load_tokenizer(SHARED / "tokenizer" / "gpt2.tiktoken") if SHARED.exists() else None
    found = real(name)[::step]
    assert gpt2 is not None
    result = check(found, gpt2, slots=273, seq_len=seq_len)
    assert (len(result.truncated) > 0) == (seq_len == 400)


def test_samples_that_cannot_be_rendered_are_masked() -> None:
    builder = CountsBuilder()
    builder.add(count(from_turns([("q", "a")], [], source="", meta={}).messages, tokenizer()))
    builder.add([])
    found = sample_lengths(builder.finish(), np.zeros(2, np.uint32), slots=SLOTS, seq_len=50)
    assert found.unfit.tolist() == [1]
    assert (found.lengths[1], found.supervised[1], found.images[1]) == (1, 0, 0)


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_joined_lengths_are_concatenated(sizes: list[int]) -> None:
    parts = [made_up(size, longest=50, seed=n, truncated=0.4) for n, size in enumerate(sizes)]
    whole, start = join(parts), 0
    for part in parts:
        stop = start + len(part)
        for name in ("lengths", "supervised", "images", "bytes", "untruncated"):
            assert getattr(whole, name)[start:stop].tolist() == getattr(part, name).tolist()
        start = stop
    assert len(whole) == sum(sizes)
    assert len(whole.truncated) == sum(len(part.truncated) for part in parts)
