from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ocrdata.commands import make_shards as tool
from ocrdata.errors import RejectedRow, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, text_of
from ocrdata.shards.manifest import read_manifest
from ocrdata.sources.chartqa_folder import ChartQaFolderSource, default_name
from tests.support.numbered import square

HUMAN = [
    {"imgname": "10.png", "query": "How many bars?", "label": "3"},
    {"imgname": "10.png", "query": "What is the sum?", "label": "0.50"},
    {"imgname": "9.png", "query": "Which two?", "label": "[A, B]"},
]
AUGMENTED = [
    {"imgname": "two words.png", "query": "Share?", "label": "7%"},
    {"imgname": "9.png", "query": "Which year?", "label": "1999"},
]

CHARTQA = {"name": "chartqa"}


def png(name: str) -> bytes:
    return square("red", (20 + len(name), 10))


def chartqa(folder: Path, **splits: dict[str, Any]) -> Path:
    """The layout that ChartQA is published in; `splits` has the files of questions of each."""
    for split, files in splits.items():
        for inner in ("png", "tables", "annotations"):
            (folder / split / inner).mkdir(parents=True)
        (folder / split / "tables" / "10.csv").write_text("a,b\n")
        (folder / split / "annotations" / "10.json").write_text("{}")
        for kind, questions in files.items():
            file = folder / split / f"{split}_{kind}.json"
            file.write_text(questions if isinstance(questions, str) else json.dumps(questions))
        for name in ("10.png", "9.png", "two words.png", "unused.png"):
            (folder / split / "png" / name).write_bytes(png(name))
    return folder


def turns(sample: Sample) -> list[tuple[str, str]]:
    texts = list(map(text_of, sample.messages))
    return list(zip(texts[::2], texts[1::2], strict=True))


def rows(source: ChartQaFolderSource) -> list[Sample | RejectedRow]:
    return [result for _, result in source.rows(0, source.count())]


def test_the_questions_about_one_chart_are_the_turns_of_one_sample(tmp_path: Path) -> None:
    chartqa(tmp_path, train={"human": HUMAN, "augmented": AUGMENTED})
    source = ChartQaFolderSource(tmp_path, None)
    samples = [result for result in rows(source) if isinstance(result, Sample)]
    assert source.count() == len(samples) == 3
    assert [(sample.meta, turns(sample)) for sample in samples] == [
        ({"benchmark": CHARTQA, "imgname": "two words.png", "kinds": ["augmented"]},
         [("Share?", "7%")]),
        ({"benchmark": CHARTQA, "imgname": "9.png", "kinds": ["augmented", "human"]},
         [("Which year?", "1999"), ("Which two?", "[A, B]")]),
        ({"benchmark": CHARTQA, "imgname": "10.png", "kinds": ["human", "human"]},
         [("How many bars?", "3"), ("What is the sum?", "0.50")]),
    ]  # fmt: skip
    assert [sample.images for sample in samples] == [
        [png(sample.meta["imgname"])] for sample in samples
    ]
    assert {sample.source for sample in samples} == {"chartqa"}
    assert samples[0].messages[0]["content"][0] == {"type": "image"}
    sent = pickle.loads(pickle.dumps(source))
    assert rows(sent) == rows(source)


def test_each_split_is_a_set_of_its_own(tmp_path: Path) -> None:
    chartqa(tmp_path, train={"human": HUMAN}, val={"human": HUMAN[2:]}, test={"human": HUMAN[:1]})
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        inside = ChartQaFolderSource(tmp_path / split, None)
        source = ChartQaFolderSource(tmp_path, split)
        assert source.count() == inside.count() == count
        assert source.provenance == inside.provenance
        assert default_name(tmp_path, split) == default_name(tmp_path / split, None)
        assert inside.name == f"chartqa-{split}"
    assert ChartQaFolderSource(tmp_path, None).split == "train"


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        ("7", "7"), ("", ""), (7, "7"), (-3, "-3"), (True, "true"), (["7"], "7"),
        (["A", 2, "C"], "A, 2, C"), ("naïve 東京", "naïve 東京"),
    ],
)  # fmt: skip
def test_labels_of_any_type(tmp_path: Path, label: Any, answer: str) -> None:
    questions = [{"imgname": "9.png", "query": "q", "label": label}]
    chartqa(tmp_path, val={"human": questions})
    (sample,) = rows(ChartQaFolderSource(tmp_path, "val"))
    assert isinstance(sample, Sample) and turns(sample) == [("q", answer)]


