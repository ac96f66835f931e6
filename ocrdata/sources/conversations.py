"""Messages and image fields as other people write them -> the messages of a `Sample`.

Every source of conversations uses this module, so that the same record means the same in JSON
Lines and in Parquet. It knows the names of fields and of roles; finding the bytes of an image is
left to the source. An image is a name, path or URL (a str), or its bytes. Nothing of a message is
lost: a field is read, kept for the meta, or a reason to reject the row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ocrdata.errors import RejectedRow
from ocrdata.sample import (
    IMAGE_PART,
    Message,
    Part,
    Sample,
    is_trained,
    split_placeholders,
    text_part,
)

Image = str | bytes
PLACEHOLDER = "<image>"

MESSAGE_FIELDS = "message_fields"
"""The name in `meta` under which other fields of messages are kept, by message number."""

IMAGE_FIELDS = (
    "image",
    "images",
    "image_path",
    "image_paths",
    "image_url",
    "image_urls",
    "image_file",
    "image_files",
    "img",
    "imgs",
    "img_path",
    "img_paths",
)
"""Fields of a record that hold its images."""

OTHER_MEDIA = ("video", "videos", "video_path", "video_url", "audio", "audios", "audio_path")
"""Fields of a record that hold what cannot be read."""

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
"""Names of roles: those of OpenAI, ShareGPT (and LLaVA) and Gemini."""

WEIGHTS = ("weight", "loss_weight", "loss", "train", "training")
"""Fields of an answer that say whether it is trained on: 0 or false, 1 or true. An answer that is
not gets "weight": 0."""

UNREAD = (
    "tool_calls",
    "tool_call_id",
    "function_call",
    "reasoning",
    "reasoning_content",
    "thinking",
    "refusal",
    "audio",
    "video",
    "videos",
    "images",
    "image",
)
"""Fields that are a part of what a message says, but cannot be rendered."""

_ROLE = ("role", "from")
_CONTENT = ("content", "value")
_TEXT_KINDS = ("text", "input_text", "output_text")
_IMAGE_KINDS = ("image", "image_url", "input_image")
_PART_TEXTS = ("text", "value")
PART_IMAGES = ("image", "image_url", "url", "path", "file", "value", "source", "data", "bytes")
"""Fields of an image part that have the image."""

_INSIDE = ("bytes", "url", "path", "file", "data")


class Conversation(NamedTuple):
    """`images` belong to the image parts of `messages`, in their order. `fields` are the other
    fields of messages, by message number: they go to `meta[MESSAGE_FIELDS]`."""

    messages: list[Message]
    images: list[Image]
    fields: dict[str, dict[str, Any]]


def record_images(record: Mapping[str, Any]) -> list[Image]:
    """The images in the fields of a record, whichever of `IMAGE_FIELDS` has them.

    Raises RejectedRow if two fields differ, a value is no image, or there are videos or sounds.
    """
    for name in OTHER_MEDIA:
        if _holds(record.get(name)):
            raise RejectedRow(f"the record has {name}; only images can be read")
    found: dict[str, list[Image]] = {}
    for name in IMAGE_FIELDS:
        value = record.get(name)
        if not _holds(value):
            continue
        values = value if isinstance(value, list) else [value]
        found[name] = [image for one in values if (image := _image(one)) is not None]
        if len(found[name]) < len(values):
            raise RejectedRow(f"{name} is neither an image nor a list of images")
    first = next(iter(found), "")
    for name, images in found.items():
        if images != found[first]:
            raise RejectedRow(f"{first} and {name} name different images; keep one of them")
    return found.get(first, [])


def noted_of(sample: Sample) -> Iterator[str]:
    """What the user is told of a sample, once for each time: `untrained_turns` for an answer of
    weight 0, `message_fields.NAME` for a field of a message that is only in the meta."""
    for message in sample.messages:
        if message["role"] == "assistant" and not is_trained(message):
            yield "untrained_turns"
    kept = sample.meta.get(MESSAGE_FIELDS)  # a data set may have a field of its own of this name
    for fields in kept.values() if isinstance(kept, dict) else ():
        for name in fields if isinstance(fields, dict) else ():
            yield f"{MESSAGE_FIELDS}.{re.sub(r'[0-9]+', '', name)}"


def source_name(value: Any) -> str:
    """The text of a record's `source`; "" if it has none that can be a name."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def read_messages(
    value: Any, images: Sequence[Image] = (), *, placeholder: str = PLACEHOLDER
) -> Conversation:
    """The conversation in a list of messages; `images` are those of the record's own fields.

    A message has a role (`role` or `from`, see `ROLES`) and a text or a list of parts (`content` or
    `value`). Every `placeholder` in the text of a user, and every image part that names no image,
    is the next of `images`; if there is none, all of them come before the first question. An image
    part that names an image shows that one. With `placeholder` "" all text stays as it is.

    Raises RejectedRow with the reason, also if an image of the record is shown nowhere.
    """
    if not isinstance(value, list):
        raise RejectedRow("messages is not a list")
    reader = _Reader(images, placeholder, _has_placeholder(value, placeholder))
    messages = [reader.message(number, message) for number, message in enumerate(value)]
    shown = reader.finish(messages)
    return Conversation(messages, shown, reader.fields)


