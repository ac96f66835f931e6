"""OCRBench (arXiv 2305.07895): `OCRBench.json`, 1,000 questions of 29 data sets, with the folder
`OCRBench_Images`.

A record is `{"dataset_name", "id", "type", "question", "image_path", "answers": text or list}`.
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
)


def read(record: Mapping[str, Any]) -> Asked:
    """One question. Raises RejectedRow."""
    kind = text_field(record, "type")
    return Asked(
        image=text_field(record, "image_path"),
        question=text_field(record, "question"),
        answers=answers_field(record),
        kind=kind,
        facts={"type": kind, "data set": text_field(record, "dataset_name")},
        more=others(record, "type", "image_path", "question", "answers", "dataset_name"),
    )


LAYOUT = Layout("ocrbench", "OCRBench.json, with --images OCRBench_Images", "unknown", read)
