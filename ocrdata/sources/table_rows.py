"""Rows of tables -> samples: a conversation in one or two columns, its images in others.

What a table has and a JSON file has not: images as bytes, a null for each field that a record does
not have, and lists of structs stored as structs of lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from ocrdata.sources.conversations import (
    MESSAGE_FIELDS,
    OTHER_MEDIA,
    PLACEHOLDER,
    Conversation,
    Image,
    read_messages,
    record_images,
    source_name,
)
from ocrdata.sources.shapes import ANYTHING, IMAGES, MESSAGES, PAIRS, TEXT, Shape

CONVERSATION = {"messages": MESSAGES, "texts": PAIRS, "question": TEXT, "answer": TEXT}
"""What a conversation can be made of, and its shape: `messages`, or `texts`, or `answer` with or
without a `question`."""

FindImage = Callable[[str], bytes]
"""Returns the bytes of an image that a row has only by its name. Raises RejectedRow."""


def only_a_name(name: str) -> bytes:
    """For tables without a folder of images."""
    raise RejectedRow(f"no bytes, only the name {name[:80]!r}")


@dataclass(frozen=True)
class TableRow:
    """Converts a row to a sample.

    `columns` has the column of each part in `CONVERSATION` that is used, `images` the columns with
    images and the field in `IMAGE_FIELDS` that each stands for. If the table has one of them,
    `<image>` in the texts of the user is the place of an image, as `read_messages` says; without
    any it stays text. Columns that are not used go to `meta`, and so do the names of images.
    """

    origin: str
    columns: Mapping[str, str]
    images: Mapping[str, str]
    find_image: FindImage = only_a_name
    format: str = "table"

    @property
    def shapes(self) -> dict[str, Shape]:
        """The columns that are used, or a reason to reject rows, and what each has to be."""
        return {
            **dict.fromkeys(OTHER_MEDIA, ANYTHING),
            **dict.fromkeys(self.images, IMAGES),
            **{column: CONVERSATION[part] for part, column in self.columns.items()},
        }

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns without which there is no conversation."""
        return tuple(self.columns.values())

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow."""
        held = {name: row.get(name) for name in OTHER_MEDIA}
        names: list[str | None] = []
        for column, field in self.images.items():
            held[field] = images = image_list(row.get(column), column)
            names = names or image_names(images)
        placeholder = PLACEHOLDER if self.images.keys() & row.keys() else ""
        found = read_messages(self._messages(row), record_images(held), placeholder=placeholder)
        images = [self._image(number, image) for number, image in enumerate(found.images)]
        return to_sample(row, found, images, used=(*self.shapes,), origin=self.origin, names=names)

    def _image(self, number: int, image: Image) -> bytes:
        try:
            return image if isinstance(image, bytes) else self.find_image(image)
        except RejectedRow as exc:
            raise RejectedRow(f"image {number}: {exc}") from exc

    def _messages(self, row: dict[str, Any]) -> Any:
        columns = self.columns
        if "messages" in columns:
            return without_nulls(records(row[columns["messages"]], columns["messages"])) or []
        if "texts" in columns:
            return turns_to_messages(row[columns["texts"]], columns["texts"])
        question = row[columns["question"]] if "question" in columns else ""
        turn = {"user": question, "assistant": row[columns["answer"]]}
        return turns_to_messages([turn], columns["answer"])


def records(value: Any, column: str) -> Any:
    """A struct of lists, as `datasets` stores a sequence of structs, as a list of structs; any
    other value as it is. Raises RejectedRow if the lists differ in length."""
    if not isinstance(value, dict) or not any(isinstance(one, list) for one in value.values()):
        return value
    lists = {name: one for name, one in value.items() if one is not None}
    lengths = {len(one) for one in lists.values()}
    if len(lengths) > 1:
        said = ", ".join(f"{len(one)} {name}" for name, one in lists.items())
        raise RejectedRow(f"column {column!r} has lists of different lengths: {said}")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def without_nulls(value: Any) -> Any:
    """A value without the fields that are null: a table has every field in every row."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def turns_to_messages(turns: Any, column: str) -> list[dict[str, Any]]:
    """Messages of `[{user, assistant}]`, where null is an empty text; other fields of a turn belong
    to its answer."""
    messages = []
    for turn in without_nulls(records(turns, column)) or []:
        if turn is not None:
            user, answer = turn.pop("user", ""), turn.pop("assistant", "")
            messages.append({"role": "user", "content": user})
            messages.append({**turn, "role": "assistant", "content": answer})
    return messages


def image_list(value: Any, column: str) -> list[Any]:
    """The images in a column: none, one, or a list of them."""
    value = without_nulls(records(value, column))
    return value if isinstance(value, list) else [] if value in (None, {}) else [value]


def image_names(images: Sequence[Any]) -> list[str | None]:
    """The names of images, null for those without; [] if none has a name."""
    held = [image.get("path") if isinstance(image, dict) else image for image in images]
    names = [
        name if isinstance(name, str) and name and not name.startswith("data:") else None
        for name in held
    ]
    return names if any(names) else []


def to_sample(
    row: Mapping[str, Any],
    found: Conversation,
    images: Sequence[bytes],
    *,
    used: Sequence[str],
    origin: str,
    names: Sequence[str | None],
) -> Sample:
    """A sample of a row: `source` is the text of the column of this name, or else `origin`; columns
    that are not `used`, the names of the images and other fields of the messages go to `meta`."""
    source = source_name(row.get("source"))
    meta = {
        name: value
        for name, value in sorted(row.items())
        if name not in used
        and value is not None
        and not (name == "source" and (source or not value))
    }
    if names:
        meta["image_paths"] = list(names)
    if found.fields:
        meta[MESSAGE_FIELDS] = found.fields
    return Sample(found.messages, list(images), source or origin, meta)
