"""The whole job on synthetic data, from random weights to a model that reads words it has never
seen: `make demo`.

It runs the commands that anyone would type, prints them, and ends with a table. The first stage
begins with short strings (cells), goes on to charts of one or two items (minis) and then to whole
charts; the second trains a fresh decoder on the frozen encoder in the same order, with tables in
words between. No word of the charts that are scored stands in any training sample. Rerun after a
stop, it continues where it was.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ocrdata.errors import OcrError
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_time
from ocrtrain.run import run_log

READING = ("table", "title", "type", "count", "largest")
"""What charts are asked in stage 1: everything that is written on them."""

SOURCES = {
    "cells": ("glyphs", 13_000, "--offset", 1,
              "--alphabet", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"),
    "minis": ("open-charts", 5_000, "--size", 128, "--items", "1..2",
              "--questions", "table", "title"),
    "charts": ("open-charts", 6_400, "--questions", *READING),
    "questions": ("open-charts", 12_000, "--seed", 1),
    "tables": ("tables", 6_000),
    "unseen": ("open-charts", 120, "--words", "held-out", "--seed", 2),
}  # fmt: skip
"""Shards: source, rows and flags of each. `unseen` is what the model is scored on."""

SIZES = {"cells": 64, "minis": 128}
"""Sizes of images in px that are not the preset's 256."""

STAGE1 = ("--source-at", "80:minis=2", "--source-at", "210:minis=1,charts=4",
          "--source-at", "480:minis=0,charts=5", "--steps", 700)  # fmt: skip
STAGE2 = ("--source-at", "50:cells=0,minis=2", "--source-at", "110:minis=1,questions=4,tables=2",
          "--source-at", "400:minis=0,questions=5,tables=1", "--steps", 1000,
          "--decay-part", 0.5, "--freeze", "sam", "--clip-lr-scale", 0.2)  # fmt: skip

SHOWN = 3
"""Right and wrong answers of each kind that the report shows."""


def main(arguments: Sequence[str]) -> int:
    """Make shards and a tokenizer, train both stages, evaluate, and print the results."""
    parser = Parser(prog="tools/demo.py", description=__doc__ or "")
    parser.add_argument("--shards", default="shards", help="folder for the shards")
    parser.add_argument("--runs", default="runs/demo", help="folder for the two runs")
    args = parser.parse_args(list(arguments))
    shards, runs = Path(args.shards), Path(args.runs)
    started = time.perf_counter()
    for name, (source, rows, *flags) in SOURCES.items():
        command("ocrdata.commands.make_shards", source, "--limit", rows, *flags,
                "--out", shards, "--name", f"demo-{name}")  # fmt: skip
    tokenizer = shards / "demo-tokenizer.json"
    if not tokenizer.exists():
        texts = [f"{shards}/demo-{name}.json[:1000]" for name in ("cells", "questions", "tables")]
        command("ocrdata.commands.train_tokenizer", "--shards", *texts, "--single", "A-Z0-9",
                "--vocab-size", 384, "--out", tokenizer)  # fmt: skip
    # Packed rows: 64 cells (by --row-images), about 57 minis or 23 charts a step.
    common = ("--preset", "tiny", "--recipe", "reads", "--tokenizer", tokenizer,
              "--pack", "--batch", 4, "--seq-len", 512, "--row-images", 16,
              "--eval-every", 500, "--val-batch", 8, "--save-every", 250, "--wandb", "off",
              "--resume")  # fmt: skip
    first, second = runs / "stage1", runs / "stage2"
    command("ocrtrain.stage1", *common, *sources(shards, cells=1, minis=0, charts=0), *STAGE1,
            "--out", first)  # fmt: skip
    command("ocrtrain.stage2", *common, "--deepencoder", encoder(first),
            *sources(shards, tables=1, cells=1, minis=0, questions=0), *STAGE2,
            "--out", second)  # fmt: skip
    command("ocrtrain.evaluate", "--checkpoint", second, "--shards", shards / "demo-unseen.json",
            "--exchange", "--max-new-tokens", 40, "--out", runs / "answers.jsonl")  # fmt: skip
    print(report(runs, seconds=time.perf_counter() - started))
    return 0


def sources(shards: Path, **weights: int) -> list[object]:
    """The flags of sources with their first weights and their sizes of images."""
    words: list[object] = []
    for name, weight in weights.items():
        words += ["--source", f"{name}={shards}/demo-{name}.json:{weight}"]
    for name, size in SIZES.items():
        if name in weights:
            words += ["--image-size-of", f"{name}={size}"]
    return words


