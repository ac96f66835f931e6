"""Benchmarks of one JSON file: one sample an image, what the measure needs, mistakes."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocrdata.commands import make_shards
from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, text_of
from ocrdata.sources.benchmarks.questions import (
    Asked,
    Layout,
    QuestionFileSource,
    answers_field,
    default_name,
    text_field,
)
from tests.support.numbered import square


def read(record: Mapping[str, Any]) -> Asked:
    return Asked(
        text_field(record, "image"),
        text_field(record, "question"),
        answers_field(record),
        kind=str(record.get("kind", "")),
        facts={"n": record["n"]},
        more={"id": record["id"]} if "id" in record else {},
    )


LAYOUT = Layout("letters", "letters.json", "MIT", read)

RECORDS = [
    {"image": "in/b.png", "question": "B?", "answers": ["b", "B"], "n": 1, "kind": "x", "id": 7},
    {"image": "in/a.png", "question": "A?", "answers": "a", "n": 2, "kind": "y"},
    {"image": "in/b.png", "question": "B again?", "answers": ["b"], "n": 3, "kind": "y"},
    {"image": "in/none.png", "question": "?", "answers": ["none"], "n": 4},
    {"image": "in/a.png", "question": "A once more?", "answers": [], "n": 5},
    {"question": "where?", "answers": ["nowhere"], "n": 6},
]


def write(folder: Path, records: object, name: str = "letters_val_1.0.json") -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for letter, colour in (("a", "red"), ("b", "blue")):
        (folder / "in" / f"{letter}.png").write_bytes(square(colour))
    path = folder / name
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    return path


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_questions_about_an_image_are_the_turns_of_one_sample(
    tmp_path: Path, wrapped: bool
) -> None:
    path = write(tmp_path, {"version": 1, "data": RECORDS} if wrapped else RECORDS)
    source = QuestionFileSource(LAYOUT, path)
    found = dict(source.rows(0, source.count()))
    assert source.name == "letters-val" and list(found) == [0, 1, 2, 3, 4]
    sample = found[0]
    assert isinstance(sample, Sample)
    assert [text_of(m) for m in sample.messages] == ["B?", "b", "B again?", "b"]
    assert sample.images == [square("blue")]
    assert sample.meta == {
        "benchmark": {"name": "letters", "facts": [{"n": 1}, {"n": 3}]},
        "golds": [["B"], []],
        "image": "in/b.png",
        "kinds": ["x", "y"],
        "questions": [{"id": 7}, {}],
    }
    assert isinstance(found[1], Sample) and found[1].turns == 1, "its other record is alone"
    reasons = [str(found[row]) for row in (2, 3, 4)]
    assert "in/none.png" in reasons[0]
    assert "record 4" in reasons[1] and "answers" in reasons[1]
    assert "record 5" in reasons[2] and "no image" in reasons[2]
    assert dict(pickle.loads(pickle.dumps(source)).rows(0, 5))[0] == sample
    assert {"a.png", "b.png", "none.png"} < {file.name for file in source.files(0, 5)}


def test_what_the_rows_depend_on(tmp_path: Path) -> None:
    before = QuestionFileSource(LAYOUT, write(tmp_path, RECORDS)).provenance
    assert before["format"] == "letters" and before["licence"] == "MIT"
    assert QuestionFileSource(LAYOUT, write(tmp_path, {"data": RECORDS})).provenance == before
    changed = QuestionFileSource(LAYOUT, write(tmp_path, RECORDS[:3])).provenance
    assert changed["records_xxh3_128"] != before["records_xxh3_128"]
    (tmp_path / "in" / "none.png").write_bytes(square("green"))
    other = QuestionFileSource(LAYOUT, write(tmp_path, RECORDS)).provenance
    assert other["images_xxh3_128"] != before["images_xxh3_128"]


def test_the_size_is_not_underestimated(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS[:1])
    source = QuestionFileSource(LAYOUT, path)
    sample = next(iter(dict(source.rows(0, 1)).values()))
    assert isinstance(sample, Sample)
    assert source.size(0, 1) > len(sample.to_json()) + len(sample.images[0])


@pytest.mark.parametrize("text", ['{"data": 3}', "[1, 2]", "[{]", "3", '{"rows": []}'])
def test_a_file_that_is_no_list_of_records(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"letters_val_1\.0\.json"):
        QuestionFileSource(LAYOUT, write(tmp_path, text))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"letters\.json"):
        QuestionFileSource(LAYOUT, tmp_path / "absent.json")
    with pytest.raises(UsageError, match="--images"):
        path = write(tmp_path, RECORDS)
        QuestionFileSource(LAYOUT, path, images=tmp_path / "absent")


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    text = json.dumps(RECORDS[:1]).replace('"n": 1', '"n": NaN, "m": 1e999')
    found = dict(QuestionFileSource(LAYOUT, write(tmp_path, text)).rows(0, 1))[0]
    assert isinstance(found, Sample) and found.meta["benchmark"]["facts"] == [{"n": None}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_v1.0_withQT.json", "letters-val"),
        ("infographicsVQA_train_v1.0.json", "letters-train"),
        ("TextVQA_0.5.1_val.json", "letters-val"),
        ("OCRBench.json", "letters"),
    ],
)
def test_names_say_the_split(name: str, expected: str) -> None:
    assert default_name(LAYOUT, Path(name)) == expected


@pytest.mark.parametrize("answers", [None, 3, [], [""], ["a", 1], {"a": 1}])
def test_answers_that_are_none(answers: object) -> None:
    with pytest.raises(RejectedRow, match="answers"):
        answers_field({"answers": answers})


def test_make_shards_writes_a_set_that_reads_back(tmp_path: Path) -> None:
    """Through the command, in DocVQA's layout."""
    record = {"image": "in/a.png", "question": "A?", "answers": ["a", "A"], "questionId": 3,
              "question_types": ["form"], "docId": 9}  # fmt: skip
    path = write(tmp_path, {"data": [record]}, "val_v1.0_withQT.json")
    words = ["docvqa", "--path", str(path), "--out", str(tmp_path / "shards"), "--workers", "1"]
    assert make_shards.main(words) == 0
    [sample] = open_shards(str(tmp_path / "shards" / "docvqa-val.json"))
    assert sample.meta["benchmark"] == {"name": "docvqa", "facts": [{"question types": ["form"]}]}
    assert sample.meta["questions"] == [{"questionId": 3, "docId": 9}]
