"""Rendering: additivity as a property, nanochat's rendering as the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import from_turns
from ocrdata.tokens.rendering import (
    TokenizedConversation,
    TurnCount,
    count,
    render,
    render_prompt,
    specials,
    truncate,
)
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer, train_tokenizer

DATA = Path(__file__).parents[4] / "shared" / "data"
IMAGE = {"type": "image"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["What is the value of the blue bar? It is 12 percent."] * 9, 300)


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def message(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text(p) if isinstance(p, str) else p for p in parts]}


words = st.lists(
    st.one_of(st.sampled_from([*SPECIAL_TOKENS, "<image>", " blue", "12", "\n"]), st.text()),
    max_size=4,
).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    part = st.one_of(words.map(text), st.just(IMAGE))
    messages = []
    if draw(st.booleans()):
        messages.append(message("system", *draw(st.lists(words, min_size=1, max_size=2))))
    for _ in range(draw(st.integers(1, 4))):
        messages.append(message("user", *draw(st.lists(part, max_size=4))))
        answer = message("assistant", *draw(st.lists(words, min_size=1, max_size=2)))
        messages.append({**answer, **draw(st.sampled_from([{}, {"weight": 0}, {"weight": 1}]))})
    return messages


def images_in(messages: list[dict[str, Any]]) -> int:
    return sum(part["type"] == "image" for m in messages for part in m["content"])


def slots_for(messages: list[dict[str, Any]]) -> list[int]:
    return [3 + 2 * number for number in range(images_in(messages))]


@given(messages=conversations())
@settings(max_examples=300, deadline=None)
def test_counts_add_up_to_the_rendered_length(
    tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    slots = slots_for(messages)
    counts = count(messages, tokenizer)
    rendered = render(messages, tokenizer, slots)
    assert len(rendered) == specials(len(counts)) + sum(t.tokens for t in counts) + sum(slots)
    assert rendered.loss_mask.sum() == sum(turn.assistant_tokens + 1 for turn in counts)
    assert (rendered.ids == tokenizer.image).sum() == sum(slots)
    for start, size in zip(rendered.image_starts, slots, strict=True):
        assert (rendered.ids[start : start + size] == tokenizer.image).all()
    assert [turn.images for turn in counts] == [
        sum(part["type"] == "image" for part in m["content"])
        for m in messages
        if m["role"] == "user"
    ]
    for special in (tokenizer.user_start, tokenizer.assistant_end):
        assert (rendered.ids == special).sum() == len(counts)
    assert rendered.ends[-1] == len(rendered)
    assert (rendered.ids[np.array(rendered.ends) - 1] == tokenizer.assistant_end).all()


@given(messages=conversations())
@settings(max_examples=200, deadline=None)
def test_only_answers_of_weight_0_are_not_supervised(
    tokenizer: Tokenizer, messages: list[dict[str, Any]]
) -> None:
    slots = slots_for(messages)
    weights = [m.pop("weight", 1) for m in messages if m["role"] == "assistant"]
    plain, plain_counts = render(messages, tokenizer, slots), count(messages, tokenizer)
    answers = [m for m in messages if m["role"] == "assistant"]
    for m, weight in zip(answers, weights, strict=True):
        m["weight"] = weight
    rendered = render(messages, tokenizer, slots)
    assert np.array_equal(rendered.ids, plain.ids)
    expected = plain.loss_mask.copy()
    for start, end, weight in zip((0, *plain.ends), plain.ends, weights, strict=False):
        expected[start:end] &= bool(weight)
    assert np.array_equal(rendered.loss_mask, expected)
    for turn, before, weight in zip(count(messages, tokenizer), plain_counts, weights, strict=True):
        assert (turn.tokens, turn.images) == (before.tokens, before.images)
        assert turn.assistant_tokens == (before.assistant_tokens if weight else -1)


def nanochat_render(messages: list[dict[str, Any]], tok: Tokenizer) -> tuple[list[int], list[int]]:
    """nanochat's `render_conversation` for string contents, reimplemented."""
    if messages[0]["role"] == "system":
        head, messages = messages[0]["content"], messages[1:]
        first = {"role": "user", "content": head + "\n\n" + messages[0]["content"]}
        messages = [first, *messages[1:]]
    ids, mask = [tok.bos], [0]
    for number, m in enumerate(messages):
        assert m["role"] == ("user" if number % 2 == 0 else "assistant")
        value = tok.encode(m["content"])
        if number % 2 == 0:
            ids += [tok.user_start, *value, tok.user_end]
            mask += [0] * (len(value) + 2)
        else:
            ids += [tok.assistant_start, *value, tok.assistant_end]
            mask += [0] + [1] * (len(value) + 1)
    return ids, mask


