"""Rows of tables: structs of lists, null fields, image columns, meta."""

from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample, check
from ocrdata.sources.table_rows import TableRow, image_list, image_names, records, without_nulls
from tests.support.numbered import square

RED, BLUE = square("red"), square("blue")
ANSWERED = TableRow("origin", {"question": "q", "answer": "a"}, {"page": "image", "more": "images"})


def make(**row: Any) -> Sample:
    sample = ANSWERED({"q": "What?", "a": "red", **row})
    check(sample)
    return sample


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
        ("a.png", ["a.png"], ["a.png"]),
        ("data:image/png;base64,AA", ["data:image/png;base64,AA"], []),
        ({"bytes": RED, "path": "a.png"}, [{"bytes": RED, "path": "a.png"}], ["a.png"]),
        ({"bytes": [RED, BLUE], "path": [None, "b"]},
         [{"bytes": RED}, {"bytes": BLUE, "path": "b"}], [None, "b"]),
    ],
)  # fmt: skip
def test_every_form_of_an_image_column(value: Any, images: list[Any], names: list[Any]) -> None:
    assert image_list(value, "x") == images
    assert image_names(images) == names


def test_images_come_before_the_question_or_at_their_placeholders() -> None:
    assert make(page=RED, id=7).messages[0]["content"][0] == {"type": "image"}
    placed = make(q="one <image> two <image>", more=[RED, {"bytes": BLUE, "path": "b"}], page=None)
    assert [part["type"] for part in placed.messages[0]["content"]] == ["text", "image"] * 2
    assert placed.images == [RED, BLUE] and placed.meta == {"image_paths": [None, "b"]}
    assert make(q="one <image>").messages[0]["content"][0]["text"] == "one <image>"
    with pytest.raises(RejectedRow, match=r"1 .* 0 images"):
        make(q="one <image>", page=None)
    with pytest.raises(RejectedRow, match="image and images"):
        make(page=RED, more=[BLUE])


def test_the_name_of_an_image_is_looked_up() -> None:
    def find(name: str) -> bytes:
        if name == "none":
            raise RejectedRow(f"{name}: no such file")
        return RED

    form = TableRow("origin", {"answer": "a"}, {"page": "image"}, find)
    assert form({"a": "red", "page": "a.png"}).images == [RED]
    with pytest.raises(RejectedRow, match=r"^image 0: none: no such file"):
        form({"a": "red", "page": "none"})
    with pytest.raises(RejectedRow, match=r"^image 0: .*a\.png"):
        make(page="a.png")


def test_the_source_is_a_text_or_the_text_of_a_number_and_everything_else_is_meta() -> None:
    assert make(source="s", id=1).source == "s"
    assert (make(source=7).source, make(source=7).meta) == ("7", {})
    for nothing in (None, ""):
        assert (make(source=nothing).source, make(source=nothing).meta) == ("origin", {})
    assert (make(source=[1]).source, make(source=[1]).meta) == ("origin", {"source": [1]})
    assert make(z=0, b=None, c="", d={"e": None}).meta == {"c": "", "d": {"e": None}, "z": 0}


def test_turns_keep_other_fields_and_weights() -> None:
    form = TableRow("origin", {"texts": "t"}, {})
    turns = [{"user": "q", "assistant": "a", "score": 3, "weight": None}, None,
             {"user": None, "assistant": "b", "score": None, "weight": 0}]  # fmt: skip
    sample = form({"t": turns})
    check(sample)
    assert sample.turns == 2 and sample.messages[3]["weight"] == 0
    assert sample.meta == {"message_fields": {"1": {"score": 3}}}
    with pytest.raises(RejectedRow, match="no turns"):
        check(form({"t": {"user": [], "assistant": []}}))
