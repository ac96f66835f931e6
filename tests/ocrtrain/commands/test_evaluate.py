"""Evaluating a model that has memorised its squares, and mistakes on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ocrdata.errors import OcrError, SpecError, TrainError, UsageError, UsageErrors
from ocrdata.storage.locks import Lock
from ocrtrain.commands import evaluate
from tests.support import small


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

    # Three samples a colour: the first of each is swapped, and none is shown its own colour.
    swapped = [answer for answer in answers if "exchanged" in answer]
    assert [a["key"] for a in swapped[::2]] == [f"{at:09d}" for at in (0, 3, 6, 9)]
    for answer in swapped:  # the answer to a swapped image is the gold answer of that image
        other = next(
            a for a in answers
            if (a["key"], a["turn"]) == (answer["exchanged"]["key"], answer["turn"])
        )  # fmt: skip
        assert other["key"] != answer["key"] and len(swapped) == 8
        assert answer["exchanged"]["answer"] == other["gold"]

    scores = summary["scores"]
    assert scores["all"]["answers"] == 24
    assert scores["all"]["relaxed"] == scores["all"]["exact"] == 1.0
    assert scores["all"]["ned"] == 0.0
    assert scores["all"]["exchanged"]["relaxed"] <= 0.25  # 'g' is correct for green and grey
    assert set(scores["kinds"]) == set(small.QUESTIONS)
    assert scores["cut_off"] == 0
    assert summary["validation"]["val/image_gain"] > 0.5
    for text in ("val/squares_loss", "val/image_gain_head", "colour", "100.0%", "of 8"):
        assert text in printed


def test_limit_out_and_a_checkpoint_folder(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert "5 answers " in capsys.readouterr().out


def test_text_only_shards_are_evaluated(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.write(run_folder.parent / "sums-000.tar", [small.chat(n) for n in range(3)])
    spec = str(run_folder.parent / "sums-000.tar")
    out = run_folder / "sums.jsonl"
    arguments = ["--checkpoint", str(run_folder), "--shards", spec, "--out", str(out)]
    assert evaluate.main([*arguments, "--max-new-tokens", "4"]) == 0
    assert len(lines(out)) == 3
    summary = json.loads(out.with_suffix(".summary.json").read_text())
    assert set(summary["validation"]) == {"val/loss", "val/sums_loss"}
    assert "kinds" not in summary["scores"]
    capsys.readouterr()
    with pytest.raises(UsageError, match=r"^--exchange: "):
        evaluate.main([*arguments, "--exchange"])
    assert capsys.readouterr().out == "", "refused before anything is computed"


def test_several_sources_are_scored_one_by_one_and_together(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.write(run_folder.parent / "sums-000.tar", [small.chat(n) for n in range(3)])
    squares, sums = (str(run_folder.parent / f"{name}-000.tar") for name in ("squares", "sums"))
    out = run_folder / "both.jsonl"
    arguments = ["--checkpoint", str(run_folder), "--out", str(out), "--max-new-tokens", "6"]
    specs = ["--shards", squares + "[3:5]", squares + "[7:8]", sums]
    assert evaluate.main([*arguments, *specs]) == 0
    found = [(line["source"], line["key"]) for line in lines(out)]
    assert [one for at, one in enumerate(found) if at == 0 or one != found[at - 1]] == [
        ("squares", "000000003"), ("squares", "000000004"), ("squares-2", "000000007"),
        ("sums", "000000000"), ("sums", "000000001"), ("sums", "000000002"),
    ]  # fmt: skip
    summary = json.loads(out.with_suffix(".summary.json").read_text())
    assert set(summary["validation"]) >= {
        "val/loss", "val/squares_loss", "val/squares-2_loss", "val/sums_loss"
    }  # fmt: skip
    answers = {name: own["all"]["answers"] for name, own in summary["sources"].items()}
    assert answers == {"squares": 4, "squares-2": 2, "sums": 3}
    assert summary["scores"]["all"]["answers"] == 9 and summary["samples"] == 6
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in ("squares", "squares-2", "sums")] == list(answers)


def test_without_shards_the_runs_own_validation_is_evaluated(run_folder: Path) -> None:
    arguments = ["--checkpoint", str(run_folder), "--max-new-tokens", "2", "--limit", "3"]
    with pytest.raises(UsageError, match=r"--shards is missing: .*step_000150"):
        evaluate.main(arguments)
    spec = str(run_folder.parent / "squares-000.tar")
    values = {"source": (f"mine={spec}[:8]:1",), "val_source": (f"mine={spec}[8:]",)}
    small.trained(run_folder.parent).save(run_folder.parent / "named", **values)
    arguments[1] = str(run_folder.parent / "named")
    assert evaluate.main(arguments) == 0
    answers = lines(run_folder.parent / "named" / "answers-step_000150.jsonl")
    assert {(line["source"], line["key"]) for line in answers} == {
        ("mine", f"{at:09d}") for at in (8, 9, 10)
    }


def test_no_other_file_is_overwritten(run_folder: Path) -> None:
    shards = run_folder.parent / "squares-000.tar"
    arguments = ["--checkpoint", str(run_folder), "--max-new-tokens", "1", "--shards"]
    own, metrics = run_folder / "own.jsonl", run_folder / "metrics.jsonl"
    for _ in range(2):  # the same samples again: the same file
        assert evaluate.main([*arguments, f"{shards}[:2]", "--out", str(own)]) == 0
    metrics.write_text('{"step": 0}\n')
    before = {path: path.read_bytes() for path in (shards, own, metrics)}
    for spec, out, message in (
        (f"{shards}[:2]", shards, r"--out .*squares-000\.tar: .*\.jsonl"),
        (f"{shards}[:2]", metrics, r"--out .*metrics\.jsonl .*not an answers file"),
        (f"{shards}[:3]", own, r"own\.jsonl .*squares-000\.tar\[0:2\]; .*--out"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate.main([*arguments, spec, "--out", str(out)])
    assert {path: path.read_bytes() for path in before} == before


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
        (["--device", "warp"], UsageError, "'warp'"),
        (["--checkpoint", "nowhere"], UsageError, "--checkpoint nowhere: "),
        (["--checkpoint", "."], TrainError, "no complete checkpoint"),
        (["--shards", "nothing-<000..003>.tar"], SpecError, "nothing"),
        (["--shards", "squares-000.tar[5:5]"], UsageError, "holds no samples"),
        (["--out", "run"], UsageError, "--out run "),
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


def test_all_mistakes_are_told(run_folder: Path) -> None:
    gone = [str(run_folder / name) for name in ("a", "b.json")]
    with pytest.raises(UsageErrors) as caught:
        evaluate.main(["--checkpoint", gone[0], "--shards", gone[1], "--limit", "x", "--workers",
                       "-1", "--batch", "0", "--out", "here.txt", "--device", "warp"])  # fmt: skip
    told = caught.value.messages
    assert len(told) == 7
    for fact in ("--limit", "--workers", "--out here.txt", "'warp'", *gone):
        assert len([line for line in told if fact in line]) >= 1, fact


def test_the_document_is_the_summary(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(run_folder.parent / "squares-000.tar") + "[:2]"
    words = ["--checkpoint", str(run_folder), "--shards", spec, "--max-new-tokens", "1", "--json"]
    assert evaluate.main(words) == 0
    printed = capsys.readouterr()
    file = run_folder / "answers-step_000150.summary.json"
    assert json.loads(printed.out) == json.loads(file.read_text())
    assert str(file) in printed.err


def test_a_file_that_another_evaluation_writes_is_refused(run_folder: Path) -> None:
    out = run_folder.parent / "same.jsonl"
    spec = str(run_folder.parent / "squares-000.tar")
    with (
        Lock(out.with_name(".same.jsonl.lock"), "it"),
        pytest.raises(UsageError, match=r"--out .*same\.jsonl"),
    ):
        evaluate.main(["--checkpoint", str(run_folder), "--shards", spec, "--out", str(out)])
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_an_error(run_folder: Path) -> None:
    with pytest.raises(UsageError, match="CUDA devices"):
        evaluate.main(["--checkpoint", str(run_folder), "--shards", "x", "--device", "cuda"])


def test_the_command_reports_errors_in_one_line(run_folder: Path) -> None:
    command = [sys.executable, "-m", "ocrtrain.evaluate"]
    arguments = ["--checkpoint", str(run_folder / "absent"), "--shards"]
    spec = str(run_folder.parent / "squares-000.tar")
    done = subprocess.run([*command, *arguments, spec], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: --checkpoint ")
    typed = subprocess.run([*command, "--shard", "x"], capture_output=True, text=True, check=False)
    assert typed.returncode == 2
    lines = typed.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
