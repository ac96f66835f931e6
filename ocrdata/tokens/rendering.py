"""Conversations as rows of ids, and their lengths without rendering them.

Owner of the rendering (nanochat's), of which ids are supervised, of cutting a rendering at a turn,
and of token counts. Conversion, planning and training use this one module, so a planned length is
the trained one. It needs no torch and decodes no image: an image is a number of positions, `slots`,
that the caller gives.

    <|bos|> (<|user_start|> text, images <|user_end|> <|assistant_start|> text <|assistant_end|>)*

Each text part is encoded by itself and nothing is put between parts; a leading system message is
put before the first user message with an empty line between them. So lengths add up exactly:

    tokens(sample) = specials(turns) + sum(user_tokens + assistant_tokens) + sum(slots)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Message, Part, text_of, text_part
from ocrdata.tokens.tokenizer import Tokenizer

SPECIALS_PER_TURN = 4  # user_start, user_end, assistant_start, assistant_end


class TurnCount(NamedTuple):
    """Tokens of the texts of one turn, and the images its user message places; a system message
    counts with the first user message."""

    user_tokens: int
    assistant_tokens: int
    images: int = 0

    @property
    def tokens(self) -> int:
        """Of both texts, without specials and image positions."""
        return self.user_tokens + self.assistant_tokens


@dataclass(frozen=True)
class TokenizedConversation:
    """One conversation as ids.

    `supervised[t]` is True where `ids[t]` is to be predicted: assistant text and its end token.
    Image n takes the positions from `image_starts[n]`, `image_slots[n]` of them. `ends` are the
    positions just after each turn. `truncated_tokens` and `truncated_turns` say what `truncate`
    left out; a turn whose answer was only shortened is not among the turns.
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
    """Special tokens in a conversation of `turns` turns, images apart: <|bos|> and four a turn."""
    return 1 + SPECIALS_PER_TURN * turns


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, slots: Sequence[int] = ()
) -> TokenizedConversation:
    """Ids of a whole conversation; `slots[n]` positions for its n-th image.

    Raises RejectedRow where the roles are out of order, ValueError where `slots` do not fit the
    images.
    """
    turns = _turns(messages)
    if turns[-1].answer is None:
        raise RejectedRow("roles out of order: the last message is the user's")
    return _render(turns, tokenizer, slots)


def render_prompt(
    messages: Sequence[Message], tokenizer: Tokenizer, slots: Sequence[int] = ()
) -> TokenizedConversation:
    """Ids up to and with the <|assistant_start|> after the last user message; none supervised.

    Raises RejectedRow where the conversation does not end with a user message.
    """
    turns = _turns(messages)
    if turns[-1].answer is not None:
        raise RejectedRow("a prompt ends with a user message, this one with the assistant's")
    rendered = _render(turns, tokenizer, slots)
    return replace(rendered, loss_mask=np.zeros(len(rendered), np.bool_))


def count(messages: Sequence[Message], tokenizer: Tokenizer) -> list[TurnCount]:
    """Tokens and images of each turn, exactly as `render` encodes and places them.

    Raises RejectedRow where the roles are out of order.
    """
    counts = []
    for user, answer in _turns(messages):
        if answer is None:
            raise RejectedRow("roles out of order: the last message is the user's")
        texts = (part["text"] for part in user if part["type"] == "text")
        counts.append(
            TurnCount(
                sum(len(tokenizer.encode(text)) for text in texts),
                sum(len(tokenizer.encode(part["text"])) for part in answer["content"]),
                sum(part["type"] == "image" for part in user),
            )
        )
    return counts


def truncate(rendered: TokenizedConversation, seq_len: int) -> TokenizedConversation:
    """At most `seq_len` ids: whole turns from the first on, and the rendering itself when it fits.

    Where not even the first turn fits, its answer is cut. Where its question alone leaves no room
    for an answer, no turn is left: the row is a hole of one <|bos|> that nothing is learned from,
    and all its turns are counted as cut. An image is never cut. Raises UsageError below 2.
    """
    if seq_len < 2:
        raise UsageError(f"seq_len {seq_len} has no room for a token and what follows it")
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
    """Whether the first question leaves a position for its answer."""
    answers = np.flatnonzero(rendered.loss_mask)
    return len(answers) > 0 and int(answers[0]) < seq_len


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """Question and answer pairs, the system message merged into the first question.

    The last answer may be None. Raises RejectedRow where roles do not alternate.
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
    """`system + "\\n\\n" + user` (nanochat): one text with the first part where that is text."""
    head = system + "\n\n"
    if user and user[0]["type"] == "text":
        return [text_part(head + user[0]["text"]), *user[1:]]
    return [text_part(head), *user]


def _render(
    turns: list[_Turn], tokenizer: Tokenizer, slots: Sequence[int]
) -> TokenizedConversation:
    images = sum(part["type"] == "image" for turn in turns for part in turn.user)
    if images != len(slots) or any(number < 1 for number in slots):
        raise ValueError(f"{images} images are placed, their slots are {list(slots)}")
    ids = [tokenizer.bos]
    spans: list[tuple[int, int]] = []  # supervised, from and up to
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
        spans.append((start, len(ids)))
        ends.append(len(ids))
    loss_mask = np.zeros(len(ids), np.bool_)
    for start, end in spans:
        loss_mask[start:end] = True
    return TokenizedConversation(
        np.asarray(ids, np.int32), loss_mask, tuple(starts), tuple(slots), tuple(ends)
    )


IGNORE = -100
"""Target of a position that carries no loss (torch's cross_entropy default)."""
