"""Renders conversations as token ids, as nanochat does, and counts their tokens without rendering.

It also decides which ids are supervised and truncates at a turn. Conversion, planning and training
all use this module, so a sample is as long in training as in the plan. It needs no torch and
decodes no image: the caller passes the number of positions of each image, its `slots`.

    <|bos|> (<|user_start|> text, images <|user_end|> <|assistant_start|> text <|assistant_end|>)*

Each text part is encoded on its own, with nothing between parts. A leading system message is put
before the first user message, with an empty line between them. So lengths add up exactly:

    tokens(sample) = specials(turns) + sum(user_tokens + assistant_tokens) + sum(slots)
    supervised(sample) = sum(assistant_tokens + 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Message, Part, is_trained, text_of, text_part
from ocrdata.tokens.tokenizer import Tokenizer

SPECIALS_PER_TURN = 4  # user_start, user_end, assistant_start, assistant_end


class TurnCount(NamedTuple):
    """Tokens of the texts of one turn, and the images in its user message.

    A system message counts with the first user message. So does an answer that is not trained on,
    with its <|assistant_end|>: then `assistant_tokens` is -1, and both sums above hold.
    """

    user_tokens: int
    assistant_tokens: int
    images: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of both texts, without special tokens and image slots."""
        return self.user_tokens + self.assistant_tokens


@dataclass(frozen=True)
class TokenizedConversation:
    """One conversation as T ids.

    `loss_mask[t]` is True where `ids[t]` is predicted: assistant texts and their end tokens, but
    for answers of weight 0. Image
    n has `image_slots[n]` positions from `image_starts[n]` on. `ends` holds the position after each
    turn. `truncated_tokens` and `truncated_turns` count what `truncate` removed; a turn whose
    answer was only shortened is not counted.
    """

    ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    image_starts: tuple[int, ...]
    image_slots: tuple[int, ...]
    ends: tuple[int, ...]
    truncated_tokens: int = 0
    truncated_turns: int = 0

    def __len__(self) -> int:
        return len(self.ids)


class _Turn(NamedTuple):
    user: list[Part]
    answer: Message | None


def specials(turns: int) -> int:
    """Special tokens in a conversation of `turns` turns, without images: <|bos|> and four a
    turn."""
    return 1 + SPECIALS_PER_TURN * turns


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, slots: Sequence[int] = ()
) -> TokenizedConversation:
    """Ids of a whole conversation, with `slots[n]` positions for its n-th image.

    Raises RejectedRow if the roles are out of order, ValueError if there is not one positive number
    of slots per image.
    """
    turns = _turns(messages)
    if turns[-1].answer is None:
        raise RejectedRow("roles out of order: the last message is the user's")
    return _render(turns, tokenizer, slots)


def render_prompt(
    messages: Sequence[Message], tokenizer: Tokenizer, slots: Sequence[int] = ()
) -> TokenizedConversation:
    """Ids through the <|assistant_start|> after the last user message; none is supervised.

    Raises RejectedRow if the conversation does not end with a user message.
    """
    turns = _turns(messages)
    if turns[-1].answer is not None:
        raise RejectedRow("a prompt must end with a user message; the last one is the assistant's")
    rendered = _render(turns, tokenizer, slots)
    return replace(rendered, loss_mask=np.zeros(len(rendered), np.bool_))


def count(messages: Sequence[Message], tokenizer: Tokenizer) -> list[TurnCount]:
    """Tokens and images of each turn, exactly as `render` encodes them.

    Raises RejectedRow if the roles are out of order.
    """
    counts = []
    for user, answer in _turns(messages):
        if answer is None:
            raise RejectedRow("roles out of order: the last message is the user's")
        texts = (part["text"] for part in user if part["type"] == "text")
        user_tokens = sum(len(tokenizer.encode(text)) for text in texts)
        assistant_tokens = sum(len(tokenizer.encode(part["text"])) for part in answer["content"])
        if not is_trained(answer):
            user_tokens, assistant_tokens = user_tokens + assistant_tokens + 1, -1
        images = sum(part["type"] == "image" for part in user)
        counts.append(TurnCount(user_tokens, assistant_tokens, images))
    return counts


