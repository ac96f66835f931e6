"""OmniDocBench: a page's elements in reading order, joined where a column break cut them."""

from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sources.benchmarks.omnidocbench import read


def box(number: int, kind: str, order: int | None, **content: str) -> dict[str, Any]:
    return {"category_type": kind, "anno_id": number, "order": order, "ignore": False, **content}


def page(*boxes: dict[str, Any], relations: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    return {
        "page_info": {
            "image_path": "images/a_1.jpg",
            "page_attribute": {"language": "english", "data_source": "book", "watermark": False},
        },
        "layout_dets": list(boxes),
        "extra": {
            "relation": [
                {"relation_type": "truncated", "source_anno_id": one, "target_anno_id": other}
                for one, other in relations
            ]
            + [{"relation_type": "parent_son", "source_anno_id": 1, "target_anno_id": 2}]
        },
    }


def test_a_page_in_reading_order() -> None:
    found = read(
        page(
            box(3, "table", 4, html="<table><tr><td>1</td></tr></table>", latex="x"),
            box(1, "title", 1, text="Title"),
            box(2, "text_block", 2, text="A text."),
            box(4, "equation_isolated", 3, latex="$$x^2$$"),
            box(5, "header", None, text="Page 7"),
            box(6, "figure", 5),
            box(7, "text_mask", 6, text="hidden"),
        )
    )
    assert (found.image, found.facts["language"], found.facts["data_source"]) == (
        "a_1.jpg", "english", "book",
    )  # fmt: skip
    assert "watermark" not in found.facts
    kinds = [(one["category_type"], one["content"]) for one in found.facts["elements"]]
    table = "<table><tr><td>1</td></tr></table>"
    assert kinds == [
        ("header", "Page 7"), ("title", "Title"), ("text_block", "A text."),
        ("equation_isolated", "$$x^2$$"), ("table", table),
    ]  # fmt: skip
    assert list(found.answers) == [f"Title\n\nA text.\n\n$$x^2$$\n\n{table}"]


def test_parts_that_a_column_break_cut_are_one_text() -> None:
    found = read(
        page(
            box(1, "text_block", 1, text="a "),
            box(9, "text_block", 5, text="c"),
            box(4, "text_block", 3, text="b "),
            box(5, "text_block", 2, text="between"),
            relations=((4, 9), (1, 4)),
        )
    )
    assert [one["content"] for one in found.facts["elements"]] == ["a b c", "between"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"page_info": {"image_path": ""}},
        {"page_info": {"image_path": "a.jpg"}, "layout_dets": None},
        page(box(1, "header", 1, text="Page 7")),
        page(box(1, "text_block", 1, text=" ")),
    ],
)
def test_pages_that_are_none(record: dict[str, Any]) -> None:
    with pytest.raises(RejectedRow):
        read(record)
