"""The tests of olmOCR-bench by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.olmocr_bench import MATH_LEFT_OUT, measure, normalised

TABLE = "| Year | Sum |\n|---|---|\n| 2001 | 4.5% |\n| 2002 | 2.4% |"


def passed(answer: str, **test: Any) -> bool:
    line = json.dumps({"id": "i", "pdf": "a.pdf", "page": 1, "file": "f", **test})
    [value] = measure(answer, Gold((line,), "all", {})).values
    assert value.groups == {"file": ("f",), "type": (test["type"],)}
    return bool(value.value)


@pytest.mark.parametrize(
    ("answer", "test", "expected"),
    [
        ("The **total** sum\nis 3.", {"text": "total sum is"}, True),
        ("The totel sum", {"text": "total sum"}, False),
        ("The totel sum", {"text": "total sum", "max_diffs": 1}, True),
        ("TOTAL", {"text": "total"}, False),
        ("TOTAL", {"text": "total", "case_sensitive": False}, True),
        ("head and text", {"text": "head", "first_n": 4}, True),
        ("text and head", {"text": "head", "first_n": 4}, False),
        ("text and 12", {"text": "12", "last_n": 3}, True),
        ("12 and more 3", {"text": "12", "last_n": 3}, False),
        ("12 and more 3", {"text": "12", "first_n": 3, "last_n": 3}, True),
        ("", {"text": "a"}, False),
    ],
)
def test_presence(answer: str, test: dict[str, Any], expected: bool) -> None:
    assert passed(answer, type="present", **test) is expected
    assert passed(answer, type="absent", **test) is not expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("first part, second part", True),
        ("second part, first part", False),
        ("second part, first part, second part", True),
        ("frst part, second part", True),  # one difference is allowed
        ("second part", False),
        ("", False),
    ],
)
def test_order(answer: str, expected: bool) -> None:
    test = {"before": "first part", "after": "second part", "max_diffs": 1}
    assert passed(answer, type="order", **test) is expected


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"cell": "2.4%"}, True),
        ({"cell": "2.4%", "up": "4.5%"}, True),
        ({"cell": "2.4%", "up": "9.9%"}, False),
        ({"cell": "2.4%", "left": "2002", "top_heading": "Sum", "left_heading": "2002"}, True),
        ({"cell": "2.4%", "down": "4.5%"}, False),
        ({"cell": "Year", "right": "Sum", "down": "2001"}, True),
        ({"cell": "absent"}, False),
        ({"cell": "2.4%", "ignore_markdown_tables": True}, False),
    ],
)
def test_tables(test: dict[str, Any], expected: bool) -> None:
    assert passed(TABLE, type="table", **test) is expected


@pytest.mark.parametrize(
    ("answer", "test", "expected"),
    [
        ("Some text.", {}, True),
        ("... !", {}, False),
        ("word " + "ab" * 31, {}, False),
        ("word " + "ab" * 30, {}, True),
        ("text 漢字", {}, False),
        ("text 漢字", {"check_disallowed_characters": False}, True),
        ("", {"max_length": 0}, True),
        ("a b", {"max_length": 1}, False),
        ("![alt](a.png)", {"max_length": 0, "max_length_skips_image_alt_tags": True}, True),
    ],
)
def test_baseline(answer: str, test: dict[str, Any], expected: bool) -> None:
    assert passed(answer, type="baseline", **test) is expected


def test_what_is_made_equal() -> None:
    assert normalised("**a** __b__ *c* _d_ <b>e</b><br>f  \n g") == "a b c d e f g"
    assert (
        normalised("\u201cq\u201d \u2014 \u2019 cafe\u0301 \u00b5") == '"q" - \' caf\u00e9 \u03bc'
    )


@pytest.mark.parametrize("answer", ["The text of a page.", "3", '{"type": "colour"}'])
def test_an_answer_that_is_no_list_of_tests_is_refused(answer: str) -> None:
    with pytest.raises(RejectedRow, match="tests"):
        measure("a", Gold((answer,), "all", {}))


def test_math_tests_are_left_out_and_counted() -> None:
    tests = [
        {"type": "math", "math": "x^2", "file": "arxiv_math"},
        {"type": "math", "math": "y", "file": "arxiv_math"},
        {"type": "present", "text": "a", "file": "arxiv_math"},
    ]
    found = measure("a $x^2$", Gold(("\n".join(map(json.dumps, tests)),), "all", {}))
    assert len(found.values) == 1 and found.left_out == {MATH_LEFT_OUT: 2}
    assert found.right is None
