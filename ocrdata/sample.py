"""A sample, one conversation with its images, and the rules that it must follow.

Its JSON form is the member `KEY.json` of a shard (docs/formats.md): the content of a message is
always a list of parts, so that the place of an image is a part and never a word in the text. Images
are the original bytes; `ocrdata.images.decode` decodes them.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocrdata.errors import ImageError, RejectedRow
from ocrdata.images import jpeg
from ocrdata.images.decode import check_image, read_header
from ocrdata.images.thumbnail import data_url, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

Part = dict[str, str]
Message = dict[str, Any]
"""{"role": "system" | "user" | "assistant", "content": [Part, ...]}; with "weight": 0, an answer is
not trained on."""

IMAGE_PART: Part = {"type": "image"}


def text_part(text: str) -> Part:
    """A text part."""
    return {"type": "text", "text": text}


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation. `images` are original bytes, in the order of the image parts. `key` names
    the sample in its shard; it is not part of it, and "" before it is in one."""

    messages: list[Message]
    images: list[bytes] = field(default_factory=list)
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    key: str = field(default="", compare=False)

    @property
    def turns(self) -> int:
        """Number of user/assistant pairs."""
        return [message["role"] for message in self.messages].count("assistant")

    def to_json(self) -> bytes:
        """The bytes of `KEY.json`: the same sample gives the same bytes."""
        value = {
            "messages": self.messages,
            "source": self.source,
            "meta": self.meta,
        }
        return _ENCODER.encode(value).encode()

    def image(self, number: int = 0) -> Image:
        """An image as the model sees it, before it is resized: RGB, upright, on white.

        Raises ImageError if it cannot be decoded, IndexError if there is none of this number.
        """
        if not -len(self.images) <= number < len(self.images):
            held = f"{len(self.images)}, from 0 on" if self.images else "no images"
            raise IndexError(f"image {number}: the sample has {held}")
        return to_pil(self.images[number])

    def __repr__(self) -> str:
        return f"<{_summary(self)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: thumbnails and the conversation."""
        more = len(self.messages) - _MESSAGES_SHOWN
        return "".join(
            (
                f"<p><code>{html.escape(_summary(self))}</code></p><p>",
                *(_thumbnail(data) for data in self.images[:_IMAGES_SHOWN]),
                "</p>",
                *(_message(message) for message in self.messages[:_MESSAGES_SHOWN]),
                f"<p>and {more} more messages</p>" if more > 0 else "",
            )
        )


_IMAGES_SHOWN, _MESSAGES_SHOWN = 4, 8
_WORDS_SHOWN, _TEXT_SHOWN = 60, 2000
"""Characters of the first text in the line of a sample, and of each text in a notebook."""


def _summary(sample: Sample) -> str:
    """One line: 'Sample 000000017: 1 image (jpg 640 x 480), 2 turns, chartqa: "What..."'."""
    shown = [_size(data) for data in sample.images[:_IMAGES_SHOWN]]
    if len(sample.images) > _IMAGES_SHOWN:
        shown.append(f"{len(sample.images) - _IMAGES_SHOWN} more")
    images = _counted(len(sample.images), "image") + (f" ({', '.join(shown)})" if shown else "")
    parts = [images, _counted(sample.turns, "turn"), sample.source]
    texts = (" ".join(text_of(message).split()) for message in sample.messages)
    words = _cut(next(filter(None, texts), ""), _WORDS_SHOWN)
    name = f"Sample {sample.key}".rstrip()
    line = f"{name}: {', '.join(filter(None, parts))}" + (f': "{words}"' if words else "")
    # A control character or half a surrogate pair would change or break what prints it.
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _size(data: bytes) -> str:
    try:
        info = read_header(data)
    except ImageError:
        return "unreadable"
    return f"{info.format} {info.width} x {info.height}"


def _thumbnail(data: bytes) -> str:
    try:
        return f'<img src="{data_url(data)}" title="{_size(data)}" style="margin: 2px"> '
    except ImageError as exc:
        return f"<em>{html.escape(str(exc))}</em> "