def truncate(rendered: TokenizedConversation, seq_len: int) -> TokenizedConversation:
    """At most `seq_len` ids: as many whole turns as fit, from the first on.

    If not even the first turn fits, its answer is cut. If its question alone leaves no room for an
    answer, one unsupervised <|bos|> is left and all turns count as truncated. An image is never
    cut. Raises UsageError if `seq_len` is below 2.
    """
    if seq_len < 2:
        raise UsageError(f"seq_len {seq_len} is too short: a token and its target need 2")
    length = len(rendered)
    if length <= seq_len:
        return rendered
    kept = sum(end <= seq_len for end in rendered.ends)
    if kept:
        end = rendered.ends[kept - 1]
        truncated_turns = len(rendered.ends) - kept
    elif _has_room(rendered, seq_len):
        end, truncated_turns = seq_len, len(rendered.ends) - 1
    else:
        end, truncated_turns = 1, len(rendered.ends)
    images = sum(start < end for start in rendered.image_starts)
    return replace(
        rendered,
        ids=rendered.ids[:end],
        loss_mask=rendered.loss_mask[:end],
        image_starts=rendered.image_starts[:images],
        image_slots=rendered.image_slots[:images],
        ends=rendered.ends[:kept] or (end,),
        truncated_tokens=rendered.truncated_tokens + length - end,
        truncated_turns=rendered.truncated_turns + truncated_turns,
    )


def _has_room(rendered: TokenizedConversation, seq_len: int) -> bool:
    """Whether the first answer has a position within `seq_len`."""
    answers = np.flatnonzero(rendered.loss_mask)
    return len(answers) > 0 and int(answers[0]) < seq_len


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """Pairs of question and answer, with the system message merged into the first question.

    The last answer may be None. Raises RejectedRow if the roles do not alternate.
    """
    system: str | None = None
    rest = list(messages)
    if rest and rest[0]["role"] == "system":
        if any(part["type"] != "text" for part in rest[0]["content"]):
            raise RejectedRow("an image in the system message")
        system = text_of(rest.pop(0))
    roles = [message["role"] for message in rest]
    if not roles or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        shown = " ".join(message["role"] for message in messages)[:200]
        raise RejectedRow(f"roles out of order: {shown or 'no messages'}")
    turns = []
    for number in range(0, len(rest), 2):
        user = list(rest[number]["content"])
        if system is not None and number == 0:
            user = _merge_system(system, user)
        answer = rest[number + 1] if number + 1 < len(rest) else None
        if answer is not None and any(part["type"] != "text" for part in answer["content"]):
            raise RejectedRow(f"turn {number // 2}: an image in an assistant message")
        turns.append(_Turn(user, answer))
    return turns


def _merge_system(system: str, user: list[Part]) -> list[Part]:
    """`system + "\\n\\n" + user`, as nanochat; one text with the first part if that is text."""
    head = system + "\n\n"
    if user and user[0]["type"] == "text":
        return [text_part(head + user[0]["text"]), *user[1:]]
    return [text_part(head), *user]


def _render(
    turns: list[_Turn], tokenizer: Tokenizer, slots: Sequence[int]
) -> TokenizedConversation:
    images = sum(part["type"] == "image" for turn in turns for part in turn.user)
    if images != len(slots) or any(number < 1 for number in slots):
        raise ValueError(f"{images} images need a positive number of slots each, not {list(slots)}")
    ids = [tokenizer.bos]
    spans: list[tuple[int, int]] = []  # supervised positions [start, end)
    starts: list[int] = []
    ends: list[int] = []
    for user, answer in turns:
        ids.append(tokenizer.user_start)
        for part in user:
            if part["type"] == "image":
                starts.append(len(ids))
                ids.extend([tokenizer.image] * slots[len(starts) - 1])
            else:
                ids.extend(tokenizer.encode(part["text"]))
        ids += [tokenizer.user_end, tokenizer.assistant_start]
        if answer is None:
            break
        start = len(ids)
        for part in answer["content"]:
            ids.extend(tokenizer.encode(part["text"]))
        ids.append(tokenizer.assistant_end)
        if is_trained(answer):
            spans.append((start, len(ids)))
        ends.append(len(ids))
    loss_mask = np.zeros(len(ids), np.bool_)
    for start, end in spans:
        loss_mask[start:end] = True
    return TokenizedConversation(
        np.asarray(ids, np.int32), loss_mask, tuple(starts), tuple(slots), tuple(ends)
    )


IGNORE = -100
"""Target of a position without loss (the default of torch's cross_entropy)."""