@pytest.mark.parametrize("number", ["0.10", "1e3", "12345678901234567890.5", "100000000000000000"])
def test_numbers_are_spelled_as_in_the_file(tmp_path: Path, number: str) -> None:
    chartqa(tmp_path, val={"human": f'[{{"imgname": "9.png", "query": "q", "label": {number}}}]'})
    (sample,) = rows(ChartQaFolderSource(tmp_path, "val"))
    assert isinstance(sample, Sample) and turns(sample) == [("q", number)]


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"query": "q", "label": "a"}, "val_human.json row 1: no imgname"),
        (
            {"benchmark": CHARTQA, "imgname": 5, "query": "q", "label": "a"},
            "val_human.json row 1: no imgname",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "a.png", "label": "a"},
            "val_human.json row 1: no query",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "a.png", "query": "q"},
            "val_human.json row 1: label, the answer, is null",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "a.png", "query": "q", "label": {}},
            "row 1: label, the answer, is an object",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "a.png", "query": "q", "label": []},
            "row 1: label, the answer, is a list",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "a.png", "query": "q", "label": "a"},
            "a.png: no such file",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "../x.png", "query": "q", "label": "a"},
            "outside the image folder",
        ),
        (
            {"benchmark": CHARTQA, "imgname": "\ud800.png", "query": "q", "label": "a"},
            "no file can have such a name",
        ),
        ("text", "not a JSON object"),
    ],
)
def test_charts_that_are_rejected(tmp_path: Path, question: Any, reason: str) -> None:
    chartqa(tmp_path, val={"human": [HUMAN[0], question]})
    source = ChartQaFolderSource(tmp_path, "val")
    fine, bad = rows(source)
    assert isinstance(fine, Sample) and isinstance(bad, RejectedRow)
    assert reason in str(bad)
    assert source.provenance["files"].keys() == {"val_human.json"}


def test_other_fields_of_a_question_are_kept(tmp_path: Path) -> None:
    chartqa(tmp_path, val={"human": [{**HUMAN[0], "id": 5}, HUMAN[1]]})
    (sample,) = rows(ChartQaFolderSource(tmp_path, "val"))
    assert isinstance(sample, Sample) and sample.meta["questions"] == [{"id": 5}, {}]


def test_folders_in_another_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train/png: no such folder; --path is ChartQA's folder"):
        ChartQaFolderSource(tmp_path, None)
    with pytest.raises(UsageError, match=r"val/png: no such folder"):
        ChartQaFolderSource(chartqa(tmp_path, train={"human": HUMAN}), "val")
    (tmp_path / "bare" / "png").mkdir(parents=True)
    with pytest.raises(UsageError, match="no JSON files of questions beside png"):
        ChartQaFolderSource(tmp_path / "bare", None)
    chartqa(tmp_path / "torn", val={"human": '[{"imgname": "9.png", "query": "q", '})
    with pytest.raises(SourceError, match=r"val_human\.json"):
        ChartQaFolderSource(tmp_path / "torn", "val")


def test_the_provenance_changes_with_questions_and_charts(tmp_path: Path) -> None:
    def provenance(name: str, questions: Any, chart: bytes) -> Any:
        folder = chartqa(tmp_path / name, val={"human": questions})
        (folder / "val" / "png" / "10.png").write_bytes(chart)
        return ChartQaFolderSource(folder, "val").provenance

    before = provenance("a", HUMAN, png("10.png"))
    assert provenance("b", HUMAN, png("10.png")) == before
    assert provenance("c", HUMAN[:2], png("10.png")) != before
    assert provenance("d", HUMAN, png("a longer name")) != before


def test_the_command_makes_shards_of_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chartqa(tmp_path / "ChartQA Dataset", val={"human": HUMAN, "augmented": AUGMENTED})
    out = tmp_path / "out"
    words = ["chartqa-folder", "--path", str(tmp_path / "ChartQA Dataset"), "--split", "val"]
    assert tool.main([*words, "--out", str(out), "--workers", "1"]) == 0
    assert "3 samples of 3 rows, 3 images, 5 turns" in capsys.readouterr().out
    shards = open_shards(str(out / "chartqa-val-000.tar"))
    assert turns(shards[2]) == [("How many bars?", "3"), ("What is the sum?", "0.50")]
    assert "'ChartQA Dataset'" in read_manifest(out / "chartqa-val.json").provenance["command"]
