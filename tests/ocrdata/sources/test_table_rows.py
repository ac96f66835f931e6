"""Rows of tables: structs of lists, null fields, image columns."""

from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sources.table_rows import (
    image_list,
    image_names,
    only_bytes,
    records,
    row_images,
    turns_to_messages,
    without_nulls,
)
from tests.support.numbered import square

RED, BLUE = square("red"), square("blue")


def test_a_struct_of_lists_is_a_list_of_structs() -> None:
    assert records({"a": [1, 2], "b": [3, 4], "c": None}, "x") == [
        {"a": 1, "b": 3},
        {"a": 2, "b": 4},
    ]
    assert records({"a": [], "b": []}, "x") == []
    for value in (None, [1], {"a": 1}, {"a": None}, "text"):
        assert records(value, "x") == value
    with pytest.raises(RejectedRow, match=r"'x'.* 2 a, 1 b"):
        records({"a": [1, 2], "b": [3]}, "x")


def test_null_fields_are_absent_at_every_depth() -> None:
    value = {"a": None, "b": [{"c": None, "d": 0}, None], "e": {"f": None}, "g": ""}
    assert without_nulls(value) == {"b": [{"d": 0}, None], "e": {}, "g": ""}


@pytest.mark.parametrize(
    ("value", "images", "names"),
    [
        (None, [], []),
        ({"bytes": None, "path": None}, [], []),
        (RED, [RED], []),
        ([RED, BLUE], [RED, BLUE], []),
        ("a.png", ["a.png"], []),
        ("data:image/png;base64,AA", ["data:image/png;base64,AA"], []),
        ({"bytes": RED, "path": "a.png"}, [{"bytes": RED, "path": "a.png"}], ["a.png"]),
        ({"bytes": [RED, BLUE], "path": [None, "b"]},
         [{"bytes": RED}, {"bytes": BLUE, "path": "b"}], [None, "b"]),
    ],
)  # fmt: skip
def test_every_form_of_an_image_column(value: Any, images: list[Any], names: list[Any]) -> None:
    assert image_list(value, "x") == images
    assert image_names(images) == names


def test_images_of_a_row_are_in_columns_of_any_name() -> None:
    columns = {"page": "image", "more": "images"}
    named = {"bytes": BLUE, "path": "b"}
    assert row_images({"page": RED, "more": None}, columns) == ([RED], [])
    assert row_images({"more": [RED, named]}, columns) == ([RED, BLUE], [None, "b"])
    with pytest.raises(RejectedRow, match="image and images"):
        row_images({"page": RED, "more": [BLUE]}, columns)
    with pytest.raises(RejectedRow, match="videos"):
        row_images({"page": RED, "videos": [b"x"]}, columns)


def test_an_image_without_bytes_is_named() -> None:
    assert only_bytes(RED) == RED
    with pytest.raises(RejectedRow, match=r"a\.png"):
        only_bytes("a.png")


def test_turns_keep_other_fields() -> None:
    turns = [{"user": "q", "assistant": "a", "score": 3, "weight": None}, None,
             {"user": None, "assistant": "b", "score": None, "weight": 0}]  # fmt: skip
    assert turns_to_messages(turns, "t") == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "score": 3},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": "b", "weight": 0},
    ]
    assert turns_to_messages({"user": [], "assistant": []}, "t") == []
