"""Asking a trained model a question."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrdata.errors import ImageError, OcrError, TrainError, UsageError, UsageErrors
from ocrdata.sources.jsonl import RecordFormat
from ocrtrain.commands import ask
from ocrtrain.evaluation.generation import STOP_REPEATS, Answer, Question
from tests.support import small


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of the trained model with pictures beside it."""
    for name, colour in small.COLOURS.items():
        (tmp_path / f"{name}.png").write_bytes(small.png(colour))
    (tmp_path / "truncated.png").write_bytes(small.png((0, 0, 0))[:40])
    (tmp_path / "note.txt").write_text("not an image")
    return small.trained(tmp_path).save(tmp_path / "run")


@pytest.mark.parametrize("name", list(small.COLOURS))
def test_only_the_answer_is_printed(
    run_folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    image = str(run_folder.parent / f"{name}.png")
    for question, expected in (("colour", name), ("first", name[0])):
        arguments = ["--checkpoint", str(run_folder), "--image", image, small.QUESTIONS[question]]
        assert ask.main(arguments) == 0
        assert capsys.readouterr() == (f"{expected}\n", "")


def test_text_only_several_images_and_a_checkpoint_folder(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = ["--checkpoint", str(run_folder / "checkpoints" / "step_000150")]
    assert ask.main([*step, "--max-new-tokens", "5", "5+1?"]) == 0
    assert capsys.readouterr().out.endswith("\n")
    images = [
        argument
        for name in ("red", "blue")
        for argument in ("--image", str(run_folder.parent / f"{name}.png"))
    ]
    assert ask.main([*step, *images, "--max-new-tokens", "5", "Which?"]) == 0


def test_a_question_is_what_a_record_with_its_text_is(tmp_path: Path) -> None:
    cases = [
        ("What?", 2),
        ("Before: <image> After: <image>\nWhat changed?", 2),
        ("What is it?\n<image>", 1),
        ("<image>\nWhat?", 1),
        ("What?", 0),
    ]
    rows = [
        {"images": [f"{number}.png" for number in range(images)],
         "messages": [{"role": "system", "content": "Be brief."},
                      {"role": "user", "content": question},
                      {"role": "assistant", "content": "It."}]}
        for question, images in cases
    ]  # fmt: skip
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(small.png((1, 2, number)))
    record_of = RecordFormat(tmp_path, "asked")
    records = [record_of(json.dumps(row).encode()) for row in rows]
    for (question, images), record in zip(cases, records, strict=True):
        asked = ask.conversation(question, images, "Be brief.")
        assert asked == record.messages[:-1]
        assert ask.conversation(question, images) == asked[1:]


def test_the_place_of_the_images_and_the_system_message_are_asked(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ocrtrain.evaluation import generation

    asked: list[Question] = []

    def answer(model: object, tokenizer: object, questions: list[Question], _: object) -> list[Any]:
        asked.extend(questions)
        return [Answer("Nothing.", 3, True)]

    monkeypatch.setattr(generation, "answer", answer)
    folder = run_folder.parent
    arguments = ["--image", str(folder / "red.png"), "--image", str(folder / "blue.png")]
    question = "Before: <image>, after: <image>"
    words = ["--checkpoint", str(run_folder), *arguments, "--system", "Be brief.", question]
    assert ask.main(words) == 0
    assert capsys.readouterr().out == "Nothing.\n"
    (one,) = asked
    assert one.messages == ask.conversation(question, 2, "Be brief.")
    assert [tuple(image[0, 0].tolist()) for image in one.images] == [
        small.COLOURS["red"], small.COLOURS["blue"],
    ]  # fmt: skip


def test_an_endless_answer_is_stopped(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(run_folder.parent / "red.png")
    # Asked what it has never read, the model says one thing for ever.
    words = ["--checkpoint", str(run_folder), "--image", image, "--json"]
    parser = ask.build_parser()
    assert parser.parse_args([*words, "?"]).stop_repeats == STOP_REPEATS
    with torch.no_grad():
        loop = small.trained(run_folder.parent).model()
        loop.gpt.lm_head.weight.zero_()
    small.Trained(loop.state_dict(), 0.0).save(run_folder)
    assert ask.main([*words, "--stop-repeats", "16", "Which colour?"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["tokens"], document["finished"], document["repeats"]) == (1, False, True)
    assert ask.main([*words[:-1], "--stop-repeats", "16", "Which colour?"]) == 0
    assert "--stop-repeats" in capsys.readouterr().err


def test_a_cut_off_answer_is_reported_on_standard_error(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(run_folder.parent / "red.png")
    arguments = ["--checkpoint", str(run_folder), "--image", image, small.QUESTIONS["colour"]]
    assert ask.main([*arguments, "--max-new-tokens", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "re\n"
    assert "cut off after 2 tokens" in printed.err


def test_the_document_has_the_answer(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = str(run_folder.parent / "red.png")
    words = ["--checkpoint", str(run_folder), "--image", image, small.QUESTIONS["colour"]]
    for more, answer, finished in (([], "red", True), (["--max-new-tokens", "2"], "re", False)):
        assert ask.main([*words, *more, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["answer"], document["finished"]) == (answer, finished)
        assert document["question"] == small.QUESTIONS["colour"]
        assert document["checkpoint"].endswith("step_000150")


def test_all_mistakes_are_told(run_folder: Path) -> None:
    gone = [str(run_folder / name) for name in ("a.png", "b.png", "run")]
    with pytest.raises(UsageErrors) as caught:
        ask.main(["--image", gone[0], "--image", gone[1], "--checkpoint", gone[2], "--device",
                  "warp", "--max-new-tokens", "x"])  # fmt: skip
    told = caught.value.messages
    assert len(told) == 6
    for fact in ("question", "--max-new-tokens", "'warp'", *gone):
        assert len([line for line in told if fact in line]) == 1, fact


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["  "], UsageError, "question is empty"),
        (["<image> Which?"], UsageError, "1 <image>, .* 0 --image"),
        (["<image> <image>?", "--image", "red.png"], UsageError, "2 <image>, .* 1 --image"),
        (["Which?", "--stop-repeats", "1"], UsageError, "--stop-repeats 1 must"),
        (["Which?", "--image", "absent.png"], UsageError, "absent.png: No such file"),
        (
            ["Which?", "--image", "run"],
            UsageError,
            "--image run: a folder, .* must be an image file",
        ),
        (["Which?", "--image", "truncated.png"], ImageError, "truncated.png"),
        (["Which?", "--image", "note.txt"], ImageError, "note.txt: not an image"),
        (["Which?", "--checkpoint", "."], TrainError, "no complete checkpoint"),
        (["Which?", "--device", "warp"], UsageError, "'warp'"),
        (["Which?", "--max-new-tokens", "0"], UsageError, "--max-new-tokens 0 must"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[OcrError],
    message: str,
) -> None:
    monkeypatch.chdir(run_folder.parent)
    with pytest.raises(error, match=message):
        ask.main(["--checkpoint", "run", *arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(UsageError, match="CUDA devices"):
        ask.main(["Which?", "--checkpoint", "run", "--device", "cuda"])


def test_a_damaged_checkpoint_is_refused(run_folder: Path) -> None:
    weights = run_folder / "checkpoints" / "step_000150" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(TrainError, match=r"model\.safetensors: checksum mismatch"):
        ask.main(["--checkpoint", str(run_folder), "Which?"])


def test_the_command_prints_the_answer_or_one_line_of_error(run_folder: Path) -> None:
    command = [sys.executable, "-m", "ocrtrain.ask", "--checkpoint", str(run_folder), "--image"]
    image = str(run_folder.parent / "blue.png")
    asked = [*command, image, small.QUESTIONS["colour"]]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "blue\n")
    wrong = subprocess.run([*command, "absent.png", "Which?"], capture_output=True, text=True,
                           check=False)  # fmt: skip
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: --image absent.png: No such file or directory\n"
