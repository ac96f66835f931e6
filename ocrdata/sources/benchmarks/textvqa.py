"""TextVQA (arXiv 1904.08920): `TextVQA_0.5.1_train.json` or `TextVQA_0.5.1_val.json` (version
0.5.1), with the images in `train_images/IMAGE_ID.jpg`, those of the validation split as well.

A record is `{"question_id", "question", "image_id", "image_classes": [...], "answers": [ten texts],
"set_name"}`. All ten answers are kept, with their repetitions, because the measure counts them; the
sample's own is the commonest, the first of equals. The answers of the test split are not published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ocrdata.sources.benchmarks.questions import (
    Asked,
    Layout,
    answers_field,
    others,
    text_field,
)

UNUSED = ("question_tokens", "flickr_original_url", "flickr_300k_url", "set_name", "image_classes")


def read(record: Mapping[str, Any]) -> Asked:
    """One question. Raises RejectedRow."""
    answers = answers_field(record)
    distinct = [text for text, _ in Counter(answers).most_common()]
    return Asked(
        image=f"{text_field(record, 'image_id')}.jpg",
        question=text_field(record, "question"),
        answers=distinct,
        facts={"answers": record["answers"]},
        more=others(record, "image_id", "question", "answers", *UNUSED),
    )


LAYOUT = Layout(
    "textvqa",
    "TextVQA's TextVQA_0.5.1_val.json, with --images train_images",
    "CC-BY-4.0",
    read,
)