def _holds(value: Any) -> bool:
    """Whether a field has a value: null and empty ones say nothing. 0 and false do."""
    return value is not None and value not in ("", [], {})


def _image(value: Any) -> Image | None:
    """The image that a value names or holds: a text, bytes, or an object with one of them."""
    if isinstance(value, str | bytes):
        return value or None
    if isinstance(value, dict):
        if value.get("type") == "base64" and isinstance(value.get("data"), str):
            return f"data:{value.get('media_type') or ''};base64,{value['data']}"
        for name in _INSIDE:
            if isinstance(value.get(name), str | bytes) and value[name]:
                inner: Image = value[name]
                return inner
    return None


def _has_placeholder(messages: list[Any], placeholder: str) -> bool:
    """Whether the text content of a user has a placeholder."""
    return bool(placeholder) and any(
        isinstance(message, dict)
        and ROLES.get(str(message.get(_used(message, _ROLE)))) == "user"
        and isinstance(content := message.get(_used(message, _CONTENT)), str)
        and placeholder in content
        for message in messages
    )


def _used(message: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these fields that is not null; the first name if all are."""
    return next((name for name in names if message.get(name) is not None), names[0])


@dataclass
class _Reader:
    """Reads the messages of one record, in order."""

    images: Sequence[Image]
    placeholder: str
    placed: bool

    def __post_init__(self) -> None:
        self.shown: list[Image | None] = []  # by image part; None is the next of the record's
        self.fields: dict[str, dict[str, Any]] = {}

    def message(self, number: int, message: Any) -> Message:
        if not isinstance(message, dict):
            raise RejectedRow(f"message {number}: no role")
        used = _used(message, _ROLE), _used(message, _CONTENT)
        named, content = (message.get(name) for name in used)
        if not isinstance(named, str):
            raise RejectedRow(f"message {number}: no role")
        role = ROLES.get(named)
        if role is None:
            raise RejectedRow(
                f"message {number}: role {named[:40]!r} is none of {', '.join(ROLES)}"
            )
        if isinstance(content, str):
            parts = self._text(number, role, content)
        elif isinstance(content, list):
            parts = [
                piece
                for at, part in enumerate(content)
                for piece in self._part(number, role, at, part)
            ]
        else:
            raise RejectedRow(f"message {number}: no content")
        read: Message = {"role": role, "content": parts}
        for name, value in message.items():
            if name in used or not _holds(value):
                continue
            if name in WEIGHTS and role == "assistant":
                if not _is_trained(number, name, value):
                    read["weight"] = 0
            elif name in UNREAD:
                raise RejectedRow(f"message {number}: its {name} cannot be used")
            else:
                self._keep(number, name, value)
        return read

    def _keep(self, number: int, name: str, value: Any) -> None:
        self.fields.setdefault(str(number), {})[name] = value

    def _text(self, number: int, role: str, text: str) -> list[Part]:
        mark = self.placeholder
        if not mark or (mark not in text and not (self.placed and role == "user")):
            return [text_part(text)]
        if role != "user":
            if self.images:
                raise RejectedRow(f"message {number}: {mark} in a message of the {role}")
            return [text_part(text)]
        parts = split_placeholders(text, mark)
        self.shown += [None for part in parts if part == IMAGE_PART]
        return parts

    def _part(self, number: int, role: str, at: int, part: Any) -> list[Part]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT_KINDS:
            name = next((name for name in _PART_TEXTS if isinstance(part.get(name), str)), "")
            if not name:
                raise RejectedRow(f"message {number}: a text part without text")
            if any(_holds(part.get(other)) for other in PART_IMAGES if other != "value"):
                raise RejectedRow(f"message {number}: a text part that also has an image")
            self._keep_part(number, at, part, (name,))
            return self._text(number, role, part[name])
        if kind not in _IMAGE_KINDS:
            raise RejectedRow(
                f"message {number}: a content part is neither text nor image"
                + (f", but {kind[:40]!r}" if isinstance(kind, str) else "")
            )
        used = [name for name in PART_IMAGES if _holds(part.get(name))]
        found = [_image(part[name]) for name in used]
        if None in found or any(image != found[0] for image in found):
            raise RejectedRow(f"message {number}: an image part has no single image: {used}")
        image = found[0] if found else self._by_index(number, part)
        unknown = [n for n in part if n not in (*used, "type", "index") and _holds(part[n])]
        if image is None and unknown:
            raise RejectedRow(
                f"message {number}: an image part has no image, but {', '.join(unknown)[:80]}"
            )
        self.shown.append(image)
        self._keep_part(number, at, part, (*used, "index"))
        for name in used:
            self._keep_beside_image(number, f"content[{at}].{name}", part[name])
        return [dict(IMAGE_PART)]

    def _by_index(self, number: int, part: Mapping[str, Any]) -> Image | None:
        """The image that `index` names, if there is one."""
        index = part.get("index")
        if index is None:
            return None
        if type(index) is not int or not 0 <= index < len(self.images):
            raise RejectedRow(
                f"message {number}: an image part has index {index!r:.40}, the record "
                f"{len(self.images)} images"
            )
        return self.images[index]

    def _keep_part(
        self, number: int, at: int, part: Mapping[str, Any], used: Sequence[str]
    ) -> None:
        for name, value in part.items():
            if name not in ("type", *used) and _holds(value):
                self._keep(number, f"content[{at}].{name}", value)

    def _keep_beside_image(self, number: int, name: str, value: Any) -> None:
        """Keep what an object says of the image in it, such as OpenAI's `detail`."""
        for key, one in value.items() if isinstance(value, dict) else ():
            if key not in (*_INSIDE, "type", "media_type") and _holds(one):
                self._keep(number, f"{name}.{key}", one)

    def finish(self, messages: list[Message]) -> list[Image]:
        """The images in the order of their parts; without any part, all before the first
        question."""
        own = list(self.images)
        named = [image for image in self.shown if image is not None]
        if not self.shown:
            first = next((message for message in messages if message["role"] == "user"), None)
            if first is not None:
                first["content"] = [*(dict(IMAGE_PART) for _ in own), *first["content"]]
            return own
        if not named:
            if len(self.shown) != len(own):
                what = f"image parts or {self.placeholder}" if self.placeholder else "image parts"
                raise RejectedRow(
                    f"{len(self.shown)} {what} in the messages, but {len(own)} images in the record"
                )
            return own
        if len(named) < len(self.shown):
            raise RejectedRow(
                f"{len(named)} of {len(self.shown)} image parts name their image, the others do not"
            )
        for image in own:
            if image not in named:
                shown = f": {image[:80]}" if isinstance(image, str) else ""
                raise RejectedRow(f"an image of the record is in none of its image parts{shown}")
        return named


def _is_trained(number: int, name: str, value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise RejectedRow(
        f"message {number}: {name} {str(value)[:40]!r}: only 0 (not trained on) and 1 can be used"
    )
