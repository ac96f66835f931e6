"""What a run says at its end, and that the commands it names are right as they are."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain import stage1, stage2
from ocrtrain.commands import ask, evaluate
from ocrtrain.run import run_log
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from tests.support.data import flags, small_config

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = {"ocrtrain.stage1": stage1.main, "ocrtrain.stage2": stage2.main,
            "ocrtrain.evaluate": evaluate.main, "ocrtrain.ask": ask.main}  # fmt: skip


def type_command(text: str, *more: str) -> int:
    """Run a printed command, in this process, with more flags at its end."""
    python, _, module, *words = shlex.split(text)
    assert python == "python"
    return COMMANDS[module]([*words, *more])


def trained(config: Config, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert stage1.main([*flags(config), *more, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_stopped_run_says_how_to_go_on(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    config = small_config(inputs, run, steps=4, eval_every=0, stop_at=2, name="mine")
    document = trained(config, capsys)
    assert (document["ended"], document["step"], document["steps"]) == (False, 2, 4)
    assert document["checkpoint"].endswith("step_000002") and document["deepencoder"] is None
    (command,) = document["next"].values()
    assert type_command(command) == 0
    assert f"done: 4 steps in {run}" in capsys.readouterr().out
    assert checkpoint.complete_checkpoints(run)[-1].name == "step_000004"


def test_the_figures_and_the_commands_of_a_run_that_ended(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = small_config(
        inputs, run, steps=6, eval_every=3, log_every=2, text=(inputs["text"] + "[:30]",),
        val_text=(inputs["text"] + "[30:]",),
    )  # fmt: skip
    assert stage1.main(flags(config)) == 0
    text = capsys.readouterr().out
    document = trained(config, capsys, "--resume")  # nothing is left to do
    lines = run_log.read(run)
    steps = [line for line in lines if "train/loss" in line]
    assert document["ended"] and document["step"] == len(steps) == 6
    assert (
        document["tokens"]
        == document["planned_tokens"]
        == sum(line["train/tokens"] for line in steps)
    )
    assert document["seconds"] == pytest.approx(sum(line["train/dt"] for line in steps))
    assert document["train_loss"]["first"] == pytest.approx(steps[0]["train/loss"])
    last = [(line["train/loss"], line["train/supervised"]) for line in steps[-2:]]
    mean = sum(loss * count for loss, count in last) / sum(count for _, count in last)
    assert document["train_loss"]["last"] == pytest.approx(mean)
    validations = [line for line in lines if "val/loss" in line]
    for at, place in ((0, "first"), (-1, "last")):
        found = document["validation"][place]
        wanted = {k.removeprefix("val/"): v for k, v in validations[at].items()}
        assert found == {k: v for k, v in wanted.items() if k != "time/validation"}
    assert sum(document["parts_seconds"].values()) == pytest.approx(document["seconds"])
    for kind in ("validation", "saving"):
        took = [line[f"time/{kind}"] for line in lines if f"time/{kind}" in line]
        assert took and document[f"{kind}_seconds"] == pytest.approx(sum(took))
    backward = document["parts_seconds"]["backward"] / document["seconds"]
    assert f"backward {backward:.0%}," in text
    gain = document["validation"]["last"]["image_gain"]
    for fact in ("squares", "sums", f"{gain:.4f}", document["checkpoint"],
                 document["deepencoder"], f"{document['tokens']:,} tokens"):  # fmt: skip
        assert fact in text
    for command in document["next"].values():
        assert command in text
    check_commands(document, tmp_path, run)


def check_commands(document: dict[str, Any], tmp_path: Path, run: Path) -> None:
    """Type each of them."""
    commands = {shlex.split(text)[2]: text for text in document["next"].values()}
    out = tmp_path / "answers.jsonl"
    words = ["--max-new-tokens", "1", "--limit", "6", "--out", str(out)]
    assert type_command(commands["ocrtrain.evaluate"], *words) == 0
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    first = {"squares": range(48, 54), "sums": range(30, 36)}
    assert {answer["key"] for answer in answers} == {f"{n:09d}" for r in first.values() for n in r}
    assert any("exchanged" in answer for answer in answers)
    small = ["--steps", "1", "--batch", "2", "--seq-len", "128", "--val-batch", "6"]
    assert type_command(commands["ocrtrain.stage2"], *small) == 0
    assert checkpoint.complete_checkpoints(tmp_path / "run-stage2")
    asked = commands["ocrtrain.ask"]
    assert asked.count("FILE") == 1 and str(run) in asked
    ask.build_parser().parse_args(shlex.split(asked)[3:])


def test_the_second_stage_of_a_run_from_a_path_needs_that_path_no_more(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its GPT is fresh, its encoder and tokenizer are this run's."""
    first = small_config(inputs, tmp_path / "first", steps=1, eval_every=0)
    assert stage1.main(flags(first)) == 0
    second = small_config(
        inputs, tmp_path / "run", steps=1, eval_every=0, init=first.out, tokenizer=""
    )
    assert stage1.main(flags(second)) == 0
    shown = capsys.readouterr().out
    (command,) = [line.strip() for line in shown.splitlines()
                  if "ocrtrain.stage2" in line and str(second.out) in line]  # fmt: skip
    shutil.rmtree(first.out)
    small = ["--steps", "1", "--batch", "2", "--seq-len", "128", "--val-batch", "6"]
    assert type_command(command, *small) == 0
    last = checkpoint.Checkpoint.open(checkpoint.newest(tmp_path / "run-stage2"))
    assert last.config.init == "random"
    tokenizer = load_tokenizer(inputs["tokenizer"])
    assert last.tokenizer().fingerprint == tokenizer.fingerprint
