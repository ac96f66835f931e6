"""DocVQA (arXiv 2007.00398), task 1 of the Document VQA challenge: `train_v1.0_withQT.json` or
`val_v1.0_withQT.json` (version 1.0), with the pages in a folder `documents` beside it.

A record is `{"questionId", "question", "question_types": [...], "image": "documents/NAME.png",
"docId", "answers": [...]}`; files without question types (`val_v1.0.json`) are read as well. The
answers of the test split are not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrdata.sources.benchmarks.questions import (
    Asked,
    Layout,
    answers_field,
    others,
    text_field,
    words_field,
)


def read(record: Mapping[str, Any]) -> Asked:
    """One question. Raises RejectedRow."""
    return Asked(
        image=text_field(record, "image"),
        question=text_field(record, "question"),
        answers=answers_field(record),
        facts={"question types": words_field(record, "question_types")},
        more=others(record, "image", "question", "answers", "question_types", "data_split"),
    )


LAYOUT = Layout(
    "docvqa", "DocVQA's val_v1.0_withQT.json, with documents/ beside it", "unknown", read
)
