"""ChartQA as its authors publish it: folders `train`, `val` and `test`, each with JSON files of
questions (`train_human.json`, `train_augmented.json`) beside a folder `png` of charts.

A question is `{"imgname": NAME, "query": TEXT, "label": VALUE}`. All questions about one chart
become the turns of one sample, in the order of the files' names and of their rows, at the place of
the first of them. The files of questions are held in memory: 32,719 questions take 10 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.names import natural
from ocrdata.sources.annotations import plain_text
from ocrdata.sources.base import ROW_BYTES, attempt, mean_image_bytes, safe_name
from ocrdata.sources.image_files import ImageFolder, digest_of_files
from ocrdata.sources.json_rows import RowFile
from ocrdata.sources.jsonl import parse_record
from ocrdata.storage.location import Location

IMAGES = "png"
SPLIT = "train"
"""The split that is converted unless another is named."""


class ChartQuestion(NamedTuple):
    """One row of a file of questions. `kind` is the end of the file's name, `human` or
    `augmented`."""

    kind: str
    place: str
    row: bytes


def split_folder(path: Path, split: str | None) -> Path:
    """The folder of a split: `path` itself, or one in it. Raises UsageError if it has no images."""
    inside = path / (split or SPLIT)
    folder = inside if split or not (path / IMAGES).is_dir() else path
    if not (folder / IMAGES).is_dir():
        raise UsageError(
            f"{folder / IMAGES}: no such folder; --path is ChartQA's folder, with train, val and "
            f"test (--split), or one of these, with {IMAGES} and JSON files in it"
        )
    return folder


def default_name(path: Path, split: str | None) -> str:
    """The name of the shards: chartqa-val."""
    return safe_name(f"chartqa-{split_folder(path, split).absolute().name}")


class ChartQaFolderSource:
    """The charts of one split. Raises UsageError if the folder is not in this layout."""

    content = ("files", "images_xxh3_128")

    def __init__(self, path: Path, split: str | None) -> None:
        self._folder = split_folder(path, split)
        self.name = default_name(path, split)
        self.split = self._folder.absolute().name
        found = natural(Location.of(file) for file in self._folder.glob("*.json"))
        if not found:
            raise UsageError(f"{self._folder}: no JSON files of questions beside {IMAGES}")
        self._files = [RowFile(file.path) for file in found]
        self._charts: dict[str, list[ChartQuestion]] = {}
        for file in self._files:
            kind = file.path.stem.removeprefix(f"{self.split}_")
            for number, row in file.rows(0, file.count):
                place = f"{file.path.name} row {number}"
                question = ChartQuestion(kind, place, row)
                self._charts.setdefault(_image_name(row) or place, []).append(question)
        self._rows = list(self._charts.values())

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The files of questions by name and content, the charts by their names and sizes."""
        return {
            "format": "chartqa-folder",
            "split": self.split,
            "files": {file.path.name: file.digest for file in self._files},
            "images_xxh3_128": self._images_digest,
            "licence": "GPL-3.0",
        }

    @cached_property
    def _images_digest(self) -> str:
        images = self._folder / IMAGES
        return digest_of_files((name, images / name) for name in sorted(self._charts))

    def count(self) -> int:
        """Number of charts that have a question."""
        return len(self._rows)

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards."""
        text = sum(len(question.row) for row in self._rows[start:stop] for question in row)
        images = mean_image_bytes(self, start, stop)
        return text + round((images + ROW_BYTES) * (stop - start))

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The charts of rows `[start, stop)`."""
        for questions in self._rows[start:stop]:
            yield self._folder / IMAGES / _image_name(questions[0].row)

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; a chart is rejected if any of its questions cannot be used."""
        return attempt(enumerate(self._rows[start:stop], start), self._make)

    def _make(self, questions: list[ChartQuestion]) -> Sample:
        name = _image_name(questions[0].row)
        if not name:
            parse_record(questions[0].row)
            raise RejectedRow(f"{questions[0].place}: no imgname")
        turns, others = [], []
        for question in questions:
            try:
                turns.append(_turn(question.row))
            except RejectedRow as exc:
                raise RejectedRow(f"{question.place}: {exc}") from exc
            record = parse_record(question.row)
            others.append({key: record[key] for key in record.keys() - set(FIELDS)})
        meta: dict[str, Any] = {
            "benchmark": {"name": "chartqa"},
            "imgname": name,
            "kinds": [question.kind for question in questions],
        }
        if any(others):
            meta["questions"] = others
        image = ImageFolder(self._folder / IMAGES).read(name)
        return from_turns(turns, [image], source="chartqa", meta=meta)


FIELDS = ("imgname", "query", "label")


def _image_name(row: bytes) -> str:
    """The image a row is about; "" if it names none."""
    try:
        name = parse_record(row).get("imgname")
    except RejectedRow:
        return ""
    return name if isinstance(name, str) else ""


def _turn(row: bytes) -> tuple[str, str]:
    """Question and answer of a row; numbers are spelled as in the file, not as floats."""
    record = json.loads(row, parse_int=str, parse_float=str)
    query, label = record.get("query"), record.get("label")
    if not isinstance(query, str) or not query.strip():
        raise RejectedRow("no query")
    parts = label if isinstance(label, list) and label else [label]
    return query, ", ".join(plain_text(part, "label") for part in parts)