def _message(message: Message) -> str:
    texts = (
        "\U0001f5bc\n" if part["type"] == "image" else part["text"] for part in message["content"]
    )
    text = _cut("".join(texts), _TEXT_SHOWN).encode(errors="replace").decode()
    return (
        f'<p style="white-space: pre-wrap"><b>{html.escape(message["role"])}</b> '
        f"{html.escape(text)}</p>"
    )


def image_parts(messages: Iterable[Message]) -> int:
    """Number of image parts in a conversation."""
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def is_trained(answer: Message) -> bool:
    """Whether the loss is on an assistant message."""
    return bool(answer.get("weight") != 0)


def has_valid_weight(message: Message) -> bool:
    """Whether the weight of an answer is 0 or 1, or none; other messages are never trained on."""
    return message["role"] != "assistant" or message.get("weight") in (None, 0, 1)


def text_of(message: Message) -> str:
    """The text parts of a message, joined."""
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def from_turns(
    turns: Sequence[tuple[str, str]],
    images: list[bytes],
    *,
    source: str,
    meta: dict[str, Any],
    placeholder: str = "",
) -> Sample:
    """A sample of (user, assistant) pairs.

    Every `placeholder` in the user texts becomes an image part; if there is none, all images come
    first in the first user turn, as the original data sets mean it.
    """
    placed = bool(placeholder) and any(placeholder in user for user, _ in turns)
    messages: list[Message] = []
    for number, (user, assistant) in enumerate(turns):
        if placed:
            content = split_placeholders(user, placeholder)
        else:
            content = [dict(IMAGE_PART) for _ in images] if number == 0 else []
            content.append(text_part(user))
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [text_part(assistant)]})
    return Sample(messages=messages, images=images, source=source, meta=meta)


def split_placeholders(text: str, placeholder: str) -> list[Part]:
    """'<image>\\nWhat?' -> [image, 'What?']: a newline after a placeholder is dropped."""
    parts: list[Part] = []
    for number, piece in enumerate(text.split(placeholder)):
        if number:
            parts.append(dict(IMAGE_PART))
            piece = piece.removeprefix("\n")
        if piece:
            parts.append(text_part(piece))
    return parts


def check_messages(messages: list[Message]) -> None:
    """Check the rules of a conversation. Raises RejectedRow with the reason."""
    start = 1 if messages and messages[0]["role"] == "system" else 0
    roles = [message["role"] for message in messages[start:]]
    expected = ["user", "assistant"] * (len(roles) // 2)
    if not roles:
        raise RejectedRow("no turns")
    if roles != expected:
        raise RejectedRow("roles out of order: " + " ".join(m["role"] for m in messages)[:200])
    if not any(is_trained(message) for message in messages if message["role"] == "assistant"):
        raise RejectedRow("no answer is trained on: the weight of each is 0")
    for number, message in enumerate(messages):
        for part in message["content"]:
            if part["type"] == "text":
                _check_text(part.get("text"), number)
            if part["type"] == "image" and message["role"] != "user":
                raise RejectedRow(
                    f"message {number}: {message['role']} messages cannot have images"
                )
        if not has_valid_weight(message):
            raise RejectedRow(f"message {number}: weight {message['weight']!r:.40} is not 0 or 1")
        if message["role"] == "assistant" and not text_of(message).strip():
            raise RejectedRow(f"message {number}: no assistant text")


def _check_text(text: object, message: int) -> None:
    if not isinstance(text, str):
        raise RejectedRow(f"message {message}: text is not a string")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise RejectedRow(f"message {message}: lone surrogate in the text") from exc


def check(sample: Sample) -> None:
    """Check that a sample may be written: roles in order, an answer to every question, one image
    per image part, every image decodable. Raises RejectedRow with the reason."""
    check_messages(sample.messages)
    placed = image_parts(sample.messages)
    if placed != len(sample.images):
        raise RejectedRow(f"{placed} image parts in the messages, but {len(sample.images)} images")
    for number, data in enumerate(sample.images):
        try:
            check_image(data)
        except ImageError as exc:
            raise RejectedRow(f"image {number}: {exc}") from exc


def damaged_jpegs(sample: Sample) -> list[tuple[int, str]]:
    """The images of a checked sample that are damaged although they decode: (number, what the
    decoder says)."""
    found = [(number, jpeg.damage(data)) for number, data in enumerate(sample.images)]
    return [(number, words) for number, words in found if words is not None]
