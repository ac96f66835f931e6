"""Evaluating a model that has memorised its squares, and mistakes on the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import OcrError, SpecError, TrainError, UsageError, UsageErrors
from ocrdata.storage.locks import Lock
from ocrtrain.commands import evaluate
from ocrtrain.evaluation import answers as answers_module
from ocrtrain.evaluation.generation import STOP_REPEATS, Answer, Decoding
from tests.support import small


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with a checkpoint of the trained model, and `squares-000.tar` beside it."""
    trained = small.trained(tmp_path)
    small.squares(tmp_path)
    return trained.save(tmp_path / "run")


def test_the_default_of_stop_repeats_is_that_of_decoding() -> None:
    words = ["--checkpoint", "run"]
    assert evaluate.build_parser().parse_args(words).stop_repeats == STOP_REPEATS
    assert Decoding().stop_repeats == STOP_REPEATS


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


@pytest.fixture
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples are asked about at a time."""
    monkeypatch.setattr(answers_module, "SAMPLES_AT_ONCE", 2)


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int, number: signal.Signals) -> list[int]:
    """Send this process a signal at the `call`-th group of questions; returns the calls."""
    calls: list[int] = []

    def answer(*arguments: Any) -> list[Answer]:
        calls.append(len(calls))
        if len(calls) - 1 == call:
            signal.raise_signal(number)
        return original(*arguments)

    original = answers_module.answer
    monkeypatch.setattr(answers_module, "answer", answer)
    return calls


@pytest.mark.usefixtures("two_at_once")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_evaluation_is_gone_on_with(
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    spec = str(run_folder.parent / "squares-000.tar")
    specs = ["--shards", spec + "[:5]", spec + "[5:10]"]
    arguments = ["--checkpoint", str(run_folder), *specs, "--exchange", "--out"]
    assert evaluate.main([*arguments, str(run_folder / "whole.jsonl")]) == 0
    whole = capsys.readouterr().out
    out, partial = run_folder / "out.jsonl", run_folder / "out.partial.jsonl"
    with monkeypatch.context() as patch:
        stop_at(patch, 4, number)
        assert evaluate.main([*arguments, str(out)]) == 128 + number
    stopped = capsys.readouterr()
    cause = "Ctrl-C" if number == signal.SIGINT else number.name
    assert stopped.err == (
        f"stopped by {cause}: the answers for 7 of 10 samples are kept in {partial}; the same "
        "command goes on\n"
    )
    assert not out.exists()
    now = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert now == handlers

    with partial.open("ab") as file:
        file.write(b'{"source": "squares-2", "ke')  # what a kill leaves
    calls = stop_at(monkeypatch, -1, number)
    monkeypatch.setattr(evaluate, "validate_loaded", None)  # what was validated is kept, too
    assert evaluate.main([*arguments, str(out)]) == 0
    assert len(calls) == 2, "samples 7 to 9"
    assert out.read_bytes() == (run_folder / "whole.jsonl").read_bytes()
    summaries = [(run_folder / f"{name}.summary.json").read_bytes() for name in ("whole", "out")]
    assert summaries[0] == summaries[1]
    assert not partial.exists()
    told, rest = capsys.readouterr().out.split("\n", 1)
    assert "7 of 10 samples" in told
    assert rest.replace("/out.", "/whole.") == whole


@pytest.mark.usefixtures("two_at_once")
def test_other_options_and_another_checkpoint_are_not_mixed(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_folder / "out.jsonl"
    shards = ["--shards", str(run_folder.parent / "squares-000.tar")]
    fixed = ["--checkpoint", str(run_folder), "--out", str(out)]
    arguments = [*fixed, *shards, "--max-new-tokens", "3"]
    stop_at(monkeypatch, 1, signal.SIGTERM)
    assert evaluate.main(arguments) == 143
    partial = run_folder / "out.partial.jsonl"
    before = partial.read_bytes()
    weights = small.trained(run_folder.parent).model()
    with torch.no_grad():
        weights.gpt.lm_head.weight[0] += 1
    other = small.Trained(weights.state_dict(), 0.0).save(run_folder.parent / "other")
    for changed, fact in (
        ([*arguments, "--max-new-tokens", "4"], "--max-new-tokens 3, not 4"),
        ([*arguments, "--exchange"], "--exchange False, not True"),
        ([*arguments, "--history"], "--history False, not True"),
        ([*arguments, "--stop-repeats", "0"], "--stop-repeats 256, not 0"),
        ([*arguments, "--limit", "3"], "samples "),
        ([*arguments, "--checkpoint", str(other)], "weights "),
    ):
        with pytest.raises(UsageError, match=rf"out\.partial\.jsonl .*{fact}"):
            evaluate.main(changed)
        assert partial.read_bytes() == before
    capsys.readouterr()
    # How much is done at a time is no part of an answer.
    assert evaluate.main([*arguments, "--batch", "1", "--workers", "0"]) == 0
    assert len(lines(out)) == 24


def test_a_stop_before_the_first_answer_says_so(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(run_folder), "--shards"]
    stop_at(monkeypatch, 0, signal.SIGTERM)
    assert evaluate.main([*arguments, str(run_folder.parent / "squares-000.tar")]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM: no answer had been given\n"


def test_with_history_turns_are_asked_as_in_training(run_folder: Path) -> None:
    spec = str(run_folder.parent / "squares-000.tar")
    arguments = ["--checkpoint", str(run_folder), "--shards", spec, "--history", "--exchange"]
    assert evaluate.main(arguments) == 0
    answers = lines(run_folder / "answers-step_000150.jsonl")
    assert [a["turn"] for a in answers] == [0, 1] * 12
    # The model was trained on both questions of a sample in one conversation, too.
    assert all(a["answer"] == a["gold"] for a in answers)


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        (["--limit", "-1"], UsageError, "--limit"),
        (["--batch", "0"], UsageError, "batch"),
        (["--max-new-tokens", "0"], UsageError, "--max-new-tokens 0 must"),
        (["--device", "warp"], UsageError, "'warp'"),
        (["--checkpoint", "nowhere"], UsageError, "--checkpoint nowhere: "),
        (["--checkpoint", "."], TrainError, "no complete checkpoint"),
        (["--shards", "nothing-<000..003>.tar"], SpecError, "nothing"),
        (["--shards", "squares-000.tar[5:5]"], UsageError, "holds no samples"),
        (["--out", "run"], UsageError, "--out run "),
        (["--out", "x.partial.jsonl"], UsageError, r"--out x\.partial\.jsonl: "),
        (["--stop-repeats", "2"], UsageError, "--stop-repeats 2 must"),
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


def benchmark_squares(folder: Path) -> Path:
    """The squares as DocVQA's: two questions each, with a type."""
    names = list(small.COLOURS)
    samples = []
    for number in range(8):
        sample = small.coloured(names[number % len(names)])
        facts = [{"question types": [kind]} for kind in small.QUESTIONS]
        sample.meta["benchmark"] = {"name": "docvqa", "facts": facts}
        samples.append(sample)
    small.write(folder / "doc-000.tar", samples)
    return folder / "doc-000.tar"


