"""ChartQAPro (arXiv 2504.05506), on the hub: ahmed-masry/ChartQAPro, one split `test` of Parquet
files with the columns `Question` and `Answer` (lists), `Question Type`, `Year` (a list of YES and
NO), `Paragraph` and `image` (bytes).

A row is one question, the last of its lists. What comes before it in a conversation, and the
paragraph, are part of the question's text, in the form that lmms-eval gives them:

    Context: PARAGRAPH

    Q1: ...
    A1: ...
    Q2: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ocrdata.errors import RejectedRow
from ocrdata.sample import Sample
from ocrdata.sources.benchmarks.questions import Asked, benchmark_sample, words_field
from ocrdata.sources.hub_source import HubSource, Request
from ocrdata.sources.shapes import ANYTHING, IMAGES, Shape
from ocrdata.sources.table_rows import image_list, only_bytes

REPOSITORY = "ahmed-masry/ChartQAPro"
BENCHMARK = "chartqapro"
CONVERSATIONAL = "Conversational"

COLUMNS = ("Question", "Answer", "Question Type", "Year", "image")


@dataclass(frozen=True)
class ChartQaProRow:
    """Converts a row of the repository to a sample."""

    format: str = BENCHMARK
    shapes: Mapping[str, Shape] = field(
        default_factory=lambda: {
            **dict.fromkeys(("Question", "Answer", "Question Type", "Year", "Paragraph"), ANYTHING),
            "image": IMAGES,
        }
    )
    needed: tuple[str, ...] = COLUMNS

    def __call__(self, row: dict[str, Any]) -> Sample:
        """Raises RejectedRow."""
        images = image_list(row["image"], "image")
        if len(images) != 1:
            raise RejectedRow(f"{len(images)} images, not one")
        image = images[0].get("bytes") if isinstance(images[0], dict) else images[0]
        return benchmark_sample(BENCHMARK, [read(row)], only_bytes(image or ""))


def read(row: Mapping[str, Any]) -> Asked:
    """The last question of a row. Raises RejectedRow."""
    questions, answers = words_field(row, "Question"), words_field(row, "Answer")
    if not questions or not answers or not answers[-1].strip():
        raise RejectedRow("no Question or no Answer")
    kind = row.get("Question Type")
    if not isinstance(kind, str) or not kind:
        raise RejectedRow("no Question Type")
    text = questions[-1].strip()
    if kind == CONVERSATIONAL and len(questions) > 1:
        text = _conversation(questions, answers)
    paragraph = row.get("Paragraph")
    if isinstance(paragraph, str) and paragraph.strip():
        text = f"Context: {paragraph.strip()}\n\n{text}"
    facts = {"question type": kind, "year": words_field(row, "Year")}
    return Asked("", text, answers[-1:], kind, facts)


def _conversation(questions: list[str], answers: list[str]) -> str:
    lines = []
    for number, question in enumerate(questions, 1):
        lines.append(f"Q{number}: {question.strip()}")
        if number < len(questions) and number <= len(answers):
            lines.append(f"A{number}: {answers[number - 1].strip()}")
    return "\n".join(lines)


def chartqapro(*, repository: str, revision: str, recorded: Mapping[str, Any]) -> HubSource:
    """The test split. Raises SourceError and UsageError."""
    request = Request(repository, None, "test", revision)
    return HubSource(BENCHMARK, request, ChartQaProRow(), recorded=recorded)