def as_parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message(m["role"], m["content"]) for m in messages]


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.none() | words)
@settings(max_examples=200, deadline=None)
def test_text_is_rendered_as_nanochat_does(
    tokenizer: Tokenizer, turns: list[tuple[str, str]], system: str | None
) -> None:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for user, answer in turns:
        messages += [
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]
    ids, mask = nanochat_render(messages, tokenizer)
    rendered = render(as_parts(messages), tokenizer)
    assert rendered.ids.tolist() == ids and rendered.ids.dtype == np.int32
    assert rendered.loss_mask.tolist() == [bool(m) for m in mask]


def test_images_keep_their_places_in_the_text(tokenizer: Tokenizer) -> None:
    messages = [
        message("system", "Be ", "brief."),
        message("user", IMAGE, "What", " blue?", IMAGE),
        message("assistant", "12"),
    ]
    rendered = render(messages, tokenizer, [2, 3])
    image = "<|image|>"
    assert tokenizer.decode(rendered.ids) == (
        f"<|bos|><|user_start|>Be brief.\n\n{image * 2}What blue?{image * 3}<|user_end|>"
        "<|assistant_start|>12<|assistant_end|>"
    )
    assert tokenizer.decode(rendered.ids[rendered.loss_mask]) == "12<|assistant_end|>"
    assert rendered.image_slots == (2, 3)
    head = len(tokenizer.encode("Be brief.\n\n"))
    assert rendered.image_starts[0] == 2 + head


def test_the_system_message_is_encoded_together_with_the_first_text(tokenizer: Tokenizer) -> None:
    messages = [message("system", "the "), message("user", "blue"), message("assistant", "12")]
    rendered = render(messages, tokenizer)
    expected = tokenizer.encode("the \n\nblue")
    assert rendered.ids[2 : 2 + len(expected)].tolist() == expected
    assert count(messages, tokenizer) == [TurnCount(len(expected), len(tokenizer.encode("12")))]


def test_a_prompt_ends_where_the_answer_begins(tokenizer: Tokenizer) -> None:
    messages = [message("user", IMAGE, "What?"), message("assistant", "12"), message("user", "So?")]
    prompt = render_prompt(messages, tokenizer, [4])
    assert tokenizer.decode(prompt.ids[-2:]) == "<|user_end|><|assistant_start|>"
    assert not prompt.loss_mask.any()
    whole = render([*messages, message("assistant", "blue")], tokenizer, [4])
    assert np.array_equal(whole.ids[: len(prompt)], prompt.ids)
    with pytest.raises(RejectedRow, match="must end with a user message"):
        render_prompt(messages[:2], tokenizer, [4])


ROLES = [
    ([], "no messages"),
    (["system"], "system"),
    (["user"], "the last message is the user's"),
    (["assistant", "user"], "assistant user"),
    (["user", "user"], "user user"),
    (["user", "assistant", "system", "user", "assistant"], "out of order"),
    (["system", "system", "user", "assistant"], "out of order"),
    (["user", "tool"], "user tool"),
]


@pytest.mark.parametrize(("roles", "reason"), ROLES)
def test_roles_out_of_order_are_rejected(
    tokenizer: Tokenizer, roles: list[str], reason: str
) -> None:
    messages = [message(role, "x") for role in roles]
    for call in (render, count):
        with pytest.raises(RejectedRow, match=reason):
            call(messages, tokenizer)


def test_images_in_system_and_assistant_messages_are_rejected(tokenizer: Tokenizer) -> None:
    with pytest.raises(RejectedRow, match="turn 0: an image in an assistant message"):
        render([message("user", "x"), message("assistant", IMAGE)], tokenizer, [1])
    with pytest.raises(RejectedRow, match="an image in the system message"):
        render([message("system", IMAGE), *[message(r, "x") for r in ("user", "assistant")]],
               tokenizer, [1])  # fmt: skip