def test_a_benchmark_has_its_own_table_beside_the_worst_answers_and_those_without_looking(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = benchmark_squares(run_folder.parent)
    out = run_folder / "doc.jsonl"
    arguments = ["--checkpoint", str(run_folder), "--shards", str(shards), "--exchange"]
    assert evaluate.main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    [summary] = json.loads(out.with_suffix(".summary.json").read_text())["benchmarks"]
    assert (summary["source"], summary["benchmark"]) == ("doc", "docvqa")
    anls = summary["scores"]["ANLS"]
    assert (anls["mean"], anls["number"], anls["method"]) == (1.0, 16, "wilson")
    assert 0.5 < anls["low"] < 0.7 and anls["high"] == 1.0, "of 8 samples"
    assert set(summary["groups"]["question types"]) == set(small.QUESTIONS)
    found = lines(out)
    assert found[0]["benchmark"] == {
        "name": "docvqa", "right": True,
        "values": [["ANLS", 1.0, {"question types": ["colour"]}]],
    }  # fmt: skip
    gains = [float(str(one["gain"])) for one in found if "gain" in one]
    assert len(gains) == 8, "one sample of each colour has a partner"
    assert min(gains[::2]) > 0.5, "the colour; two of them begin with the same letter"
    looking = json.loads(out.with_suffix(".summary.json").read_text())["without_looking"]
    assert looking["asked"] == 8 and looking["right"] == len(looking["questions"])
    assert looking["right"] == sum(bool(anls_of(one)) for one in found if "exchanged" in one)
    assert "DocVQA, 1.0" in printed and "kind of question" not in printed
    assert f"without looking: {looking['right']} of 8" in printed
    page = out.with_suffix(".worst.html").read_text()
    assert "<article>" not in page and "0 answers" in page

    other = ["--benchmark", "none", "--instruction", "Be brief.", "--max-new-tokens", "1"]
    plain = run_folder / "plain.jsonl"
    assert evaluate.main([*arguments[:-1], "--out", str(plain), *other]) == 0
    assert "kind of question" in capsys.readouterr().out
    asked = lines(plain)
    assert all("benchmark" not in one for one in asked)
    assert asked[0]["question"] == f"{small.QUESTIONS['colour']}\nBe brief."
    assert plain.with_suffix(".worst.html").read_text().count("<article>") > 0


def anls_of(line: dict[str, object]) -> float:
    exchanged: Any = line["exchanged"]
    return float(exchanged["benchmark"]["values"][0][1])


def test_an_unknown_benchmark_is_refused(run_folder: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(run_folder), "--benchmark", "mine"]
    with pytest.raises(UsageError, match=r"--benchmark mine.*docvqa"):
        evaluate.main(arguments)
    spec = str(run_folder.parent / "squares-000.tar")
    wrong = ["--shards", spec, "--limit", "1", "--benchmark", "olmocr-bench"]
    with pytest.raises(OcrError, match=r"squares-000\.tar: sample 000000000.*tests"):
        evaluate.main([*arguments[:2], *wrong, "--max-new-tokens", "1"])
    sample = small.coloured("red")
    sample.meta["benchmark"] = {"name": "mine"}
    small.write(tmp_path / "mine-000.tar", [sample])
    spec = str(tmp_path / "mine-000.tar")
    with pytest.raises(OcrError, match=r"mine-000\.tar.*'mine'"):
        evaluate.main([*arguments[:2], "--shards", spec, "--out", str(tmp_path / "o.jsonl")])
