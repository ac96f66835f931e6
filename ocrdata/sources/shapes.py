"""What a column of a table can be used for, by its type: images, messages, turns or text.

A column of a type that does not fit is refused before any row is read, with its name and type. A
field, an element or a whole column that is null everywhere fits every shape, because tables have
every field in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from pyarrow import types

from ocrdata.sources.columns import bare, is_bytes, is_list, is_text, obstacle, types_in, unreadable
from ocrdata.sources.conversations import IMAGE_FIELDS, OTHER_MEDIA, PART_IMAGES, UNREAD


@dataclass(frozen=True)
class Shape:
    """What a column must be, to be used as images or as text. `text` says it in a message."""

    text: str
    fits: Callable[[pa.DataType], bool]

    def why_not(self, kind: pa.DataType) -> str:
        """Why a type does not fit; "" if it does. A column of nothing but nulls always fits."""
        return unreadable(kind) or ("" if self.fits(kind) else f"it must be {self.text}")


def _is_text_or_null(kind: pa.DataType) -> bool:
    return is_text(bare(kind)) or types.is_null(bare(kind))


def _is_image(kind: pa.DataType) -> bool:
    """The bytes or the name of one image, or both."""
    kind = bare(kind)
    if not types.is_struct(kind):
        return is_bytes(kind) or _is_text_or_null(kind)
    fields = {field.name: bare(field.type) for field in kind}
    data = [fields[name] for name in ("bytes", "data") if name in fields]
    names = [fields[name] for name in ("path", "url", "file") if name in fields]
    return (
        bool(data or names)
        and all(is_bytes(one) or types.is_null(one) for one in data)
        and all(map(_is_text_or_null, names))
    )


def _are_images(kind: pa.DataType) -> bool:
    return _is_image(kind) or _are_records(kind, _is_image)


def _are_records(kind: pa.DataType, fits: Callable[[pa.DataType], bool]) -> bool:
    """A list of values that fit, or a struct of lists, as `datasets` stores a list of structs."""
    kind = bare(kind)
    if types.is_null(kind):
        return True
    if is_list(kind):
        return types.is_null(bare(kind.value_type)) or fits(kind.value_type)
    if not types.is_struct(kind) or not all(is_list(bare(field.type)) for field in kind):
        return False
    return fits(pa.struct([(field.name, bare(field.type).value_type) for field in kind]))


def _is_message(kind: pa.DataType) -> bool:
    kind = bare(kind)
    if not types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    role = [fields[name] for name in ("role", "from") if name in fields]
    content = [fields[name] for name in ("content", "value") if name in fields]
    others = fields.keys() - {"role", "from", "content", "value", *UNREAD}
    return (
        bool(role)
        and bool(content)
        and all(map(_is_text_or_null, role))
        and all(_is_text_or_null(one) or _are_parts(one) for one in content)
        and not any(obstacle(fields[name]) for name in others)
    )


def _are_parts(kind: pa.DataType) -> bool:
    """A list of structs with a type; bytes only where an image is expected."""
    kind = bare(kind)
    part = bare(kind.value_type) if is_list(kind) else pa.null()
    if not types.is_struct(part):
        return is_list(kind) and types.is_null(part)
    return any(field.name == "type" and _is_text_or_null(field.type) for field in part) and not any(
        obstacle(field.type) for field in part if field.name not in PART_IMAGES
    )


def _is_pair(kind: pa.DataType) -> bool:
    kind = bare(kind)
    if not types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    return {"user", "assistant"} <= fields.keys() and all(
        _is_text_or_null(one) if name in ("user", "assistant") else not obstacle(one)
        for name, one in fields.items()
    )


def _is_answer(kind: pa.DataType) -> bool:
    kind = bare(kind)
    inner = bare(kind.value_type) if is_list(kind) else kind
    return bool(
        _is_text_or_null(inner)
        or types.is_integer(inner)
        or types.is_floating(inner)
        or types.is_boolean(inner)
        or types.is_decimal(inner)
        or types.is_temporal(inner)
    )


def _is_anything(_: pa.DataType) -> bool:
    return True


def has_parts(kind: pa.DataType) -> bool:
    """Whether messages have their content in parts, which may name images."""
    return any(
        types.is_struct(inner) and any(field.name == "type" for field in inner)
        for inner in types_in(kind)
    )


TEXT = Shape("text", _is_text_or_null)
ANSWER = Shape("text, a number, a date, or a list of them, of which the first counts", _is_answer)
IMAGES = Shape(
    "an image or a list of images, each binary, a file name or struct<bytes, path>", _are_images
)
MESSAGES = Shape(
    "a list of struct<role, content>, where content is text or a list of struct<type, ...>",
    partial(_are_records, fits=_is_message),
)
PAIRS = Shape("a list of struct<user, assistant>, both text", partial(_are_records, fits=_is_pair))
ANYTHING = Shape("anything", _is_anything)

MEDIA: Mapping[str, Shape] = {
    **dict.fromkeys(IMAGE_FIELDS, IMAGES),
    **dict.fromkeys(OTHER_MEDIA, ANYTHING),
}
"""Columns that hold images by their name, and those that are a reason to reject a row."""
