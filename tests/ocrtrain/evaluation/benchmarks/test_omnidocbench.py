"""OmniDocBench: pages whose distances can be counted by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from ocrdata.errors import RejectedRow
from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.cells import markdown_to_html
from ocrtrain.evaluation.benchmarks.omnidocbench import (
    CDM,
    assignment,
    elements_of,
    measure,
    normalised_formula,
    normalised_text,
)

TABLE = "<table><tr><td>1</td><td>2</td></tr></table>"
PAGE = [
    ("header", "Page 7"),
    ("title", "Title"),
    ("text_block", "abcd efgh"),
    ("text_block", "ijkl mnop"),
    ("equation_isolated", "$$x^2+y$$"),
    ("table", TABLE),
]


def scores(answer: str, elements: Sequence[tuple[str, str]] = PAGE) -> dict[str, Any]:
    facts = {
        "elements": [
            {"category_type": kind, "order": order, "content": content}
            for order, (kind, content) in enumerate(elements)
        ],
        "language": "english", "data_source": "book",
    }  # fmt: skip
    text = "\n\n".join(content for kind, content in elements if kind != "header")
    found = measure(answer, Gold((text,), "all", facts))
    assert all(v.groups == {"language": ("english",), "page type": ("book",)} for v in found.values)
    assert found.left_out == {CDM: 1}
    return {value.measure: value.value for value in found.values}


def whole(*texts: str) -> str:
    return "\n\n".join([*texts, "$$x^2+y$$", TABLE])


def test_a_page_read_without_fault() -> None:
    found = scores("# " + whole("Title", "abcd efgh", "ijkl mnop"))
    length = found.pop("length")
    assert found == {"table TEDS": 1, "text edit": 0, "formula edit": 0, "order edit": 0}
    assert length == pytest.approx(1.0, abs=0.05)


def test_letters_that_are_wrong() -> None:
    """2 edits of 5 + 8 + 8 letters; 1 of 5 in the formula; a cell of 3 elements."""
    answer = whole("Title", "abcd efgX", "ijkl mnoX").replace("y", "z").replace(">2<", ">3<")
    found = scores(answer)
    assert found["text edit"] == pytest.approx(2 / 21)
    assert found["formula edit"] == pytest.approx(1 / 5)
    assert found["table TEDS"] == pytest.approx(2 / 3)
    assert found["order edit"] == 0


def test_the_order_of_the_texts() -> None:
    """[title, 2, 1] against [title, 1, 2]: two of three places differ."""
    found = scores(whole("Title", "ijkl mnop", "abcd efgh"))
    assert found["text edit"] == 0 and found["order edit"] == pytest.approx(2 / 3)


def test_what_is_missing_counts_whole_and_what_is_too_much_does_not() -> None:
    found = scores(whole("Title", "abcd efgh"))
    assert found["text edit"] == pytest.approx(8 / 21)
    assert found["order edit"] == pytest.approx(1 / 3)
    more = scores(whole("Title", "abcd efgh", "ijkl mnop", "Page 7", "invented " * 20))
    assert more["text edit"] == 0 and more["length"] > 3
    assert scores("")["table TEDS"] == 0 and scores("")["text edit"] == 1


def test_a_sample_without_elements_is_refused() -> None:
    with pytest.raises(RejectedRow, match="elements"):
        measure("a", Gold(("a",), "all", {}))


def test_the_parts_of_an_answer() -> None:
    answer = (
        "```markdown\n# Title\n\n![alt](a.png)\ntext with $x$\n\n\\[ a \\]\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\nlast\n```"
    )
    found = [(one.kind, one.normal) for one in elements_of(answer)]
    html = "<table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td>2</td></tr></table>"
    assert found == [
        ("text", "Title"), ("text", "textwithx"), ("formula", "a"), ("table", html),
        ("text", "last"),
    ]  # fmt: skip
    assert [one.content for one in elements_of("one\ntwo")] == ["one", "two"], "no blank line"
    assert elements_of(" \n\n ") == []


def test_only_tables_with_a_rule_become_html() -> None:
    assert markdown_to_html("a | b\nc | d") == "a | b\nc | d"
    assert markdown_to_html("x\n|a|\n|-|\n|b|\ny") == (
        "x\n<table><tr><td>a</td></tr><tr><td>b</td></tr></table>\ny"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$$ \\mathbf{x} + Y $$", "{x}+y"), ("\\[a\\tag{1}\\]", "a"), ("\\left(a\\right).", "(a)"),
     ("\\begin{array}{l}a\\end{array}", "{l}a")],
)  # fmt: skip
def test_formulas(text: str, expected: str) -> None:
    assert normalised_formula(text) == expected


def test_texts() -> None:
    assert normalised_text("**A b**, c-1\n\u6f22\u5b57\u3002") == "Abc1\u6f22\u5b57"


@settings(max_examples=40)
@given(
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
)
def test_the_assignment_is_the_best_of_all(golds: list[str], answers: list[str]) -> None:
    found = assignment(golds, answers)
    assert len(found) == min(len(golds), len(answers)) == len(set(found.values()))

    def cost(pairs: Any) -> float:
        return sum(Levenshtein.normalized_distance(golds[g], answers[a]) for g, a in pairs)

    if len(golds) <= len(answers):
        every = (
            enumerate(order) for order in itertools.permutations(range(len(answers)), len(golds))
        )
        best = min((cost(pairs) for pairs in every), default=0.0)
        assert cost(found.items()) == pytest.approx(best)
