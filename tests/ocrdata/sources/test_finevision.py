from __future__ import annotations

from typing import Any

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sample import check
from ocrdata.sources.finevision import FineVisionRow
from tests.support.numbered import square

IMAGE = square("red")


def row(**values: Any) -> dict[str, Any]:
    base = {
        "images": [{"bytes": IMAGE, "path": "a.png"}],
        "texts": [{"user": "q", "assistant": "a"}],
    }
    return {**base, "source": "chartqa", **values}


def test_all_turns_images_and_other_columns_are_kept() -> None:
    images = [{"bytes": IMAGE, "path": None}, {"bytes": b"2", "path": "b.png"}]
    texts = [{"user": "one <image>", "assistant": "1"}, {"user": "two", "assistant": "2"}]
    ratings = {"relevance_ratings": [5, None], "relevance_min": 5, "formatting_ratings": None}
    sample = FineVisionRow("chartqa")(row(images=images, texts=texts, **ratings))
    assert sample.images == [IMAGE, b"2"]
    assert sample.messages[0]["content"] == [
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "one <image>"},
    ]
    assert sample.messages[2]["content"] == [{"type": "text", "text": "two"}]
    assert sample.turns == 2
    assert sample.meta == {
        "image_paths": [None, "b.png"],
        "relevance_min": 5,
        "relevance_ratings": [5, None],
    }


@pytest.mark.parametrize("images", [None, []])
def test_no_images_and_no_source(images: Any) -> None:
    sample = FineVisionRow("text(only)")(row(images=images, source=None))
    assert sample.images == [] and sample.source == "text(only)" and sample.meta == {}
    check(sample)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"images": [{"bytes": None, "path": "a.png"}]}, "image 0: no bytes"),
        ({"images": [{"bytes": IMAGE}, None]}, "image 1: no bytes"),
        ({"texts": None}, "no turns"),
        ({"texts": []}, "no turns"),
        ({"texts": [None]}, "no turns"),
        ({"texts": [{"user": "q", "assistant": None}]}, "message 1: no assistant text"),
        ({"images": [{"bytes": b"no image", "path": None}]}, "image 0: not an image"),
    ],
)
def test_rejected_rows(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(RejectedRow, match=f"^{reason}"):
        check(FineVisionRow("chartqa")(row(**values)))