def command(module: str, *words: object) -> None:
    """Run a command by its module."""
    execute(["-m", module, *map(str, words)])


def execute(words: list[str]) -> None:
    """Print a command as one would type it, and run it. Raises OcrError if it fails."""
    print(f"\n$ python {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, *words], check=False).returncode
    if status:
        raise OcrError(
            f"the command above failed with status {status}; fix the cause, then rerun the demo"
        )


def encoder(run_folder: Path) -> Path:
    """The DeepEncoder file that stage 1 wrote when it ended."""
    return sorted(run_folder.glob("deepencoder_*.safetensors"))[-1]


class Answer(NamedTuple):
    """One question about a chart, what is right, and what the model said."""

    kind: str
    question: str
    gold: str
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is the right one, to the letter."""
        return self.answer.strip() == self.gold


def read_answers(path: Path) -> list[Answer]:
    """What `ocrtrain.evaluate` wrote, a line each."""
    lines = map(json.loads, path.read_text().splitlines())
    return [Answer(line["kind"], line["question"], line["gold"], line["answer"]) for line in lines]


def report(runs: Path, *, seconds: float) -> str:
    """The text at the end: losses, scores per kind of question beside chance, strings that were
    read right and wrong, and what to type next."""
    summary = json.loads((runs / "answers.summary.json").read_text())
    answers = read_answers(runs / "answers.jsonl")
    lines = ["", "val loss", *(f"  {stage:<10} {_losses(runs / stage)}" for stage in
                               ("stage1", "stage2"))]  # fmt: skip
    lines += ["", "words that stand in no training sample:",
              f"{'exact':<12}{'own image':>12}{'swapped':>12}{'chance':>12}{'wrong letters':>15}"
              f"{'questions':>12}"]  # fmt: skip
    for kind, value in summary["scores"]["kinds"].items():
        lines.append(_row(kind, value, [one for one in answers if one.kind == kind]))
    lines += ["", *_examples(answers), ""]
    gain = summary["validation"]["val/image_gain"]
    lines += [
        f"image gain   {gain:.3f} nats a token: what the sample's own image is worth",
        f"took         {human_time(seconds)}",
        f"run folders  {runs}/stage1, {runs}/stage2; every answer is in {runs}/answers.jsonl",
        "next         ask it about another chart of this kind (its typeface and layout are all it "
        "knows):",
        f"               python -m ocrtrain.ask --checkpoint {runs}/stage2 --image FILE "
        '"What is the title?"',
        "             or make shards of real data, and train on those:",
        "               python tools/make_shards.py chartqa",
    ]
    return "\n".join(lines)


def _losses(run_folder: Path) -> str:
    """First and last validation loss of a run."""
    values = [line["val/loss"] for line in run_log.read(run_folder) if "val/loss" in line]
    return (
        f"{values[0]:.3f} before training, {values[-1]:.3f} at the end ({len(values)} validations)"
    )


def _row(kind: str, value: dict[str, Any], answers: Sequence[Answer]) -> str:
    """Scores of one kind. Chance is the share of its commonest answer; wrong letters are the
    character error rate, edits over the letters of the right answers."""
    swapped = f"{value['exchanged']['exact']:.1%}" if "exchanged" in value else "-"
    chance = Counter(one.gold for one in answers).most_common(1)[0][1] / len(answers)
    return (
        f"{kind:<12}{value['exact']:>12.1%}{swapped:>12}{chance:>12.1%}"
        f"{character_error_rate(answers):>15.1%}{value['answers']:>12,}"
    )


def character_error_rate(answers: Sequence[Answer]) -> float:
    """Edits to make the answers right, over the letters of the right ones."""
    from rapidfuzz.distance import Levenshtein

    edits = sum(Levenshtein.distance(one.answer.strip(), one.gold) for one in answers)
    return edits / sum(len(one.gold) for one in answers)


def _examples(answers: Sequence[Answer]) -> Iterator[str]:
    """The first right and wrong answers of each kind."""
    for kind in dict.fromkeys(one.kind for one in answers):
        for right in (True, False):
            found = [one for one in answers if one.kind == kind and one.right == right]
            for one in found[:SHOWN]:
                word = "right" if right else "WRONG"
                read = "" if right else f", not {one.answer.strip()!r}"
                yield f"  {word}  {one.question} {one.gold}{read}"


if __name__ == "__main__":
    run(main)
