"""What is written about images, beside them -> a conversation: a record, a caption, or both.

Folders of images and WebDataset tars use this module. A record with a conversation is read as in
JSON Lines (`ocrdata.sources.jsonl`); of any other, the question and the answer are in fields that
people name in many ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from ocrdata.sources.conversations import Conversation, Image, read_messages
from ocrdata.sources.jsonl import SCHEMAS, make_sample, read_record

QUESTIONS = ("question", "query", "instruction", "prompt")
"""Fields of a record that hold a question, beside an answer."""

MORE_OF_QUESTION = {"instruction": "input"}
"""Fields that go on with the question, on a new line, if they are not empty: those of Alpaca."""

ANSWERS = ("answer", "answers", "response", "output", "text", "caption", "transcription")
"""Fields of a record that hold the answer, the preferred one first."""


@dataclass(frozen=True)
class AnnotationFormat:
    """`question` and `answer` name the fields to use instead of the usual ones; `prompt` is the
    question of images that have none, such as those with a caption."""

    question: str = ""
    answer: str = ""
    prompt: str = ""

    def sample(
        self,
        record: Mapping[str, Any],
        images: Sequence[Image],
        read: Callable[[Image], bytes],
        *,
        caption: str | None = None,
        origin: str,
    ) -> Sample:
        """The sample of a record about these images, and perhaps a caption; see `make_sample` for
        `read` and `origin`. Raises RejectedRow."""
        used, conversation = self._conversation(record, images, caption)
        return make_sample(record, used, conversation, read, origin)

    def _conversation(
        self, record: Mapping[str, Any], images: Sequence[Image], caption: str | None
    ) -> tuple[Sequence[str], Conversation]:
        """In this order: the fields named on the command line, a conversation in the record, a
        question with its answer, the caption, an answer alone."""
        if not (self.question or self.answer) and any(
            record.get(names[0]) is not None for names in SCHEMAS if len(names) == 1
        ):
            return read_record(record, images)
        question = self.question or _first(record, QUESTIONS)
        if not (question or images):
            raise RejectedRow("neither an image nor a question")
        answer = self.answer or _first(record, ANSWERS)
        if caption is None or self.answer or (question and answer):
            text = self._answer(record, answer)
        else:
            text, answer = caption, ""
        messages = [
            {"role": "user", "content": self._question(record, question) or []},
            {"role": "assistant", "content": text},
        ]
        used = [question, MORE_OF_QUESTION.get(question, "")]
        if not isinstance(record.get(answer), list):  # other answers than the first go to the meta
            used.append(answer)
        return used, read_messages(messages, images)

    def _question(self, record: Mapping[str, Any], name: str) -> str:
        if not name:
            return self.prompt
        text = record.get(name)
        if not isinstance(text, str):
            problem = "missing" if text is None else "no text"
            raise RejectedRow(f"{name}, the question, is {problem}")
        more = record.get(MORE_OF_QUESTION.get(name, "")) or ""
        if not isinstance(more, str):
            raise RejectedRow(f"{MORE_OF_QUESTION[name]}, a part of the question, is no text")
        return f"{text}\n{more}" if more else text

    def _answer(self, record: Mapping[str, Any], name: str) -> str:
        if record.get(name) is None:
            fields = ", ".join(record) or "none"
            if self.answer:
                raise RejectedRow(f"no field {name} (--answer); its fields are {fields}"[:300])
            raise RejectedRow(f"no answer; its fields are {fields}; name one with --answer"[:300])
        value = record[name]
        if isinstance(value, list) and value:
            value = value[0]
        return plain_text(value, name)


def _first(record: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if record.get(name) not in (None, "", [])), "")


def plain_text(value: Any, name: str) -> str:
    """A JSON value as the text of an answer; numbers and booleans as JSON writes them.

    Raises RejectedRow for null, lists and objects.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    kind = {type(None): "null", list: "a list", dict: "an object"}.get(type(value), "no text")
    raise RejectedRow(f"{name}, the answer, is {kind}")