@pytest.mark.parametrize("slots", [[], [1, 1], [0]])
def test_slots_that_do_not_match_the_images(tokenizer: Tokenizer, slots: list[int]) -> None:
    messages = [message("user", IMAGE), message("assistant", "x")]
    with pytest.raises(ValueError, match=r"1 images .*slots.*\["):
        render(messages, tokenizer, slots)


@given(messages=conversations(), seq_len=st.integers(2, 120))
@settings(max_examples=300, deadline=None)
def test_truncation_keeps_whole_turns(
    tokenizer: Tokenizer, messages: list[dict[str, Any]], seq_len: int
) -> None:
    rendered = render(messages, tokenizer, slots_for(messages))
    first_answer = next(iter(np.flatnonzero(rendered.loss_mask)), seq_len)
    cut = truncate(rendered, seq_len)
    if rendered.ends[0] > seq_len and first_answer >= seq_len:
        assert cut.ids.tolist() == [tokenizer.bos]
        assert not cut.loss_mask.any()
        assert cut.image_starts == cut.image_slots == ()
        assert cut.truncated_turns == len(rendered.ends)
        assert cut.truncated_tokens == len(rendered) - 1
        return
    assert len(cut) <= seq_len
    assert np.array_equal(cut.ids, rendered.ids[: len(cut)])
    assert np.array_equal(cut.loss_mask, rendered.loss_mask[: len(cut)])
    assert cut.truncated_tokens == len(rendered) - len(cut)
    assert cut.truncated_turns == len(rendered.ends) - len(cut.ends)
    if rendered.loss_mask[rendered.ends[0] - 1]:  # the first answer is trained on
        assert cut.loss_mask.any()
    # Images are whole, and none of the remaining turns is missing.
    assert (cut.ids == tokenizer.image).sum() == sum(cut.image_slots)
    assert len(cut.image_starts) == len(cut.image_slots)
    if rendered.ends[0] <= seq_len:
        assert len(cut) in rendered.ends
        longer = [end for end in rendered.ends if end > len(cut)]
        assert not longer or longer[0] > seq_len
    else:
        assert len(cut) == seq_len and cut.truncated_turns == len(rendered.ends) - 1
    if len(rendered) <= seq_len:
        assert cut is rendered


def test_a_question_that_leaves_no_room_for_an_answer_becomes_one_bos(tokenizer: Tokenizer) -> None:
    rendered = render([message("user", IMAGE, "blue"), message("assistant", "x")], tokenizer, [73])
    prompt = 1 + 1 + 73 + len(tokenizer.encode("blue")) + 2
    assert len(truncate(rendered, prompt)) == 1
    assert len(truncate(rendered, prompt + 1)) == prompt + 1
    with pytest.raises(UsageError, match="seq_len 1 "):
        truncate(rendered, 1)


def real_tokenizer() -> Tokenizer:
    path = DATA / "tokenizer" / "gpt2.tiktoken"
    if not path.exists():
        pytest.skip(f"no real ranks at {path}")
    return load_tokenizer(path)


def adds_up(rendered: TokenizedConversation, counts: list[TurnCount], slots: int) -> bool:
    supervised = sum(turn.assistant_tokens + 1 for turn in counts)
    return (
        len(rendered) == specials(len(counts)) + sum(turn.tokens for turn in counts) + slots
        and int(rendered.loss_mask.sum()) == supervised
    )


def test_lengths_of_all_real_chats_add_up() -> None:
    tokenizer = real_tokenizer()
    with open(DATA / "chat" / "chat.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 12_000
    for row in rows:
        messages = as_parts(row["messages"])
        assert adds_up(render(messages, tokenizer), count(messages, tokenizer), 0)


def test_lengths_of_all_real_charts_add_up() -> None:
    tokenizer = real_tokenizer()
    with open(DATA / "charts" / "charts.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 753
    for row in rows:
        turns = [(turn["user"], turn["assistant"]) for turn in row["texts"]]
        sample = from_turns(turns, [b""], source="charts", meta={})
        counts = count(sample.messages, tokenizer)
        assert adds_up(render(sample.messages, tokenizer, [273]), counts, 273)
        assert len(counts) == 2
