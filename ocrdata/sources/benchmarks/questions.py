"""Benchmarks whose questions are in one JSON file, about images in a folder.

The file is a list of records, or an object with the list under `data`. All questions about one
image become the turns of one sample, at the place of the first of them, so that the image is stored
and encoded once; a record that cannot be used is a row of its own, which is rejected. The file is
held in memory: 50,000 questions take 60 MB.

To add a benchmark, write a file beside this one with a `Layout` (its name, its licence, a function
that reads a record), add it to `registry.LAYOUTS` here and to `ocrdata.sources.registry`, and its
measure to `ocrtrain.evaluation.benchmarks`. What the function returns beside question and answers:

- `kind`, by which answers are grouped in every table and images are exchanged within,
- `facts`, JSON values that the measure needs, such as the list of all answers with its repetitions.

They are stored in the sample's meta: `benchmark.name`, `benchmark.facts` (one object for each
turn), `kinds`, and `golds`, the right answers beside the first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ocrdata.errors import RejectedRow, ShardError, SourceError, UsageError
from ocrdata.sample import Sample, from_turns
from ocrdata.sources.base import ROW_BYTES, attempt, mean_image_bytes, safe_name
from ocrdata.sources.image_files import ImageFolder, digest_of_files
from ocrdata.storage.files import read_file
from ocrdata.storage.sealed import canonical, digest_of

RECORDS = "data"
"""The field that holds the records where the file is an object."""

SPLITS = ("train", "validation", "val", "dev", "test")


@dataclass(frozen=True)
class Asked:
    """One question as a layout's record states it; `answers` are all right ones, of which the first
    is the sample's. `more` is what else of the record goes to the meta."""

    image: str
    question: str
    answers: Sequence[str]
    kind: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How a benchmark is published. `read` makes a question of a record, or raises RejectedRow; it
    must be a function of a module, since sources are sent to other processes."""

    benchmark: str
    text: str
    """For the help: what it is, and which file and folder."""
    licence: str
    read: Callable[[Mapping[str, Any]], Asked]


class Row(NamedTuple):
    """The questions about one image, each with its number in the file."""

    image: str
    questions: list[tuple[int, Mapping[str, Any]]]


def default_name(layout: Layout, path: Path) -> str:
    """The name of the shards: docvqa-val, by the split that the file is named after."""
    words = re.split("[^a-z]+", path.stem.lower())
    split = next((word for word in words if word in SPLITS), "")
    return safe_name(f"{layout.benchmark}-{split}" if split else layout.benchmark)


class QuestionFileSource:
    """The questions of one file. `images` is the folder that image names are relative to (default:
    that of the file).

    Raises UsageError for a missing file or folder, SourceError if the file is not such a list.
    """

    content = ("records_xxh3_128", "images_xxh3_128")

    def __init__(self, layout: Layout, path: Path, *, images: Path | None = None) -> None:
        self._layout, self._folder = layout, images or path.parent
        if not path.is_file():
            raise UsageError(f"{path}: no such file; --path is {layout.text}")
        if not self._folder.is_dir():
            raise UsageError(f"{self._folder}: no such folder (--images)")
        self.name = default_name(layout, path)
        records = read_records(path)
        self._digest = digest_of(canonical(records))
        rows: dict[str, Row] = {}
        for number, record in enumerate(records):
            try:
                image = layout.read(record).image
            except RejectedRow:
                image = f"record {number}"  # a row of its own, which is rejected
            rows.setdefault(image, Row(image, [])).questions.append((number, record))
        self._rows = list(rows.values())

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The records by their content, the images by their names and sizes."""
        return {
            "format": self._layout.benchmark,
            "records_xxh3_128": self._digest,
            "images_xxh3_128": self._images_digest,
            "licence": self._layout.licence,
        }

    @cached_property
    def _images_digest(self) -> str:
        names = sorted(row.image for row in self._rows)
        return digest_of_files((name, self._folder / name) for name in names)

    def count(self) -> int:
        """Number of images with a question."""
        return len(self._rows)

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards."""
        rows = self._rows[start:stop]
        text = sum(len(json.dumps(record)) for row in rows for _, record in row.questions)
        return 2 * text + round((mean_image_bytes(self, start, stop) + ROW_BYTES) * len(rows))

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The images of rows `[start, stop)`."""
        for row in self._rows[start:stop]:
            try:
                yield ImageFolder(self._folder).find(row.image)
            except RejectedRow:
                continue

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; a record that is no question is a row of its own, rejected."""
        return attempt(enumerate(self._rows[start:stop], start), self._make)

    def _make(self, row: Row) -> Sample:
        asked = []
        for number, record in row.questions:
            try:
                asked.append(self._layout.read(record))
            except RejectedRow as exc:
                raise RejectedRow(f"record {number}: {exc}") from exc
        image = ImageFolder(self._folder).read(row.image)
        return benchmark_sample(self._layout.benchmark, asked, image)


def benchmark_sample(benchmark: str, asked: Sequence[Asked], image: bytes) -> Sample:
    """The sample of the questions about one image."""
    meta: dict[str, Any] = {
        "benchmark": {"name": benchmark, "facts": [dict(one.facts) for one in asked]},
        "golds": [list(one.answers[1:]) for one in asked],
    }
    if asked[0].image:
        meta["image"] = asked[0].image
    if any(one.kind for one in asked):
        meta["kinds"] = [one.kind for one in asked]
    if any(one.more for one in asked):
        meta["questions"] = [dict(one.more) for one in asked]
    turns = [(one.question, one.answers[0]) for one in asked]
    return from_turns(turns, [image], source=benchmark, meta=meta)


def read_json(path: Path) -> Any:
    """A JSON file; NaN and infinities become null. Raises SourceError."""
    try:
        return json.loads(read_file(path), parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise SourceError(f"{path}: invalid JSON: {exc}"[:300]) from exc
    except ShardError as exc:
        raise SourceError(f"{path}: not a regular file") from exc
    except OSError as exc:
        raise SourceError(f"{path}: {exc.strerror}") from exc


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file. Raises SourceError."""
    value = read_json(path)
    records = value.get(RECORDS) if isinstance(value, dict) else value
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise SourceError(
            f"{path}: neither a list of objects nor an object with such a list under {RECORDS!r}"
        )
    return records


def text_field(record: Mapping[str, Any], name: str) -> str:
    """A field that must be a text with something in it. Raises RejectedRow."""
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RejectedRow(f"no {name}: it is {value!r:.60}")
    return value


def answers_field(record: Mapping[str, Any], name: str = "answers") -> list[str]:
    """A field that must be a text, or a list of texts, none of them empty. Raises RejectedRow."""
    value = record.get(name)
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise RejectedRow(f"no {name} (those of a test split may be unpublished): {value!r:.60}")
    answers = [one for one in answers if one.strip()]
    if not answers:
        raise RejectedRow(f"{name} are empty")
    return answers


def words_field(record: Mapping[str, Any], name: str) -> list[str]:
    """A field that may be missing, a text or a list of texts: labels of a question."""
    value = record.get(name)
    found = [value] if isinstance(value, str) else value
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def others(record: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """The fields of a record that are not used otherwise and hold something."""
    return {
        name: value
        for name, value in record.items()
        if name not in used and value not in (None, "", [], {})
    }
