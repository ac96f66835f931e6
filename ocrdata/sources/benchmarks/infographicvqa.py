"""InfographicVQA (arXiv 2104.12756), task 3 of the Document VQA challenge:
`infographicsVQA_val_v1.0_withQT.json` (version 1.0) and a folder of infographics.

A record is `{"questionId", "question", "image_local_name": "NAME.jpeg", "answers": [...],
"answer_type": [...], "evidence": [...], "operation/reasoning": [...]}`. The answers of the test
split are not published.
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

LABELS = {
    "answer type": "answer_type",
    "evidence": "evidence",
    "operation": "operation/reasoning",
}
"""What the answers are grouped by, and the field that says it."""


def read(record: Mapping[str, Any]) -> Asked:
    """One question. Raises RejectedRow."""
    return Asked(
        image=text_field(record, "image_local_name"),
        question=text_field(record, "question"),
        answers=answers_field(record),
        facts={label: words_field(record, name) for label, name in LABELS.items()},
        more=others(
            record, "image_local_name", "question", "answers", "data_split", *LABELS.values()
        ),
    )


LAYOUT = Layout(
    "infographicvqa",
    "InfographicVQA's infographicsVQA_val_v1.0_withQT.json, with --images the folder of the "
    "infographics",
    "unknown",
    read,
)
