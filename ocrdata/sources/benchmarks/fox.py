"""Fox (arXiv 2405.14295): the OCR tasks of `focus_benchmark_test`, one file each, such as
`en_page_ocr.json` with the pages in `en_pdf_png`, `cn_page_ocr.json`, and those of boxes, lines and
coloured boxes (`en_box_ocr.json`, `en_line_ocr.json`, `en_onbox_ocr.json` with
`en_pdf_png_onbox`).

A record is `{"image": "NAME.png", "conversations": [{"value": question}, {"value": text}]}`. Tasks
that are not read off the page (translation, summary, caption, questions over pages) have other
measures and are not for this source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sources.benchmarks.questions import Asked, Layout, others, text_field

PLACEHOLDER = "<image>"


def read(record: Mapping[str, Any]) -> Asked:
    """One page or part of it. Raises RejectedRow."""
    turns = record.get("conversations")
    if (
        not isinstance(turns, list)
        or len(turns) != 2
        or not all(isinstance(turn, dict) for turn in turns)
    ):
        raise RejectedRow("conversations are not a question and its answer")
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise RejectedRow(f"image is not one name: {image!r:.60}")
    return Asked(
        image=image,
        question=text_field(turns[0], "value").replace(PLACEHOLDER, "").strip(),
        answers=[text_field(turns[1], "value")],
        more=others(record, "image", "conversations"),
    )


LAYOUT = Layout(
    "fox",
    "a task of Fox such as en_page_ocr.json, with --images the folder of its pages",
    "CC-BY-NC-4.0",
    read,
)
