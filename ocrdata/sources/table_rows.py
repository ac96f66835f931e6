"""Rows of tables -> what JSON records have.

A table has images as bytes, a null for each field that a record does not have, and lists of structs
that are stored as structs of lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sources.conversations import OTHER_MEDIA, Image, record_images


def row_images(
    row: Mapping[str, Any], columns: Mapping[str, str]
) -> tuple[list[Image], list[str | None]]:
    """The images of a row, and the names of those that are bytes, null for those without; [] if
    none has a name.

    `columns` has the columns with images, and the field in `IMAGE_FIELDS` that each stands for.
    Raises RejectedRow, also for a row with videos or sounds.
    """
    held = {name: row[name] for name in OTHER_MEDIA if name in row}
    names: list[str | None] = []
    for column, field in columns.items():
        if row.get(column) is not None:
            held[field] = images = image_list(row[column], column)
            names = names or image_names(images)
    return record_images(held) if held else [], names


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
        return {
            name: one if type(one) is str else without_nulls(one)  # most are texts
            for name, one in value.items()
            if one is not None
        }
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
    """The names of images that are bytes, null for those without; [] if none has a name."""
    names = [image.get("path") if isinstance(image, dict) else None for image in images]
    return names if any(names) else []


def only_bytes(image: Image) -> bytes:
    """The bytes of an image in a table that contains its images. Raises RejectedRow for a name."""
    if isinstance(image, bytes):
        return image
    raise RejectedRow(f"no bytes, only the name {image[:80]!r}")
