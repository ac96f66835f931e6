"""Answers as OpenAI's documents: a chat completion, or the chunks of a streamed one.

Field names: OpenAI's API reference, "The chat completion object" and "chunk object". `stop_reason`
is an addition, which others have too: "repeats" where an answer was stopped because it repeated
itself, whose `finish_reason` is "length".
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.evaluation.generation import Continuation, plain_text

REPLACEMENT = "\ufffd"
"""What an unfinished UTF-8 character is decoded to."""


class Reply:
    """The documents of one answer, by a model, to a prompt of so many tokens."""

    def __init__(self, model: str, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, end: Continuation) -> dict[str, Any]:
        """The whole answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            **_reasons(end),
        }
        document = {"object": "chat.completion", "choices": [choice], "usage": self._usage(end)}
        return {**self._head, **document}

    def first_chunk(self) -> dict[str, Any]:
        """The role, without text."""
        return self._chunk({"role": "assistant", "content": ""})

    def text_chunk(self, text: str) -> dict[str, Any]:
        """More text."""
        return self._chunk({"content": text})

    def last_chunk(self, end: Continuation) -> dict[str, Any]:
        """Why the answer ended."""
        return self._chunk({}, end)

    def usage_chunk(self, end: Continuation) -> dict[str, Any]:
        """The counts, after the last chunk."""
        document = {"object": "chat.completion.chunk", "choices": [], "usage": self._usage(end)}
        return {**self._head, **document}

    def _chunk(self, delta: dict[str, str], end: Continuation | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, **_reasons(end)}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _usage(self, end: Continuation) -> dict[str, int]:
        completion = len(end.tokens)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
        }


def _reasons(end: Continuation | None) -> dict[str, str | None]:
    if end is None:
        return {"finish_reason": None, "stop_reason": None}
    return {
        "finish_reason": "stop" if end.finished else "length",
        "stop_reason": "repeats" if end.repeats else None,
    }


def event(document: dict[str, Any] | str) -> bytes:
    """A document, or a word, as a server-sent event."""
    data = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


class TextStream:
    """The text of an answer piece by piece: tokens in, and out what of the text is settled.

    A character of several tokens is held back until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """The text that a token adds."""
        self._tokens.append(token)
        text = plain_text(self._tokenizer, self._tokens).rstrip(REPLACEMENT)
        return self._new(text)

    def close(self, tokens: Sequence[int]) -> str:
        """What is left of the text when the answer is `tokens`. Where it was cut because it
        repeated itself, nothing: the repeated text has been sent."""
        return self._new(plain_text(self._tokenizer, tokens))

    def _new(self, text: str) -> str:
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return new
