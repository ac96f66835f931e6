"""The evaluation of a model that knows its squares by heart, and every mistake it can be given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ocrdata.errors import OcrError, SpecError, TrainError, UsageError
from ocrdata.reader import SampleRef
from ocrdata.sample import Sample, from_turns, text_of
from ocrtrain import evaluate
from ocrtrain.answers import Asker, Exchanged, Record, Tally, turns_of
from ocrtrain.generate import Answer, Decoding
from ocrtrain.scores import score
from tests import small


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with a checkpoint of the trained model, and `squares-000.tar` beside it."""
    trained = small.trained(tmp_path)
    small.squares(tmp_path)
    return trained.save(tmp_path / "run")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_evaluate_prints_scores_and_writes_answers(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(run_folder.parent / "squares-000.tar") + "[:12]"
    arguments = ["--checkpoint", str(run_folder), "--shards", spec, "--exchange"]
    assert evaluate.main(arguments) == 0
    printed = capsys.readouterr().out

    answers = lines(run_folder / "answers-step_000150.jsonl")
    summary = json.loads((run_folder / "answers-step_000150.summary.json").read_text())
    assert len(answers) == 24
    assert [(a["key"], a["turn"]) for a in answers[:3]] == [
        ("000000000", 0), ("000000000", 1), ("000000001", 0)]  # fmt: skip
    assert all(a["answer"] == a["gold"] and a["finished"] for a in answers)
    assert answers[0]["question"] == small.QUESTIONS["colour"]
    assert {a["kind"] for a in answers} == set(small.QUESTIONS)

    for answer in answers:  # the answer to another row's image is that image's own gold
        other = next(
            a for a in answers
            if (a["key"], a["turn"]) == (answer["exchanged"]["key"], answer["turn"])
        )  # fmt: skip
        assert other["key"] != answer["key"]
        assert answer["exchanged"]["answer"] == other["gold"]

    scores = summary["scores"]
    assert scores["all"]["answers"] == 24
    assert scores["all"]["relaxed"] == scores["all"]["exact"] == 1.0
    assert scores["all"]["ned"] == 0.0
    assert scores["all"]["exchanged"]["relaxed"] < 0.6
    assert set(scores["kinds"]) == set(small.QUESTIONS)
    assert scores["cut_off"] == 0
    assert summary["validation"]["val/image_gain"] > 0.5
    for text in ("val/squares_loss", "val/image_gain_head", "colour", "100.0%", "of 24"):
        assert text in printed


def test_limit_out_and_a_step_folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_folder / "new" / "five.jsonl"
    step = run_folder / "checkpoints" / "step_000150"
    spec = str(run_folder.parent / "squares-000.tar")
    arguments = ["--checkpoint", str(step), "--shards", spec, "--limit", "5", "--out", str(out)]
    assert evaluate.main([*arguments, "--batch", "2", "--max-new-tokens", "2"]) == 0
    answers = lines(out)
    assert len(answers) == 10
    assert "exchanged" not in answers[0]
    assert answers[0]["answer"] == "re"
    assert answers[0]["finished"] is False
    assert json.loads(out.with_suffix(".summary.json").read_text())["scores"]["cut_off"] == 5
    assert "5 answers were cut off" in capsys.readouterr().out


def test_text_only_shards_are_evaluated(run_folder: Path) -> None:
    small.write(run_folder.parent / "sums-000.tar", [small.chat(n) for n in range(3)])
    spec = str(run_folder.parent / "sums-000.tar")
    out = run_folder / "sums.jsonl"
    arguments = ["--checkpoint", str(run_folder), "--shards", spec, "--out", str(out)]
    assert evaluate.main([*arguments, "--max-new-tokens", "4"]) == 0
    assert len(lines(out)) == 3
    summary = json.loads(out.with_suffix(".summary.json").read_text())
    assert set(summary["validation"]) == {"val/loss", "val/sums_loss"}
    assert "kinds" not in summary["scores"]
    with pytest.raises(UsageError, match="no two rows"):
        evaluate.main([*arguments, "--exchange"])


def test_evaluating_twice_gives_the_same_bytes(run_folder: Path) -> None:
    spec = str(run_folder.parent / "squares-000.tar")
    written = []
    for name in ("one.jsonl", "two.jsonl"):
        out = run_folder / name
        assert evaluate.main(
            ["--checkpoint", str(run_folder), "--shards", spec, "--exchange", "--out", str(out)]
        ) == 0  # fmt: skip
        written.append(out.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (["--limit", "-1"], UsageError, "--limit"),
        (["--batch", "0"], UsageError, "batch"),
        (["--max-new-tokens", "0"], UsageError, "max_new_tokens"),
        (["--device", "warp"], UsageError, "no device"),
        (["--checkpoint", "nowhere"], TrainError, "no complete checkpoint"),
        (["--shards", "nothing-<000..003>.tar"], SpecError, "nothing"),
        (["--shards", "squares-000.tar[5:5]"], UsageError, "holds no samples"),
        (["--out", "run"], UsageError, "is a folder"),
        (["--out", "squares-000.tar/answers.jsonl"], OcrError, "squares-000.tar"),
    ],
)
def test_mistakes_are_one_line(
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
    error: type[OcrError],
    message: str,
) -> None:
    monkeypatch.chdir(run_folder.parent)
    arguments = ["--checkpoint", "run", "--shards", "squares-000.tar", *extra]
    with pytest.raises(error, match=message):
        evaluate.main(arguments)
    assert not list(run_folder.glob("answers*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(run_folder: Path) -> None:
    with pytest.raises(UsageError, match="CUDA devices"):
        evaluate.main(["--checkpoint", str(run_folder), "--shards", "x", "--device", "cuda"])


def test_the_command_ends_with_status_and_one_line(run_folder: Path) -> None:
    command = [sys.executable, "-m", "ocrtrain.evaluate"]
    arguments = ["--checkpoint", str(run_folder / "absent"), "--shards"]
    spec = str(run_folder.parent / "squares-000.tar")
    done = subprocess.run([*command, *arguments, spec], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "no complete checkpoint" in done.stderr
    typed = subprocess.run([*command, "--shard", "x"], capture_output=True, text=True, check=False)
    assert typed.returncode == 2
    assert typed.stderr.count("\n") == 1


def contents(sample: Sample) -> list[Sequence[str]]:
    """What each question consists of: '#' for an image, else the text."""
    return [
        [part.get("text", "#") for part in turn.messages[-1]["content"]]
        for turn in turns_of(sample)
    ]


def test_every_turn_is_a_question_about_all_images_of_its_row() -> None:
    picture = small.png((1, 2, 3))
    meta = {"kinds": ["title", "value"]}
    sample = from_turns(
        [("A?", "a"), ("B?", "b"), ("C?", "c")], [picture] * 2, source="", meta=meta
    )
    assert contents(sample) == [["#", "#", "A?"], ["#", "#", "B?"], ["#", "#", "C?"]]
    assert [turn.kind for turn in turns_of(sample)] == ["title", "value", "all"]
    assert [turn.gold for turn in turns_of(sample)] == ["a", "b", "c"]

    placed = from_turns([("In <image> what?", "a"), ("B?", "b")], [picture], source="", meta={},
                        placeholder="<image>")  # fmt: skip
    assert contents(placed) == [["In ", "#", " what?"], ["#", "B?"]]

    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    told = Sample(messages=[system, *sample.messages], images=sample.images)
    for turn in turns_of(told):
        assert [message["role"] for message in turn.messages] == ["system", "user"]
        assert text_of(turn.messages[0]) == "Be brief."


def test_images_are_exchanged_within_a_kind_and_never_with_oneself(tmp_path: Path) -> None:
    picture = small.png((1, 2, 3))
    kinds = [["a", "b"], ["a", "a"], ["b", "a"], ["c", "b"], []]
    samples = [
        from_turns([("1?", "x"), ("2?", "y")], [picture], source="", meta={"kinds": found})
        for found in kinds
    ]
    samples.append(from_turns([("1?", "x")], [picture] * 2, source="", meta={"kinds": ["a"]}))
    shards = small.write(tmp_path / "kinds-000.tar", samples)
    asker = Asker(small.untrained(), small.tokenizer(), shards, Decoding(2))
    partners = asker.partners()
    assert {kind: sorted(found) for kind, found in partners.items()} == {
        "a": [0, 1, 2],
        "b": [0, 2, 3],
    }
    for found in partners.values():
        assert sorted(found) == sorted(found.values())
        assert all(position != other for position, other in found.items())

    records = list(asker.records(partners))
    assert len(records) == 11
    assert [r.exchanged is not None for r in records] == [True] * 6 + [False, True] + [False] * 3
    for record in records:
        if record.exchanged is not None:
            wanted = partners[record.kind][record.ref.position]
            assert record.exchanged.ref.position == wanted


def record(kind: str, answer: str, exchanged: str | None) -> Record:
    ref = SampleRef("x-000.tar", "000000001", 1, "0")
    other = None
    if exchanged is not None:
        other = Exchanged(ref, Answer(exchanged, 1, True), score(exchanged, "10"))
    found = Answer(answer, 3, kind != "b")
    return Record(ref, 0, kind, "How many?", "10", found, score(answer, "10"), other)


def test_the_tally_tells_kinds_apart() -> None:
    tally = Tally()
    for one in (record("a", "10", "10"), record("a", "10.4", "7"), record("b", "12", None)):
        tally.add(one)
    summary = tally.summary()
    assert summary["all"]["relaxed"] == pytest.approx(2 / 3)
    assert summary["all"]["exact"] == pytest.approx(1 / 3)
    assert summary["all"]["exchanged"]["answers"] == 2
    assert summary["kinds"]["a"]["relaxed"] == 1.0
    assert summary["kinds"]["a"]["exchanged"]["relaxed"] == 0.5
    assert "exchanged" not in summary["kinds"]["b"]
    assert summary["cut_off"] == 1
    table = tally.table().splitlines()
    assert [line.split()[0] for line in table[1:4]] == ["a", "b", "all"]
    assert table[1].endswith("50.0% of 2")
